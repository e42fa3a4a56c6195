"""Progress on the screen: a bar in a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from typing import Any

Numbers = dict[str, float]


def format_numbers(numbers: Numbers) -> str:
    """`loss 0.1234, accuracy 98.61 %`"""
    parts = []
    for key, value in numbers.items():
        percent = "accuracy" in key or key.removeprefix("val_").startswith("top")
        parts.append(f"{key} {100 * value:.2f} %" if percent else f"{key} {value:.4g}")
    return ", ".join(parts)


def format_seconds(seconds: float) -> str:
    """`7.3 s`, `2:05`, `1:02:03`"""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


class Progress:
    """What the trainer tells while it works. This one says nothing."""

    def epoch(self, epoch: int, epochs: int, steps: int | None, done: int) -> None:
        """An epoch begins, `done` of its `steps` already behind it."""

    def step(self, samples: int, numbers: Numbers) -> None:
        """One more batch is done."""

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
        self.place = f"epoch {epoch}/{epochs}"
        self.steps, self.done, self.samples, self.worked = steps, done, 0, 0
        self.begun = self.last = time.monotonic()

    def step(self, samples: int, numbers: Numbers) -> None:
        self.done += 1
        self.worked += 1
        self.samples += samples
        now = time.monotonic()
        if now - self.last >= self.EVERY:
            self.last = now
            self._print(f"{self.place}: {self._within(now, numbers)}")

    def _within(self, now: float, numbers: Numbers) -> str:
        elapsed = max(now - self.begun, 1e-9)
        parts = [f"step {self.done}" + (f"/{self.steps}" if self.steps else "")]
        parts.append(format_numbers(numbers))
        parts.append(f"{self.samples / elapsed:.0f} samples/s")
        if self.steps:
            left = elapsed / self.worked * (self.steps - self.done)
            parts.append(f"{format_seconds(left)} left")
        return ", ".join(parts)

    def record(self, record: Numbers) -> None:
        shown = {
            k: v
            for k, v in record.items()
            if k not in ("epoch", "steps", "seconds", "samples_per_second", "lr")
        }
        speed = f"{record['samples_per_second']:.0f} samples/s"
        self._print(
            f"{self.place}: {format_numbers(shown)}, {speed}, {format_seconds(record['seconds'])}"
        )

    def note(self, text: str) -> None:
        self._print(text)


class Bar(Lines):
    """A live bar by rich: loss, metrics, samples per second, time left; a line for each epoch."""

    def __init__(self, console: Any):
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.console = console
        self.bar = RichProgress(
            TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"), TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(), console=console, transient=True,
        )  # fmt: skip
        self.task: Any = None
        self.bar.start()

    def _print(self, text: str) -> None:
        self.bar.console.print(text, highlight=False, markup=False)

    def epoch(self, epoch: int, epochs: int, steps: int | None, done: int) -> None:
        super().epoch(epoch, epochs, steps, done)
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.task = self.bar.add_task(
            self.place, total=steps, completed=done, numbers="", speed=""
        )

    def step(self, samples: int, numbers: Numbers) -> None:
        self.done += 1
        self.samples += samples
        elapsed = max(time.monotonic() - self.begun, 1e-9)
        self.bar.update(
            self.task, completed=self.done, numbers=format_numbers(numbers),
            speed=f"{self.samples / elapsed:.0f} samples/s",
        )  # fmt: skip

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
