"""Tables: typed columns by name, one of them the target, from any CSV file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.data.csvfile import CsvFile, is_number, read_csv
from chainrule.data.dataset import TensorDataset
from chainrule.data.dates import parse_date
from chainrule.data.notices import notice
from chainrule.data.splits import split_indices
from chainrule.errors import ArgumentError, DataError, unknown_name

MISSING = frozenset(
    [
        "",
        "NA",
        "N/A",
        "n/a",
        "#N/A",
        "<NA>",
        "NaN",
        "nan",
        "NAN",
        "-nan",
        "NULL",
        "null",
        "None",
        "none",
        "?",
    ]
)
"""What counts as no value: pandas' list, and the question mark of the UCI repository."""
POLICIES = ("error", "drop", "mean", "median", "most_frequent")
FEW_CLASSES = 20  # whole numbers with at most so many values may be classes
IDENTIFIER = 20  # text with more values than this, and than half the rows, names single rows


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its name.
        kind: "numeric", "date" or "categorical".
        values: float64 (of a date: days since 1970-01-01) with NaN where there is no value; of a
            category: text (dtype object) with None.
    """

    name: str
    kind: str
    values: np.ndarray

    @property
    def missing(self) -> np.ndarray:
        """Where there is no value, (n,) bool."""
        if self.kind != "categorical":
            return np.isnan(self.values)
        return np.array([value is None for value in self.values], np.bool_)


@dataclass(frozen=True)
class Table:
    """Rows of features and a target.

    Attributes:
        name: the file's name, without its folder and ending.
        features: the columns to learn from, in the file's order.
        target: the column to predict.
        task: "classification" or "regression".
        classes: the classes in the order of their numbers, or None.
        labels: int64 class numbers (n,), or float64 values (n,).
        missing: the policy for cells without a value, see `csv`.
        decimal: the decimal sign of numbers in text.
        left_out: columns that were not taken, and why.
    """

    name: str
    features: tuple[Column, ...]
    target: Column
    task: str
    classes: list[str] | None
    labels: np.ndarray
    missing: str = "error"
    decimal: str = "."
    left_out: Mapping[str, str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def columns(self) -> list[str]:
        """The names of the features."""
        return [column.name for column in self.features]

    def select(self, rows: np.ndarray) -> Table:
        """The table of the given rows."""

        def part(column: Column) -> Column:
            return Column(column.name, column.kind, column.values[rows])

        return Table(
            self.name, tuple(map(part, self.features)), part(self.target), self.task, self.classes,
            self.labels[rows], self.missing, self.decimal, self.left_out,
        )  # fmt: skip

    def split(
        self, test: float | int = 0.2, seed: int = 0, stratify: bool | None = None
    ) -> tuple[Table, Table]:
        """`(train, test)`, see `Dataset.split`."""
        if stratify is None:
            stratify = self.task == "classification"
        parts = split_indices(len(self), test, seed, self.labels if stratify else None)
        return self.select(parts[0]), self.select(parts[1])

    def datasets(
        self, test: float | int = 0.2, seed: int = 0
    ) -> tuple[TensorDataset, TensorDataset, Any]:
        """`(train_set, test_set, preprocessing)`: split, scale by the training part, encode."""
        from chainrule.data.preprocessing import fit_preprocessing

        train, held_out = self.split(test, seed)
        preprocessing = fit_preprocessing(train)
        return preprocessing.dataset(train), preprocessing.dataset(held_out), preprocessing

    def __repr__(self) -> str:
        kinds = [column.kind for column in self.features]
        what = f"{len(self.classes)} classes" if self.classes is not None else "regression"
        dates = f", {kinds.count('date')} date" if "date" in kinds else ""
        return (
            f"Table({self.name!r}, {len(self):,} rows, {kinds.count('numeric')} numeric{dates} and "
            f"{kinds.count('categorical')} categorical features, target {self.target.name!r}: "
            f"{what})"
        )


def csv(
    path: str | os.PathLike[str],
    target: str | int | None = None,
    features: Sequence[str] | None = None,
    missing: str = "error",
    *,
    task: str | None = None,
    categorical: Sequence[str] = (),
    header: bool | str = "auto",
    delimiter: str | None = None,
    decimal: str = ".",
    encoding: str = "utf-8",
) -> Table:
    """Read any CSV file as a table to learn from.

    A column is numeric if all its values are decimal numbers, a date if all are dates such as
    2016-05-09, and categorical otherwise. The task is a classification if the target is text, or
    whole numbers with at most 20 different values, each of them in two rows or more on average;
    otherwise it is a regression.

    Arguments:
        path: the file. Quoted fields, CRLF, a byte order mark and empty lines are fine.
        target: the name of the column to predict, or its number from 0; the last column if None.
        features: the names of the columns to learn from. None: all others, except text that is
            different in more than half of the rows (names, dates) and a nameless column that counts
            the rows; a notice names what is left out.
        missing: what to do about cells without a value (empty, NA, NaN, null, ?, ...): "error";
            "drop" the row; or fill in the "mean", "median" or "most_frequent" value of the training
            rows (text always gets the most frequent). A target is never filled in.
        task: "classification" or "regression", if the rule above decides wrongly.
        categorical: columns that are categories although they are made of numbers.
        header: whether the first row has the columns' names. "auto": yes, unless a cell in it is a
            number.
        delimiter: what parts fields; found out if None (comma, semicolon, tab or bar).
        decimal: the decimal sign.
        encoding: of the text.

    Raises:
        DataError: for what cannot be learned from; names the column and the row.
        UnknownNameError: for a column that is not there; offers the nearest names.
        FileError: if the file cannot be opened.
    """
    if missing not in POLICIES:
        raise unknown_name("policy for missing values", missing, POLICIES)
    if task not in (None, "classification", "regression"):
        raise unknown_name("task", task, ("classification", "regression"))
    file = read_csv(path, delimiter, header, encoding)
    target_name = _column_name(file, target)
    wanted = _feature_names(file, target_name, features)
    for name in categorical:
        _check_column(file, name)
    forced = set(categorical)
    if task == "classification":
        forced.add(target_name)
    raw = {name: _cells(file, name) for name in [*wanted, target_name]}
    keep = _rows_to_keep(file, raw, target_name, missing)
    if not len(keep):
        raise DataError(
            f"{file.name!r} has no row without a missing value: missing='drop' left none."
        )
    columns = {
        name: _column(file, name, [cells[row] for row in keep], keep, forced, decimal)
        for name, cells in raw.items()
    }
    goal = columns.pop(target_name)
    if goal.kind == "date":  # as a target it is text like any other
        cells = [raw[target_name][row] for row in keep]
        goal = Column(target_name, "categorical", np.array(cells, object))
    left_out = {} if features is not None else _left_out(file, list(columns.values()))
    for name, reason in left_out.items():
        notice(f"{file.name}: the column {name!r} is left out: {reason}.")
    taken = tuple(column for name, column in columns.items() if name not in left_out)
    if not taken:
        raise DataError(
            f"{file.name!r} has no column to learn from: beside the target {target_name!r}, "
            + (
                "; ".join(f"{n!r} is left out ({r})" for n, r in left_out.items())
                or "there is none"
            )
            + ". Name columns in features=[...] to take them all the same."
        )
    found, classes, labels = _labels(file, goal, keep, task)
    return Table(
        Path(path).stem, taken, goal, found, classes, labels, missing, decimal, left_out
    )  # fmt: skip


def _check_column(file: CsvFile, name: str) -> str:
    if name not in file.names:
        raise unknown_name(f"column of {file.name!r}", name, file.names)
    return name


def _column_name(file: CsvFile, target: str | int | None) -> str:
    if isinstance(target, str):
        return _check_column(file, target)
    number = -1 if target is None else target
    if not -len(file.names) <= number < len(file.names):
        raise ArgumentError(
            f"target={target} is outside the {len(file.names)} columns of {file.name!r}."
        )
    return file.names[number]


def _feature_names(file: CsvFile, target: str, features: Sequence[str] | None) -> list[str]:
    if features is None:
        return [name for name in file.names if name != target]
    if isinstance(features, str):
        raise ArgumentError(f"features must be a list of names, but got {features!r}.")
    names = [_check_column(file, name) for name in features]
    if target in names:
        raise ArgumentError(f"the target {target!r} cannot be a feature too.")
    if len(set(names)) < len(names):
        raise ArgumentError(f"features names a column twice: {names}.")
    return names


def _cells(file: CsvFile, name: str) -> list[str | None]:
    index = file.names.index(name)
    return [None if row[index] in MISSING else row[index] for row in file.rows]


def _rows_to_keep(
    file: CsvFile, raw: Mapping[str, list[str | None]], target: str, policy: str
) -> list[int]:
    """The rows that stay; raises for a missing value that the policy does not cover."""
    holes = {
        name: [r for r, cell in enumerate(cells) if cell is None] for name, cells in raw.items()
    }
    if policy == "drop":
        dropped = {row for rows in holes.values() for row in rows}
        return [row for row in range(len(file.rows)) if row not in dropped]
    for name, rows in holes.items():
        if rows and (policy == "error" or name == target):
            more = f" ({len(rows)} rows lack it)" if len(rows) > 1 else ""
            fix = (
                "a target is never filled in; use missing='drop' to leave such rows out."
                if name == target and policy != "error"
                else "fill it in, or choose a policy: missing='drop', 'mean', 'median' or "
                "'most_frequent'."
            )
            raise DataError(
                f"{file.name!r}, column {name!r}, {file.place(rows[0])}: the value is "
                f"missing{more}; {fix}"
            )
    return list(range(len(file.rows)))


def _column(
    file: CsvFile,
    name: str,
    cells: list[str | None],
    rows: list[int],
    categorical: set[str],
    decimal: str,
) -> Column:
    """A typed column; raises for text among numbers."""
    numeric = [cell is None or is_number(cell, decimal) for cell in cells]
    present = sum(cell is not None for cell in cells)
    text = numeric.count(False)
    if name in categorical:
        return Column(name, "categorical", np.array(cells, object))
    if present - text < 0.5 * max(present, 1):
        days = [np.nan if cell is None else parse_date(cell) for cell in cells]
        if present and None not in days:
            return Column(name, "date", np.array(days, np.float64))
        return Column(name, "categorical", np.array(cells, object))
    if text:
        at = numeric.index(False)
        hint = f"if {name!r} is a category, name it in categorical=[{name!r}]"
        if cells[at] and is_number(str(cells[at]).replace(",", ".")):
            hint = "if the comma is the decimal sign, pass decimal=','"
        raise DataError(
            f"{file.name!r}, column {name!r}, {file.place(rows[at])}: {cells[at]!r} is not a "
            f"finite number, but {present - text} of {present} values of this column are numbers. "
            f"Correct the cell, or {hint}."
        )
    values = [np.nan if c is None else float(c.replace(decimal, ".")) for c in cells]
    if not np.isfinite(np.array([v for v in values if v == v])).all():
        at = next(i for i, v in enumerate(values) if np.isinf(v))
        raise DataError(
            f"{file.name!r}, column {name!r}, {file.place(rows[at])}: {cells[at]} is too large a "
            "number."
        )
    return Column(name, "numeric", np.array(values, np.float64))


def _left_out(file: CsvFile, columns: list[Column]) -> dict[str, str]:
    """The features that nothing can be learned from, and why."""
    found = {}
    for column in columns:
        present = column.values[~column.missing]
        nameless = column.name == f"column {file.names.index(column.name) + 1}"
        if not len(present):
            found[column.name] = "it has no values"
        elif column.kind == "categorical":
            distinct = len(set(present.tolist()))
            if distinct > max(IDENTIFIER, len(present) / 2):
                found[column.name] = f"{distinct:,} different texts in {len(present):,} rows"
        elif (
            nameless and len(present) > 2 and (np.diff(present) == 1).all() and present[0] in (0, 1)
        ):
            found[column.name] = "it has no name and counts the rows"
    return found


def _labels(
    file: CsvFile, goal: Column, rows: list[int], task: str | None
) -> tuple[str, list[str] | None, np.ndarray]:
    """(task, classes, labels) of a target column."""
    where = f"{file.name!r}, target {goal.name!r}"
    if goal.kind == "numeric" and task != "classification":
        whole = bool((goal.values == np.rint(goal.values)).all())
        distinct = len(np.unique(goal.values))
        few = distinct <= min(FEW_CLASSES, len(rows) / 2)
        if task == "regression" or not (whole and few):
            if distinct == 1:
                raise DataError(
                    f"{where}: all values are {goal.values[0]:g}; nothing is to be learned."
                )
            return "regression", None, goal.values
    elif task == "regression":
        at = next(i for i, cell in enumerate(goal.values) if not is_number(cell))
        raise DataError(
            f"{where}, {file.place(rows[at])}: {goal.values[at]!r} is not a number, which a "
            "regression needs."
        )
    values = goal.values.tolist()
    distinct_values = sorted(set(values), key=_class_order)
    number = {value: code for code, value in enumerate(distinct_values)}
    if len(number) == 1:
        raise DataError(
            f"{where}: all rows have one class, {class_name(values[0])}; nothing is to be learned."
        )
    if goal.kind == "categorical" and len(number) > max(IDENTIFIER, len(values) / 2):
        raise DataError(
            f"{where}: {len(number):,} different texts in {len(values):,} rows are no classes to "
            "learn. Choose another target column."
        )
    classes = [class_name(value) for value in distinct_values]
    return "classification", classes, np.array([number[v] for v in values], np.int64)


def class_name(value: Any) -> str:
    """What a value of the target is called as a class: `1` for 1.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _class_order(value: Any) -> tuple[int, float, str]:
    """Numbers by size, before text by the alphabet."""
    if isinstance(value, float) or is_number(value):
        return 0, float(value), str(value)
    return 1, 0.0, value
