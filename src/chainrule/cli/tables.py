"""Printing tables and pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from chainrule.train.progress import format_numbers


def print_pairs(title: str, numbers: Mapping[str, Any]) -> None:
    """A line `title: name value, name value`."""
    shown = {k: v for k, v in numbers.items() if k not in ("samples", "epochs")}
    count = f" ({numbers['samples']:,} samples)" if "samples" in numbers else ""
    print(f"{title}{count}: {format_numbers(shown)}")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; plain columns where the output is no terminal."""
    console = Console()
    if not console.is_terminal:
        widths = [max(len(str(r[i])) for r in [columns, *rows]) for i in range(len(columns))]
        for row in [columns, *rows]:
            print("  ".join(str(c).ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table, highlight=False, markup=False)
