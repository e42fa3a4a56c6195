"""Columns of dates in tables."""

from __future__ import annotations

import datetime
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chainrule import data
from chainrule.data.dates import DateFeature, parse_date
from chainrule.errors import DataError

EPOCH = datetime.datetime(1970, 1, 1)


@given(st.datetimes(datetime.datetime(1000, 1, 1), datetime.datetime(2999, 12, 31)))
def test_days_since_1970(moment):
    expected = (moment - EPOCH) / datetime.timedelta(days=1)
    for text in (moment.isoformat(), moment.isoformat(" ")):
        assert parse_date(text) == pytest.approx(expected, abs=1e-9)
    day = moment.date()
    whole = (datetime.datetime.combine(day, datetime.time()) - EPOCH).days
    assert parse_date(day.isoformat()) == parse_date(f"{day:%Y/%m/%d}".zfill(10)) == whole


def test_offsets_are_taken_to_utc():
    assert parse_date("1970-01-02T02:00+02:00") == parse_date("1970-01-02T00:00Z") == 1.0


@pytest.mark.parametrize(
    "text", ["", "2016", "20160509", "2016-5-9", "2016-02-30", "09.05.2016", "2016-05-09x", "1.5"]
)
def test_what_is_no_date(text):
    assert parse_date(text) is None


def test_inputs_of_a_date():
    days = np.array([parse_date(f"2024-01-{d:02}T06:00") for d in range(1, 15)])
    feature = DateFeature("d", days.mean(), 2.0, timed=True)
    inputs = dict(zip(feature.input_names, feature.encode(days).T, strict=True))
    assert len(inputs) == feature.width == 12
    np.testing.assert_allclose(inputs["d:time"], (days - days.mean()) / 2)
    assert inputs["d:Monday"].tolist() == [1, 0, 0, 0, 0, 0, 0] * 2  # 2024-01-01 was a Monday
    assert inputs["d:Sunday"].tolist() == [0, 0, 0, 0, 0, 0, 1] * 2
    np.testing.assert_allclose(inputs["d:sin(day)"], 1, atol=1e-9)
    np.testing.assert_allclose(inputs["d:cos(day)"], 0, atol=1e-9)
    angle = 2 * math.pi * days / 365.2425
    np.testing.assert_allclose(inputs["d:sin(year)"], np.sin(angle))


@pytest.fixture
def table(tmp_path):
    first = datetime.date(2020, 3, 1)
    days = [first + datetime.timedelta(days=i) for i in range(40)]
    path = tmp_path / "views.csv"
    rows = "".join(f"{day},{10 + i % 7 * 1.5}\n" for i, day in enumerate(days))
    path.write_text("date,views\n" + rows, encoding="utf-8")
    return path


def test_a_table_of_dates(table):
    found = data.csv(table)
    assert [column.kind for column in found.features] == ["date"] and found.task == "regression"
    assert "0 numeric, 1 date and 0 categorical features" in repr(found)
    train, test = found.split(0.2)
    preprocessing = data.fit_preprocessing(train)
    again = data.Preprocessing.from_dict(preprocessing.to_dict())
    assert again == preprocessing and again.width == 10 == len(again.input_names)
    inputs = again.table_inputs(test)
    assert inputs.shape == (8, 10) and inputs.dtype == np.float32
    columns = data.read_columns(table, ["date"])
    everything = again.inputs(columns)
    np.testing.assert_array_equal(everything, again.table_inputs(found))
    assert abs(again.table_inputs(train)[:, 0].mean()) < 1e-6
    one = again.inputs(again.parse_row("2020-03-05"))
    np.testing.assert_array_equal(one[0], everything[4])


def test_a_cell_that_is_no_date(table):
    preprocessing = data.fit_preprocessing(data.csv(table))
    with pytest.raises(DataError, match=r"column 'date', row 2: 'soon' is not a date such as"):
        preprocessing.inputs({"date": ["2020-03-01", "soon"]})
    with pytest.raises(DataError, match="column 'date', row 1: the value is missing"):
        preprocessing.inputs({"date": [""]})


@pytest.mark.parametrize(
    ("policy", "expected"), [("mean", 18329.0), ("median", 18323.0), ("most_frequent", 18323.0)]
)
def test_missing_dates(tmp_path, policy, expected):
    path = tmp_path / "a.csv"
    dates = ["2020-03-02", "2020-03-02", "", "2020-03-20"]
    path.write_text("d,x,y\n" + "".join(f"{d},1,{i}.5\n" for i, d in enumerate(dates)))
    preprocessing = data.fit_preprocessing(data.csv(path, missing=policy))
    assert preprocessing.dates[0].fill == expected
    assert len(data.csv(path, missing="drop")) == 3
    with pytest.raises(DataError, match="row 3"):
        data.csv(path)


def test_a_date_as_the_target_or_as_a_category(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("d,x\n" + "".join(f"2020-03-0{1 + i % 2},{i}.5\n" for i in range(8)))
    by_date = data.csv(path, target="d")
    assert by_date.classes == ["2020-03-01", "2020-03-02"]
    forced = data.csv(path, target="x", categorical=["d"])
    assert [column.kind for column in forced.features] == ["categorical"]
