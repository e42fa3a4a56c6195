"""The command in a process of its own: signals, pipes, terminals, limits of the system."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import pytest
from command import parts, process, refused, works

from chainrule.train import read_checkpoint

no_signals = pytest.mark.skipif(os.name == "nt", reason="a process cannot be sent Ctrl-C there")
RUN = ["train", "mlp", "--epochs", "8", "--augment", "--workers", "2", "--dropout", "0.1"]


def wait_for(child: subprocess.Popen, text: bytes) -> None:
    for line in child.stdout:
        if text in line:
            return
    raise AssertionError(child.stderr.read())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "x"
    works(*RUN, "--out", folder, "--quiet")
    return (folder / "model.safetensors").read_bytes()


@no_signals
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, whole, number):
    child = process(*RUN, "--out", "a run", cwd=tmp_path)
    wait_for(child, b"epoch 3/8")
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert b"interrupted after step " in out and b"Traceback" not in err
    again = "chainrule train mlp --out 'a run' --resume"
    assert err.decode() == f"the run is kept; go on with: {again}\ninterrupted\n"
    assert 3 <= read_checkpoint(tmp_path / "a run")["epoch"] < 8
    works("train", "mlp", "--out", tmp_path / "a run", "--resume", "--quiet")
    assert (tmp_path / "a run" / "model.safetensors").read_bytes() == whole


@no_signals
def test_ctrl_c_twice_stops_at_once(tmp_path, whole):
    child = process(*RUN, "--out", "x", cwd=tmp_path)
    wait_for(child, b"epoch 2/8")
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGINT)
    time.sleep(0.001)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130 and b"interrupted" in err and b"Traceback" not in err
    assert parts(tmp_path) == []
    works("train", "mlp", "--out", tmp_path / "x", "--resume", "--quiet")
    assert (tmp_path / "x" / "model.safetensors").read_bytes() == whole


@no_signals
@pytest.mark.parametrize("delay", [0.3, 0.6, 0.9])
def test_ctrl_c_before_the_first_step(tmp_path, delay):
    child = process(*RUN, "--out", "x", cwd=tmp_path)
    time.sleep(delay)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    if child.returncode == -signal.SIGINT:
        assert b"in main" not in err  # so early that Python had not come to the command yet
        return
    assert child.returncode == 130 and b"interrupted" in err and b"Traceback" not in err
    assert parts(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(20))
def test_killed_at_a_random_moment(tmp_path, whole, moment):
    draw = random.Random(moment)
    child = process(*RUN, "--out", "x", "--resume", cwd=tmp_path)
    time.sleep(draw.uniform(0.5, 5))
    child.kill()
    child.communicate(timeout=60)
    child = process(*RUN, "--out", "x", "--resume", cwd=tmp_path)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 0, err
    assert (tmp_path / "x" / "model.safetensors").read_bytes() == whole
    assert parts(tmp_path) == []


@no_signals
def test_a_reader_that_goes_away(tmp_path):
    """As in `chainrule train ... | head -1`."""
    child = process("train", "mlp", "--epochs", 30, "--out", "x", cwd=tmp_path)
    child.stdout.readline()
    child.stdout.close()
    err = child.stderr.read()
    assert child.wait(timeout=60) == 1 and err == b""
    assert read_checkpoint(tmp_path / "x")["epoch"] >= 1


@no_signals
def test_a_reader_that_was_never_there():
    read, write = os.pipe()
    os.close(read)
    child = process("datasets", stdout=write)
    os.close(write)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 1 and err == b""


PLAIN = {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}


def test_a_terminal_that_knows_ascii_alone(tmp_path):
    rows = "".join(f"{i},{'größer' if i > 9 else 'kleiner'}\n" for i in range(20))
    (tmp_path / "t.csv").write_text("zahl,maß\n" + rows, encoding="utf-8")
    data = tmp_path / "t.csv"
    works("train", "csv", "--data", data, "--epochs", 40, "--out", tmp_path / "x", "--lr", 0.05)
    child = process("predict", "x", "19", "--top", 1, env=PLAIN, cwd=tmp_path)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert out.decode("ascii").startswith("19: gr\\xf6\\xdfer ")
    child = process("train", "csv", "--data", "t.csv", "--target", "zal", env=PLAIN, cwd=tmp_path)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 2 and b"did you mean 'zahl'? Known: ma\\xdf, zahl." in err


@pytest.mark.skipif(os.name == "nt", reason="limits on the size of files are those of POSIX")
def test_a_limit_on_the_size_of_files(tmp_path):
    import resource

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    child = process("train", "lenet", "--epochs", 1, "--out", "x", cwd=tmp_path, preexec_fn=limit)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 2
    text = err.decode()
    assert text.startswith("error: cannot write 'x/last.ckpt'") and text.count("\n") == 1
    assert parts(tmp_path) == []


def test_without_a_network(monkeypatch, tmp_path):
    """Nothing listens at the proxy: the error comes at once and names what can be done."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("chainrule.data.vision.cache_folder", lambda: tmp_path / "cache")
    error = refused("train", "mlp", "--data", "mnist", "--out", "x")
    assert "could not fetch train-images-idx3-ubyte.gz" in error and "'digits'" in error
    assert "CHAINRULE_DATA" in error
    assert not (tmp_path / "x").exists()


def test_leftovers_of_a_killed_run_are_cleared_away(tmp_path):
    works("train", "csv", "--data", "iris", "--epochs", 1, "--out", "x", "--quiet")
    (tmp_path / "x" / ".last-abc123.part.ckpt").write_bytes(b"half")
    works("train", "csv", "--out", "x", "--resume", "--quiet")
    assert parts(tmp_path) == []
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / ".config-abc123.part.json").write_text("{")
    works("train", "csv", "--data", "iris", "--epochs", 1, "--out", "y", "--resume", "--quiet")
    assert parts(tmp_path) == []
