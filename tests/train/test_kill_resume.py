"""A run that is killed at any moment and resumed ends with the same bits as one that was not."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from killed_run import EPOCHS, STEPS

from chainrule import train
from chainrule.serialize import load_state

SCRIPT = Path(__file__).with_name("killed_run.py")
OFTEN, SELDOM = "0", "0.05"  # seconds between checkpoints: after each step, or now and then


def begin(folder: Path, every: str, *more: str) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), str(folder), every, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> list[int]:
    """Let it run to its end; the steps that it did."""
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return [int(line) for line in said.split()]


def kill_at(process: subprocess.Popen, step: int, delay: float) -> bool:
    """Kill the process `delay` seconds after it has done `step`; whether it was still running."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= step:
            break
    time.sleep(delay)
    process.kill()  # SIGKILL; TerminateProcess on Windows
    process.communicate(timeout=60)
    return process.returncode != 0


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    steps = finish(begin(folder, SELDOM))
    assert steps == list(range(1, STEPS + 1))
    return (folder / "final.state").read_bytes()


def check_folder(folder: Path) -> None:
    """Whatever the moment: what is under a final name is whole."""
    for name in ("last.ckpt", "best.ckpt"):
        if (folder / name).exists():
            assert load_state(folder / name)["step"] <= STEPS
    if (folder / "metrics.csv").exists():
        lines = (folder / "metrics.csv").read_text(encoding="utf-8").splitlines()
        assert len({line.count(",") for line in lines}) == 1


def test_killed_again_and_again(tmp_path, uninterrupted):
    """One run, killed four times: within steps and while checkpoints are written."""
    draw = random.Random(os.environ.get("CHAINRULE_KILL_SEED", "1"))
    kills, reached, every = 0, 0, OFTEN
    while kills < 4:
        process = begin(tmp_path, every, *(["resume"] if kills else []))
        step = min(reached + draw.randint(3, 9), STEPS - 2)
        assert kill_at(process, step, draw.uniform(0, 0.02))
        kills += 1
        check_folder(tmp_path)
        before, reached = reached, train.read_checkpoint(tmp_path)["step"]
        assert reached >= before
        every = SELDOM if kills >= 3 else OFTEN
    finish(begin(tmp_path, SELDOM, "resume"))
    assert (tmp_path / "final.state").read_bytes() == uninterrupted
    assert train.read_checkpoint(tmp_path)["epoch"] == EPOCHS


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(20))
def test_killed_at_a_random_moment(tmp_path, uninterrupted, moment):
    draw = random.Random(f"{os.environ.get('CHAINRULE_KILL_SEED', '1')}-{moment}")
    step, delay = draw.randint(0, STEPS - 1), draw.uniform(0, 0.03)
    every = OFTEN if moment % 2 else SELDOM
    kill_at(begin(tmp_path, every), max(step, 1), delay)
    check_folder(tmp_path)
    finish(begin(tmp_path, every, "resume"))
    assert (tmp_path / "final.state").read_bytes() == uninterrupted


def test_killed_before_the_first_step(tmp_path, uninterrupted):
    """There may be no checkpoint yet: the run begins anew."""
    process = begin(tmp_path, SELDOM)
    time.sleep(0.05)
    process.kill()
    process.communicate(timeout=60)
    assert not (tmp_path / "last.ckpt").exists()
    finish(begin(tmp_path, SELDOM, "resume"))
    assert (tmp_path / "final.state").read_bytes() == uninterrupted


def test_resumed_when_it_was_done(tmp_path, uninterrupted):
    finish(begin(tmp_path, SELDOM))
    assert finish(begin(tmp_path, SELDOM, "resume")) == []
    assert (tmp_path / "final.state").read_bytes() == uninterrupted
