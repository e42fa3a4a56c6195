"""The command line, called in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from chainrule.cli.entry import run


class Answer(NamedTuple):
    code: int
    out: str
    err: str


def call(*arguments: object) -> Answer:
    """Run `chainrule ARGUMENTS` here, with streams of its own."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        code = run([str(a) for a in arguments])
    texts = []
    for stream in streams:
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    assert "Traceback" not in texts[1]
    return Answer(code, *texts)


def works(*arguments: object) -> str:
    """Run what should work; returns what it printed."""
    answer = call(*arguments)
    assert answer.code == 0, answer.err
    return answer.out


def refused(*arguments: object) -> str:
    """Run what should be refused: exit code 2, and one paragraph, which is returned."""
    answer = call(*arguments)
    assert answer.code == 2, answer
    lines = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and answer.err.rstrip("\n").splitlines()[-1] == lines[0], answer.err
    assert lines[0].endswith((".", "--help", "]", ")")), lines[0]
    return lines[0]


# SIGINT is ignored in processes that were started in the background, and in their children.
_MAIN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from chainrule.cli import main; main()"
)


def process(*arguments: object, **options) -> subprocess.Popen:
    """Begin `chainrule ARGUMENTS` in a process of its own."""
    environment = {**os.environ, **options.pop("env", {})}
    command = [sys.executable, "-c", _MAIN, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, **{"stdout": pipe, "stderr": pipe, "env": environment, **options}
    )


def parts(folder: Path) -> list[str]:
    """What a write that was broken off has left behind."""
    return [p.name for p in folder.rglob("*") if ".part" in p.name]
