"""Reading a CSV file into rows of text, with every irregularity named by its row and line."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chainrule.errors import ArgumentError, DataError, unknown_name
from chainrule.files import file_error

DELIMITERS = (",", ";", "\t", "|")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
SNIFFED_LINES = 50


@dataclass(frozen=True)
class CsvFile:
    """The text of a table.

    Attributes:
        name: what to call it in messages.
        names: the columns' names.
        rows: the cells of each row, without surrounding spaces.
        lines: the line of the file on which each row ends.
    """

    name: str
    names: list[str]
    rows: list[list[str]]
    lines: list[int]

    def place(self, row: int) -> str:
        """How to name a row: counted from 1 without the header, and by its line in the file."""
        return f"row {row + 1} (line {self.lines[row]})"


def is_number(text: str, decimal: str = ".") -> bool:
    """Whether a cell is a finite decimal number."""
    if decimal != ".":
        text = text.replace(decimal, ".") if "." not in text else ""
    return NUMBER.fullmatch(text) is not None


def read_csv(
    path: str | os.PathLike[str],
    delimiter: str | None = None,
    header: bool | str = "auto",
    encoding: str = "utf-8",
) -> CsvFile:
    """Read a file of delimited text; see `data.csv` for the arguments.

    Raises:
        FileError: if the file cannot be opened.
        DataError: for text in another encoding, a row with too few or too many fields, a column's
            name that comes twice, or a file without rows.
    """
    name = os.fspath(path)
    text = _decode(path, encoding)
    if delimiter is None:
        delimiter = sniff_delimiter(text)
    elif len(delimiter) != 1:
        raise ArgumentError(f"delimiter must be one character, but got {delimiter!r}.")
    rows, lines = _parse(name, text, delimiter)
    if not rows:
        raise DataError(f"{name!r} is empty: it has no row at all.")
    if header == "auto":
        header = not any(is_number(cell) for cell in rows[0])
    elif not isinstance(header, bool):
        raise ArgumentError(f"header must be True, False or 'auto', but got {header!r}.")
    if header:
        names, rows, lines = rows[0], rows[1:], lines[1:]
    else:
        names = [""] * len(rows[0])
    names = [cell or f"column {number + 1}" for number, cell in enumerate(names)]
    twice = [column for column, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"{name!r} has more than one column named {twice[0]!r}; columns are chosen by name, so "
            "give each its own."
        )
    if not rows:
        raise DataError(f"{name!r} has a header with {len(names)} columns and no row below it.")
    table = CsvFile(name, names, rows, lines)
    _check_widths(table, delimiter)
    return table


def read_columns(path: str | os.PathLike[str], names: Sequence[str]) -> dict[str, list[str]]:
    """The cells of some columns of a CSV file as text, in the order of `names`.

    Others are passed over. This is what `Preprocessing.inputs` takes.

    Raises:
        UnknownNameError: for a column that is not there; offers the nearest names.
        FileError, DataError: as `data.csv`.
    """
    file = read_csv(path)
    for name in names:
        if name not in file.names:
            raise unknown_name(f"column of {file.name!r}", name, file.names)
    places = {name: file.names.index(name) for name in names}
    return {name: [row[at] for row in file.rows] for name, at in places.items()}


def _decode(path: str | os.PathLike[str], encoding: str) -> str:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise file_error("read", path, error) from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        encoding = "utf-8-sig"  # the same, and a byte order mark is not text
    try:
        return content.decode(encoding)
    except LookupError:
        raise ArgumentError(f"there is no encoding named {encoding!r}; try 'utf-8'.") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{os.fspath(path)!r} is not {encoding.removesuffix('-sig')} text: line {line} has the "
            f"byte {content[error.start]:#04x} at position {error.start}. Save it as UTF-8, or "
            "name its encoding, for example encoding='latin-1'."
        ) from error


def sniff_delimiter(text: str) -> str:
    """The delimiter that gives the first rows, the very first included, the most fields alike."""
    lines = io.StringIO(text, newline="")
    sample = [line for _, line in zip(range(SNIFFED_LINES), lines, strict=False)]
    best, fields = ",", 1
    for delimiter in DELIMITERS:
        try:
            rows = [row for row in csv.reader(sample, delimiter=delimiter) if any(row)]
        except csv.Error:
            continue
        widths = Counter(len(row) for row in rows)
        width, count = widths.most_common(1)[0] if widths else (1, 0)
        if width > fields and count >= 0.8 * len(rows) and len(rows[0]) == width:
            best, fields = delimiter, width
    return best


def _parse(name: str, text: str, delimiter: str) -> tuple[list[list[str]], list[int]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, lines = [], []
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells) or len(cells) > 1:  # an empty line is one empty cell, or none
                rows.append(cells)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{name!r}, line {reader.line_num}: {error}.") from error
    return rows, lines


def _check_widths(table: CsvFile, delimiter: str) -> None:
    width = len(table.names)
    for number, row in enumerate(table.rows):
        if len(row) != width:
            raise DataError(
                f"{table.name!r}, {table.place(number)}: {len(row)} fields, but there are {width} "
                f"columns ({_few(table.names)}), parted by {delimiter!r}. Quote text that holds a "
                "delimiter."
            )


def _few(names: list[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
