"""What is told while training: lines, a bar in a terminal, silence."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from chainrule import data
from chainrule.train.progress import Bar, Lines, Progress, format_seconds, make_progress


def test_plain_lines(problem, capsys):
    trainer = problem.trainer(progress=None)
    trainer.fit(problem.loader(), data.DataLoader(problem.dataset, 25), epochs=10)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    pattern = (
        r"epoch +\d+/10: loss [\d.]+, accuracy \d+\.\d\d %, val_loss [\d.]+, "
        r"val_accuracy \d+\.\d\d %, [\d,]+ samples/s, \d+\.\d s"
    )
    assert all(re.fullmatch(pattern, line) for line in lines)


def test_silence(problem, capsys):
    problem.trainer(progress=False).fit(problem.loader(), epochs=2)
    assert capsys.readouterr() == ("", "")


def test_lines_within_a_long_epoch(problem):
    stream = io.StringIO()
    lines = Lines(stream)
    lines.EVERY = 0
    problem.trainer(progress=lines).fit(problem.loader(), epochs=2)
    said = stream.getvalue().splitlines()
    assert len(said) == 10
    pattern = r"epoch 1/2: step 2/4, loss \S+, accuracy \S+ %, [\d,]+ samples/s, \d+\.\d s left"
    assert re.fullmatch(pattern, said[1])


def test_lines_for_a_loader_without_a_length(problem):
    stream = io.StringIO()
    lines = Lines(stream)
    lines.EVERY = 0

    class Endless:
        def __iter__(self):
            return iter(problem.loader())

    problem.trainer(progress=lines).fit(Endless(), epochs=1)
    assert re.match(r"epoch 1/1: step 1, loss \S+, accuracy \S+ %, [\d,]+ samples/s$",
                    stream.getvalue().splitlines()[0])  # fmt: skip


@pytest.mark.parametrize("width", [20, 60, 120])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_bar_in_a_terminal(problem, width, encoding):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    bar = Bar(Console(file=stream, force_terminal=True, width=width, legacy_windows=False))
    bar.EVERY = 0
    validation = data.DataLoader(problem.dataset, 25)
    problem.trainer(progress=bar).fit(problem.loader(), validation, epochs=2)
    stream.flush()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw.getvalue().decode(encoding))
    assert "epoch 1/2" in text
    if width == 120:
        assert "samples/s" in text and " left" in text
        assert "measuring held-out data" in text
        assert re.search(r"epoch 2/2: loss \S+, accuracy", text)
    bar_lines = [line for line in re.split(r"[\r\n]", text) if "━" in line or "---" in line]
    assert all(len(line.rstrip()) <= width for line in bar_lines)


def test_the_bar_ends_with_an_error(problem):
    stream = io.StringIO()
    bar = Bar(Console(file=stream, force_terminal=True, width=80))
    with pytest.raises(ValueError):
        problem.trainer(progress=bar).fit([(1, 2, 3)])
    assert not bar.bar.live.is_started


def test_what_is_made_for_what(monkeypatch):
    assert type(make_progress(False)) is Progress
    assert type(make_progress(None)) is Lines and type(make_progress(True)) is Lines
    own = Progress()
    assert make_progress(own) is own
    monkeypatch.setenv("TERM", "dumb")
    assert type(make_progress(None)) is Lines


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (7.34, "7.3 s"), (59.94, "59.9 s"), (59.96, "1:00"), (125, "2:05"),
     (3599.6, "1:00:00"), (3723, "1:02:03")],
)  # fmt: skip
def test_times(seconds, text):
    assert format_seconds(seconds) == text
