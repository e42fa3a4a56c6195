"""From a table's columns to numbers that a network takes, and from its outputs back.

scikit-learn fits (`ColumnTransformer` of `SimpleImputer`, `StandardScaler`, `OneHotEncoder`); what
it has found is kept as plain numbers and names, so that it can be written as JSON and used without
scikit-learn.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from chainrule.data.csvfile import is_number
from chainrule.data.dataset import TensorDataset
from chainrule.data.dates import DateFeature, fit_date, parse_date
from chainrule.data.tables import MISSING, Table, class_name
from chainrule.errors import DataError, require

MAX_CATEGORIES = 64
FORMAT = "chainrule table preprocessing 1"


@dataclass(frozen=True)
class NumericFeature:
    """`(x - mean) / scale`, with `fill` for a missing x (None: a missing x is an error)."""

    name: str
    mean: float
    scale: float
    fill: float | None = None


@dataclass(frozen=True)
class CategoricalFeature:
    """One-hot over `categories`; other values are all zeros, or 1 in a last place if `other`."""

    name: str
    categories: list[str]
    other: bool = False
    fill: str | None = None

    @property
    def width(self) -> int:
        return len(self.categories) + self.other


@dataclass(frozen=True)
class Preprocessing:
    """How rows of a table become inputs, and outputs become answers.

    The inputs are the numeric features, standardised, then one place for each category of each
    categorical feature, then those of the dates.

    Attributes:
        columns: the names of the input columns, in the file's order.
        numeric, categorical, dates: the features.
        target: the target's name.
        classes: the classes, or None for a regression.
        target_mean, target_scale: the network learns `(y - mean) / scale` in a regression.
        decimal: the decimal sign in text.
    """

    columns: list[str]
    numeric: list[NumericFeature]
    categorical: list[CategoricalFeature]
    target: str
    classes: list[str] | None
    target_mean: float = 0.0
    target_scale: float = 1.0
    decimal: str = "."
    dates: list[DateFeature] = field(default_factory=list)

    @property
    def task(self) -> str:
        return "regression" if self.classes is None else "classification"

    @property
    def width(self) -> int:
        """The number of inputs."""
        wide = [*self.categorical, *self.dates]
        return len(self.numeric) + sum(feature.width for feature in wide)

    @property
    def input_names(self) -> list[str]:
        """What each input is: the column, or `column=category`."""
        names = [feature.name for feature in self.numeric]
        for feature in self.categorical:
            names += [f"{feature.name}={category}" for category in feature.categories]
            names += [f"{feature.name}=(other)"] * feature.other
        return names + [name for feature in self.dates for name in feature.input_names]

    def inputs(self, columns: Mapping[str, Sequence[Any]]) -> np.ndarray:
        """Inputs (n, width) float32 from the values of each column.

        A numeric value is a number, or text that is one; a date is text such as 2016-05-09, or its
        days since 1970-01-01; None, NaN and texts such as "NA" are missing.

        Raises:
            DataError: for a column that is missing, a missing value where none was allowed in
                training, or text in a numeric column; names the column and the row.
        """
        lacking = [name for name in self.columns if name not in columns]
        if lacking:
            raise DataError(f"the column {lacking[0]!r} is missing; needed are {self.columns}.")
        parts = [self._standardised(feature, columns[feature.name]) for feature in self.numeric]
        parts += [self._one_hot(feature, columns[feature.name]) for feature in self.categorical]
        parts += [f.encode(_days(f, columns[f.name])) for f in self.dates]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def _standardised(self, feature: NumericFeature, values: Sequence[Any]) -> np.ndarray:
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            holes = np.flatnonzero(np.isnan(values))
            numbers = values.astype(np.float64)
            if len(holes):
                numbers[holes] = _filled(feature, int(holes[0]))
            return ((numbers - feature.mean) / feature.scale)[:, None]
        numbers = np.empty(len(values))
        for row, value in enumerate(values):
            if _is_missing(value):
                value = _filled(feature, row)
            elif isinstance(value, str):
                if not is_number(value.strip(), self.decimal):
                    raise DataError(
                        f"column {feature.name!r}, row {row + 1}: {value!r} is not a number, and "
                        "this column was numeric in training."
                    )
                value = value.strip().replace(self.decimal, ".")
            numbers[row] = float(value)
        return ((numbers - feature.mean) / feature.scale)[:, None]

    def _one_hot(self, feature: CategoricalFeature, values: Sequence[Any]) -> np.ndarray:
        place = {category: index for index, category in enumerate(feature.categories)}
        result = np.zeros((len(values), feature.width))
        for row, value in enumerate(values):
            text = _filled(feature, row) if _is_missing(value) else str(value).strip()
            at = place.get(text, len(place))
            if at < feature.width:
                result[row, at] = 1
        return result

    def table_inputs(self, table: Table) -> np.ndarray:
        """The inputs (n, width) of a table's rows."""
        return self.inputs({column.name: column.values for column in table.features})  # type: ignore

    def targets(self, table: Table) -> np.ndarray:
        """What the network learns: class numbers (n,) int64, or scaled values (n, 1) float32."""
        if self.classes is not None:
            return table.labels.astype(np.int64)
        scaled = (table.labels - self.target_mean) / self.target_scale
        return scaled.astype(np.float32)[:, None]

    def encode_targets(self, values: Sequence[Any]) -> np.ndarray:
        """What the network learns, as `targets`, from the values of the target's column.

        Raises:
            DataError: for a missing value, a class that training did not have, or text in a
                regression; names the row.
        """
        if self.classes is not None:
            place = {name: number for number, name in enumerate(self.classes)}
            numbers = [self._class_number(place, row, value) for row, value in enumerate(values)]
            return np.array(numbers, np.int64)
        feature = NumericFeature(self.target, self.target_mean, self.target_scale)
        return self._standardised(feature, values).astype(np.float32)

    def _class_number(self, place: Mapping[str, int], row: int, value: Any) -> int:
        text = str(value).strip()
        number = is_number(text, self.decimal)
        same = class_name(float(text.replace(self.decimal, "."))) if number else text
        for name in (text, same):
            if name in place:
                return place[name]
        raise DataError(
            f"column {self.target!r}, row {row + 1}: {value!r} is none of the classes of training, "
            f"{', '.join(map(repr, place))}."
        )

    def dataset(self, table: Table) -> TensorDataset:
        """Inputs and targets of a table as a data set."""
        return TensorDataset(
            self.table_inputs(table), self.targets(table),
            name=table.name, classes=self.classes, task=self.task,
        )  # fmt: skip

    def answers(self, outputs: Any) -> list[Any]:
        """Outputs of the network, (n, classes) or (n, 1), as classes or as values of the target."""
        outputs = np.asarray(outputs, np.float64)
        if self.classes is not None:
            return [self.classes[index] for index in outputs.argmax(axis=-1)]
        return (outputs.reshape(-1) * self.target_scale + self.target_mean).tolist()

    def parse_row(self, line: str) -> dict[str, list[str]]:
        """One line of CSV, its fields in the order of `columns`, for `inputs`.

        The delimiter is a comma, or a semicolon where that alone gives the right number of fields.
        """
        for delimiter in (",", ";", "\t"):
            rows = list(csv.reader([line], delimiter=delimiter))
            if rows and len(rows[0]) == len(self.columns):
                return {name: [v.strip()] for name, v in zip(self.columns, rows[0], strict=True)}
        count = len(next(csv.reader([line]), []))
        raise DataError(
            f"the row {line!r} has {count} fields, but {len(self.columns)} are needed, in this "
            f"order: {', '.join(self.columns)}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, text, lists and dictionaries, ready for JSON."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, content: Any) -> Preprocessing:
        """What `to_dict` gave; everything in it is checked.

        Raises:
            DataError: if it is of another form.
        """
        try:
            if content["format"] != FORMAT:
                raise ValueError(f"the format is {content['format']!r}")
            numeric = [NumericFeature(**entry) for entry in content["numeric"]]
            categorical = [CategoricalFeature(**entry) for entry in content["categorical"]]
            dates = [DateFeature(**entry) for entry in content["dates"]]
            read = ("format", "numeric", "categorical", "dates")
            rest = {k: v for k, v in content.items() if k not in read}
            result = cls(numeric=numeric, categorical=categorical, dates=dates, **rest)
            result._check()
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"this is not the preprocessing of a table, or it is damaged: {error}."
            ) from error
        return result

    def _check(self) -> None:
        """Raise ValueError where a field has another type than it should."""
        standardised = [*self.numeric, *self.dates]
        names = {feature.name for feature in (*standardised, *self.categorical)}
        numbers = [self.target_mean, self.target_scale]
        numbers += [n for f in standardised for n in (f.mean, f.scale)]
        numbers += [f.fill for f in standardised if f.fill is not None]
        if not all(type(n) in (int, float) and math.isfinite(n) for n in numbers):
            raise ValueError("a mean or a scale is not a finite number")
        if not all(f.scale for f in standardised) or not self.target_scale:
            raise ValueError("a scale is zero")
        texts = [self.target, self.decimal, *names, *(self.classes or [])]
        texts += [c for f in self.categorical for c in f.categories]
        texts += [f.fill for f in self.categorical if f.fill is not None]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a name or category is not text")
        if not isinstance(self.columns, list) or set(self.columns) != names:
            raise ValueError("the columns are not those of the features")
        if len(self.columns) != len(standardised) + len(self.categorical):
            raise ValueError("a column comes twice")


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip() in MISSING
    return value is None or value != value


def _days(feature: DateFeature, values: Sequence[Any]) -> np.ndarray:
    days = np.empty(len(values))
    for row, value in enumerate(values):
        if _is_missing(value):
            value = _filled(feature, row)
        elif isinstance(value, str):
            parsed = parse_date(value.strip())
            if parsed is None:
                raise DataError(
                    f"column {feature.name!r}, row {row + 1}: {value!r} is not a date such as "
                    "2016-05-09, and this column held dates in training."
                )
            value = parsed
        days[row] = value
    return days


def _filled(feature: NumericFeature | CategoricalFeature | DateFeature, row: int) -> Any:
    if feature.fill is None:
        raise DataError(
            f"column {feature.name!r}, row {row + 1}: the value is missing, and training had a "
            "value in every row. Give one, or train with missing='mean', 'median' or "
            "'most_frequent'."
        )
    return feature.fill


def fit_preprocessing(table: Table, scale_target: bool = True) -> Preprocessing:
    """Fit scaling, filling in and encoding on a table: pass the training rows only.

    Numeric features get mean 0 and standard deviation 1 (a constant one is only shifted).
    Categorical features become one-hot vectors; of more than 64 categories the rarest share one
    place. Dates become what is long-term, seasonal, weekly and daily in them.

    Arguments:
        table: the training rows.
        scale_target: in a regression, learn the standardised target.
    """
    numeric = [column for column in table.features if column.kind == "numeric"]
    categorical = [column for column in table.features if column.kind == "categorical"]
    dates = [column for column in table.features if column.kind == "date"]
    fitted = column_transformer(table)
    if numeric or categorical:
        fitted.fit(_object_array([*numeric, *categorical], len(table)))
    fills = table.missing not in ("error", "drop")
    mean, scale = 0.0, 1.0
    if table.task == "regression" and scale_target:
        mean, scale = float(table.labels.mean()), float(table.labels.std()) or 1.0
    return Preprocessing(
        columns=table.columns,
        numeric=_numeric_features(fitted, numeric, fills),
        categorical=_categorical_features(fitted, categorical, fills),
        target=table.target.name,
        classes=table.classes,
        target_mean=mean,
        target_scale=scale,
        decimal=table.decimal,
        dates=[fit_date(column.name, column.values, table.missing) for column in dates],
    )


def column_transformer(table: Table) -> Any:
    """scikit-learn's unfitted transformer of the numeric, then the categorical columns."""
    purpose = "scale and encode tables"
    compose = require("sklearn.compose", extra="sklearn", purpose=purpose)
    impute = require("sklearn.impute", extra="sklearn", purpose=purpose)
    scaling = require("sklearn.preprocessing", extra="sklearn", purpose=purpose)
    pipeline = require("sklearn.pipeline", extra="sklearn", purpose=purpose)
    kinds = [column.kind for column in table.features]
    count, end = kinds.count("numeric"), len(kinds) - kinds.count("date")
    strategy = table.missing if table.missing in ("mean", "median") else "most_frequent"
    encoder = scaling.OneHotEncoder(
        handle_unknown="infrequent_if_exist", max_categories=MAX_CATEGORIES, sparse_output=False
    )
    filler = impute.SimpleImputer(missing_values=None, strategy="most_frequent")
    steps = [
        ("numeric", [impute.SimpleImputer(strategy=strategy), scaling.StandardScaler()],
         list(range(count))),
        ("categorical", [filler, encoder],
         list(range(count, end))),
    ]  # fmt: skip
    return compose.ColumnTransformer(
        [(name, pipeline.make_pipeline(*parts), at) for name, parts, at in steps if at]
    )


def _object_array(columns: Sequence[Any], rows: int) -> np.ndarray:
    array = np.empty((rows, len(columns)), object)
    for index, column in enumerate(columns):
        array[:, index] = column.values
    return array


def _numeric_features(fitted: Any, columns: Sequence[Any], fills: bool) -> list[NumericFeature]:
    if not columns:
        return []
    imputer, scaler = (step for _, step in fitted.named_transformers_["numeric"].steps)
    return [
        NumericFeature(column.name, float(mean), float(scale), float(fill) if fills else None)
        for column, mean, scale, fill in zip(
            columns, scaler.mean_, scaler.scale_, imputer.statistics_, strict=True
        )
    ]


def _categorical_features(
    fitted: Any, columns: Sequence[Any], fills: bool
) -> list[CategoricalFeature]:
    if not columns:
        return []
    imputer, encoder = (step for _, step in fitted.named_transformers_["categorical"].steps)
    features = []
    for index, column in enumerate(columns):
        rare = encoder.infrequent_categories_[index]
        rare = set() if rare is None else set(rare.tolist())
        categories = [str(c) for c in encoder.categories_[index].tolist() if c not in rare]
        fill = str(imputer.statistics_[index]) if fills else None
        features.append(CategoricalFeature(column.name, categories, bool(rare), fill))
    return features
