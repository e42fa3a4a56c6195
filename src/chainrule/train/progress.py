"""Progress on the screen: a bar in a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from chainrule.train.history import is_share

Numbers = dict[str, float]

# What a record holds beside losses and metrics.
BESIDE = ("epoch", "steps", "seconds", "samples_per_second", "lr")


def format_numbers(numbers: Numbers) -> str:
    """`loss 0.1234, accuracy 98.61 %`"""
    parts = []
    for key, value in numbers.items():
        parts.append(f"{key} {100 * value:.2f} %" if is_share(key) else f"{key} {value:.4g}")
    return ", ".join(parts)


def format_seconds(seconds: float) -> str:
    """`7.3 s`, `2:05`, `1:02:03`"""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


class Progress:
    """What the trainer tells while it works. This one says nothing."""

    def epoch(self, epoch: int, epochs: int, steps: int | None, done: int) -> None:
        """An epoch begins, `done` of its `steps` already behind it."""

    def step(self, samples: int, numbers: Callable[[], Numbers]) -> None:
        """One more batch is done; `numbers()` are those of the epoch so far."""

    def validation(self) -> None:
        """The steps of the epoch are done and the held-out data is being measured."""

    def record(self, record: Numbers) -> None:
        """An epoch is over."""

    def note(self, text: str) -> None:
        """Something worth a line happened."""

    def close(self) -> None:
        """The run is over."""


class Lines(Progress):
    """Plain lines: one for each epoch, and one every ten seconds within a long one."""

    EVERY = 10.0

    def __init__(self, stream: Any = None):
        self.stream = sys.stdout if stream is None else stream

    def _print(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def epoch(self, epoch: int, epochs: int, steps: int | None, done: int) -> None:
        width = len(str(epochs))
        self.place = f"epoch {epoch:{width}}/{epochs}"
        self.epochs_left, self.steps, self.done = epochs - epoch, steps, done
        self.samples, self.worked = 0, 0
        self.begun = self.shown = time.monotonic()

    def step(self, samples: int, numbers: Callable[[], Numbers]) -> None:
        self.done += 1
        self.worked += 1
        self.samples += samples
        now = time.monotonic()
        if now - self.shown >= self.EVERY:
            self.shown = now
            self._show(now, numbers())

    def _show(self, now: float, numbers: Numbers) -> None:
        steps = f"step {self.done}" + (f"/{self.steps}" if self.steps else "")
        parts = [steps, format_numbers(numbers), self._speed(now)]
        if self.steps:
            parts.append(f"{self._left(now)} left")
        self._print(f"{self.place}: {', '.join(parts)}")

    def _speed(self, now: float) -> str:
        return f"{self.samples / max(now - self.begun, 1e-9):,.0f} samples/s"

    def _left(self, now: float) -> str:
        """The time that the run's remaining steps take, at the pace of this epoch."""
        steps = (self.steps or 0) * (1 + self.epochs_left) - self.done
        return format_seconds((now - self.begun) / max(self.worked, 1) * max(steps, 0))

    def record(self, record: Numbers) -> None:
        shown = {k: v for k, v in record.items() if k not in BESIDE}
        speed = f"{record['samples_per_second']:,.0f} samples/s"
        self._print(
            f"{self.place}: {format_numbers(shown)}, {speed}, {format_seconds(record['seconds'])}"
        )

    def note(self, text: str) -> None:
        self._print(text)


class Bar(Lines):
    """A live bar by rich: loss, metrics, samples per second, time left; a line for each epoch."""

    EVERY = 0.1

    def __init__(self, console: Any):
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column

        # In a narrow terminal the line is cut, without the dots that not every terminal can show.
        place, numbers = (
            TextColumn(text, table_column=Column(no_wrap=True, overflow="crop"))
            for text in ("{task.description}", "{task.fields[numbers]}")
        )
        self.bar = RichProgress(
            place, BarColumn(bar_width=16), numbers, console=console, transient=True
        )
        self.task: Any = None
        self.text = ""
        self.bar.start()

    def _print(self, text: str) -> None:
        self.bar.console.print(text, highlight=False, markup=False)

    def epoch(self, epoch: int, epochs: int, steps: int | None, done: int) -> None:
        super().epoch(epoch, epochs, steps, done)
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.task = self.bar.add_task(self.place, total=steps, completed=done, numbers=self.text)

    def _show(self, now: float, numbers: Numbers) -> None:
        parts = [format_numbers(numbers), self._speed(now)]
        if self.steps:
            parts.append(f"{self._left(now)} left")
        self.text = ", ".join(parts)  # stays until there are numbers of the next epoch
        self.bar.update(self.task, completed=self.done, numbers=self.text)

    def validation(self) -> None:
        self.bar.update(self.task, completed=self.done, numbers="measuring held-out data")

    def close(self) -> None:
        self.bar.stop()


def make_progress(progress: bool | Progress | None) -> Progress:
    """True or None: a bar in a terminal and lines elsewhere. False: silence."""
    if isinstance(progress, Progress):
        return progress
    if progress is False:
        return Progress()
    from rich.console import Console

    console = Console()
    if console.is_terminal and not console.is_dumb_terminal:
        return Bar(console)
    return Lines()
