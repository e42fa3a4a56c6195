"""How a tensor looks: as text, and as HTML in a notebook."""

from __future__ import annotations

import html
from typing import Any

import numpy as np


def _notes(tensor: Any) -> str:
    notes = [f"dtype={tensor.dtype.name}"]
    if tensor.grad_fn is not None:
        notes.append(f"grad_fn={tensor.grad_fn.name}")
    elif tensor.requires_grad:
        notes.append("requires_grad=True")
    return ", ".join(notes)


LONG, WIDTH = 200, 88  # more elements than this are shortened; the characters of a line


def as_text(tensor: Any) -> str:
    """`Tensor([[0.5, 0.25]], dtype=float32)`, long tensors shortened with their shape."""
    name = type(tensor).__name__
    if not isinstance(tensor._array, np.ndarray):  # a compiled function is being traced
        return f"{name}({tensor._array!r})"
    shape = f"shape={tensor.shape}, " if tensor.size > LONG or tensor.size == 0 else ""
    tail = f", {shape}{_notes(tensor)})"
    body = np.array2string(
        tensor._array, separator=", ", prefix=f"{name}(", threshold=LONG, max_line_width=WIDTH
    )
    return f"{name}({body}{tail}"


ROWS, COLUMNS = 12, 12


def _shade(value: float, largest: float) -> str:
    """A background from white to blue (positive) or red (negative), by size."""
    if not np.isfinite(value) or largest == 0:
        return ""
    strength = min(abs(value) / largest, 1.0) * 0.45
    colour = "31,119,180" if value >= 0 else "214,39,40"
    return f' style="background:rgba({colour},{strength:.2f})"'


def _table(matrix: np.ndarray[Any, Any]) -> str:
    rows, columns = matrix.shape
    numeric = matrix.dtype.kind in "fiu"
    largest = float(np.max(np.abs(matrix), initial=0.0)) if numeric and matrix.size else 0.0
    lines = []
    for i in range(min(rows, ROWS)):
        cells = []
        for j in range(min(columns, COLUMNS)):
            value = matrix[i, j]
            text = f"{value:.4g}" if matrix.dtype.kind == "f" else str(value)
            shade = _shade(float(value), largest) if numeric else ""
            cells.append(f"<td{shade}>{html.escape(text)}</td>")
        if columns > COLUMNS:
            cells.append("<td>…</td>")
        lines.append(f"<tr>{''.join(cells)}</tr>")
    if rows > ROWS:
        lines.append(f'<tr><td colspan="{COLUMNS + 1}">…</td></tr>')
    return f"<table>{''.join(lines)}</table>"


def as_html(tensor: Any) -> str:
    """A shaded table of the (first) matrix, under a line with shape, dtype and origin."""
    array = tensor._array
    words = (type(tensor).__name__, str(tensor.shape), _notes(tensor))
    name, shape, notes = map(html.escape, words)
    head = f"<b>{name}</b> {shape} {notes}"
    if array.ndim == 0:
        return f"<div>{head}: <code>{html.escape(str(array))}</code></div>"
    if array.size == 0:
        return f"<div>{head}: no elements</div>"
    first = array.reshape(-1, *array.shape[-2:])[0] if array.ndim > 2 else np.atleast_2d(array)
    where = "" if array.ndim <= 2 else f" first of {array.size // first.size} matrices"
    return f"<div>{head}{where}{_table(first)}</div>"
