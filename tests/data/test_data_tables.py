"""CSV files, tables and their preprocessing."""

from __future__ import annotations

import csv as stdlib_csv
import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule import data
from chainrule.data import notices
from chainrule.data.csvfile import is_number, read_csv
from chainrule.data.preprocessing import _object_array, column_transformer
from chainrule.errors import ArgumentError, DataError, FileError, UnknownNameError

pytest.importorskip("sklearn")

PEOPLE = """age,sex,city,income,left
30,m,Rome,1200.5,yes
41,f,Oslo,800,no
25,f,Rome,950,no
58,m,Bonn,2000,yes
33,m,Oslo,1500,no
47,f,Rome,700,yes
"""


@pytest.fixture(autouse=True)
def fresh_notices(monkeypatch):
    monkeypatch.setattr(notices, "_said", set())


@pytest.fixture
def write(tmp_path):
    def make(text, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make


# --- reading --------------------------------------------------------------------------------------


def test_columns_kinds_and_task(write):
    table = data.csv(write(PEOPLE), target="left")
    assert table.columns == ["age", "sex", "city", "income"]
    assert [c.kind for c in table.features] == ["numeric", "categorical", "categorical", "numeric"]
    assert table.task == "classification" and table.classes == ["no", "yes"]
    assert table.labels.tolist() == [1, 0, 0, 1, 0, 1]
    assert table.features[3].values.tolist() == [1200.5, 800, 950, 2000, 1500, 700]
    assert table.name == "table" and len(table) == 6
    assert "2 numeric and 2 categorical" in repr(table)


def test_target_by_default_and_by_number(write):
    path = write(PEOPLE)
    assert data.csv(path).target.name == "left"
    assert data.csv(path, target=0).target.name == "age"
    assert data.csv(path, target=-2).target.name == "income"
    with pytest.raises(ArgumentError, match="5 columns"):
        data.csv(path, target=5)


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["0", "1"] * 10, "classification"),
        ([str(i % 20) for i in range(60)], "classification"),
        ([str(i % 21) for i in range(63)], "regression"),
        (["0.5", "1"] * 10, "regression"),
        (["true", "false"] * 10, "classification"),
        (["1.0", "2.0"] * 10, "classification"),
        (["1", "2"], "regression"),
        (["a", "1"] * 10, "error"),
        (["a", "b", "1"] * 10, "classification"),
    ],
)
def test_task_by_the_target(write, values, task):
    path = write("x,y\n" + "".join(f"{i},{v}\n" for i, v in enumerate(values)))
    if task == "error":
        with pytest.raises(DataError, match="column 'y', row 1"):
            data.csv(path)
    else:
        assert data.csv(path).task == task


def test_task_may_be_said(write):
    path = write("x,y\n1,10\n2,2\n3,10\n4,2\n")
    table = data.csv(path, task="classification")
    assert table.classes == ["2", "10"]  # by size, not by the alphabet
    assert data.csv(path, task="regression").labels.tolist() == [10, 2, 10, 2]
    big = data.csv(write("x,y\n1,12345678\n2,-3\n3,12345678\n4,-3\n"))
    assert big.classes == ["-3", "12345678"]
    with pytest.raises(DataError, match=r"row 1 \(line 2\): 'no' is not a number"):
        data.csv(write("x,y\n1,no\n2,yes\n"), task="regression")
    with pytest.raises(UnknownNameError, match="'regression'"):
        data.csv(path, task="regresion")


def test_every_form_of_file(write):
    plain = data.csv(write("a,b\n1,x\n2,y\n3,x\n"))
    forms = {
        "CRLF": b"a,b\r\n1,x\r\n2,y\r\n3,x\r\n",
        "byte order mark": b"\xef\xbb\xbfa,b\n1,x\n2,y\n3,x\n",
        "UTF-16": "a,b\n1,x\n2,y\n3,x\n".encode("utf-16"),
        "empty lines": b"\na,b\n\n1,x\n2,y\n\n\n3,x\n\n",
        "no final newline": b"a,b\n1,x\n2,y\n3,x",
        "spaces": b" a , b \n 1 , x \n 2 , y \n 3 , x \n",
        "quotes": b'"a","b"\n"1","x"\n"2","y"\n"3","x"\n',
        "semicolons": b"a;b\n1;x\n2;y\n3;x\n",
        "tabs": b"a\tb\n1\tx\n2\ty\n3\tx\n",
        "bars": b"a|b\n1|x\n2|y\n3|x\n",
    }
    for form, content in forms.items():
        table = data.csv(write(content))
        assert table.columns == ["a"] and table.classes == ["x", "y"], form
        assert table.features[0].values.tolist() == plain.features[0].values.tolist(), form


def test_quoted_delimiters_newlines_and_quotes(write):
    text = 'x,"y, or z"\n1,"a, ""b"""\n2,"c\nd"\n3,"a, ""b"""\n'
    table = data.csv(write(text))
    assert table.target.name == "y, or z" and table.classes == ['a, "b"', "c\nd"]
    file = read_csv(write(text))
    assert file.place(2) == "row 3 (line 5)"  # the quoted newline counts


def test_header(write):
    assert data.csv(write("5,a\n6,b\n7,a\n")).columns == ["column 1"]
    assert len(data.csv(write("5,a\n6,b\n7,a\n"))) == 3
    table = data.csv(write("2019,2020\n1,3\n2,4\n5,8\n"), header=True, task="regression")
    assert table.columns == ["2019"] and len(table) == 3
    assert len(data.csv(write("x,y\na,b\nc,d\n"), header=False, task="classification")) == 3
    with pytest.raises(ArgumentError, match="header"):
        data.csv(write("a\n1\n"), header="yes")


def test_decimal_comma(write):
    text = "x;y\n1,5;2,25\n2,5;3,5\n1000;4,75\n"
    with pytest.raises(DataError, match="decimal=','"):
        data.csv(write("x;y\n1;2,25\n2;3\n3;4\n"))
    table = data.csv(write(text), decimal=",")
    assert table.features[0].values.tolist() == [1.5, 2.5, 1000] and table.labels[0] == 2.25


def test_other_encodings(write):
    content = "x,y\n1,für\n2,ohne\n".encode("latin-1")
    with pytest.raises(DataError, match=r"not utf-8 text: line 2 has the byte 0xfc.*latin-1"):
        data.csv(write(content))
    assert data.csv(write(content), encoding="latin-1").classes == ["für", "ohne"]
    with pytest.raises(ArgumentError, match="no encoding named"):
        data.csv(write(content), encoding="latin-x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b\n", "a header with 2 columns and no row"),
        ("a,b,a\n1,2,3\n", "more than one column named 'a'"),
        ("a,b\n1,2\n3\n4,5\n", r"row 2 \(line 3\): 1 fields, but there are 2 columns \(a, b\)"),
        ("a,b\n1,2\n3,4,5\n6,7\n", r"row 2 \(line 3\): 3 fields"),
        ('a,b\n1,"2\n', "line 2: "),
        ('a,b\n1,"2"x\n', "line 2: "),
        ("a,b\n1,\n2,x\n", r"column 'b', row 1 \(line 2\): the value is missing; fill it in"),
        ("a,b\n1,x\n,y\nNA,z\n", r"column 'a', row 2 .* is missing \(2 rows lack it\)"),
        (
            "a,b\n1,2.5\nten,3.5\n3,7\n",
            r"column 'a', row 2 \(line 3\): 'ten' is not a finite number",
        ),
        ("a,b\n1,2.5\ninf,3.5\n3,7\n", "'inf' is not a finite number, but 2 of 3 values"),
        ("a,b\n1,2.5\n1e999,3.5\n3,7\n", "column 'a', row 2 .* 1e999 is too large"),
        ("a,b\n1,2\n3,2\n", "target 'b': all rows have one class, 2; "),
        ("a,b\n1,x\n3,x\n", "all rows have one class, x"),
        ("a,b\n1,2.5\n3,2.5\n", "all values are 2.5"),
        ("y\n1\n2\n", "no column to learn from"),
    ],
)
def test_what_cannot_be_learned_from_is_named(write, text, message):
    path = write(text)
    with pytest.raises(DataError, match=message) as caught:
        data.csv(path)
    assert str(path) in str(caught.value)


def test_wrong_names_offer_the_nearest(write):
    path = write(PEOPLE)
    with pytest.raises(UnknownNameError, match=r"unknown column of .*did you mean 'income'"):
        data.csv(path, target="incme")
    with pytest.raises(UnknownNameError, match="did you mean 'city'"):
        data.csv(path, features=["age", "citty"])
    with pytest.raises(UnknownNameError):
        data.csv(path, categorical=["none"])
    with pytest.raises(UnknownNameError, match="'median'"):
        data.csv(path, missing="medain")
    for features in (["left"], ["age", "age"], "age"):
        with pytest.raises(ArgumentError):
            data.csv(path, target="left", features=features)
    with pytest.raises(ArgumentError, match="one character"):
        data.csv(path, delimiter=", ")


def test_no_such_file(tmp_path):
    with pytest.raises(FileError, match="no such file"):
        data.csv(tmp_path / "none.csv")
    with pytest.raises(FileError, match="folder"):
        data.csv(tmp_path)


def test_chosen_features(write):
    table = data.csv(write(PEOPLE), target="income", features=["city", "age"])
    assert table.columns == ["city", "age"] and table.task == "regression"


def test_numbers_as_categories(write):
    text = "zone,y\n" + "".join(f"{zone},{zone * 1.5}\n" for zone in (3, 1, 2, 1, 3))
    table = data.csv(write(text), categorical=["zone"])
    assert table.features[0].kind == "categorical"
    preprocessing = data.fit_preprocessing(table)
    assert preprocessing.input_names == ["zone=1", "zone=2", "zone=3"]


def test_identifiers_and_row_counters_are_left_out(write, caplog):
    rows = "".join(f"{i},person {i},{i % 3}.5,{'ab'[i % 2]}\n" for i in range(40))
    with caplog.at_level(logging.WARNING):
        table = data.csv(write(",name,x,y\n" + rows))
    assert table.columns == ["x"]
    assert table.left_out == {
        "column 1": "it has no name and counts the rows",
        "name": "40 different texts in 40 rows",
    }
    assert sum("is left out" in r.getMessage() for r in caplog.records) == 2
    everything = data.csv(write(",name,x,y\n" + rows), features=["name", "x"])
    assert everything.columns == ["name", "x"]
    with pytest.raises(DataError, match=r"'name' is left out \(40 different texts"):
        data.csv(write("name,y\n" + "".join(f"n{i},{i % 2}\n" for i in range(40))))
    with pytest.raises(DataError, match="no classes to learn"):
        data.csv(write("x,name\n" + "".join(f"{i % 2},n{i}\n" for i in range(40))))


# --- missing values -------------------------------------------------------------------------------

HOLES = "a,b,c,y\n1,x,5,no\n,y,6,yes\n3,,7,no\n8,x,NA,yes\n4,x,7,yes\n"


def test_policies(write):
    path = write(HOLES)
    with pytest.raises(DataError, match=r"column 'a', row 2 \(line 3\)"):
        data.csv(path)
    dropped = data.csv(path, missing="drop")
    assert dropped.features[0].values.tolist() == [1, 4] and len(dropped) == 2
    for policy, a in (("mean", 4.0), ("median", 3.5), ("most_frequent", 1.0)):
        table = data.csv(path, missing=policy)
        assert len(table) == 5 and table.features[0].missing.tolist() == [0, 1, 0, 0, 0]
        preprocessing = data.fit_preprocessing(table)
        fills = {f.name: f.fill for f in (*preprocessing.numeric, *preprocessing.categorical)}
        assert fills["a"] == a and fills["b"] == "x"
        # A hole is treated like the value that fills it.
        columns = {"a": [None, a], "b": ["", "x"], "c": [float("nan"), fills["c"]]}
        inputs = preprocessing.inputs(columns)
        np.testing.assert_array_equal(inputs[0], inputs[1])


def test_a_target_is_never_filled_in(write):
    path = write("x,y\n1,2.5\n2,\n3,4.5\n")
    with pytest.raises(
        DataError, match=r"column 'y', row 2 .* never filled in; use missing='drop'"
    ):
        data.csv(path, missing="mean")
    assert data.csv(path, missing="drop").labels.tolist() == [2.5, 4.5]
    with pytest.raises(DataError, match="left none"):
        data.csv(write("x,y\n1,\n,2\n"), missing="drop")


@pytest.mark.parametrize("text", ["", "NA", "N/A", "nan", "NULL", "None", "?", "#N/A"])
def test_what_counts_as_missing(write, text):
    table = data.csv(write(f"x,y\n1,a\n{text},b\n3,a\n"), missing="mean")
    assert np.isnan(table.features[0].values[1])


def test_rows_are_named_as_in_the_file_after_dropping(write):
    path = write("x,y\n,1.5\n2,2.5\nbad,3.5\n4,4.5\n")
    with pytest.raises(DataError, match=r"column 'x', row 3 \(line 4\): 'bad'"):
        data.csv(path, missing="drop")


# --- preprocessing --------------------------------------------------------------------------------


def random_table(tmp_path, n=60, missing=False, seed=0):
    rng = np.random.default_rng(seed)
    path = tmp_path / f"random{seed}{missing}.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = stdlib_csv.writer(file)
        writer.writerow(["u", "colour", "v", "constant", "kind", "y"])
        for _ in range(n):
            row = [
                f"{rng.normal(5, 20):.6g}", rng.choice(["red", "green", "blue, light"]),
                f"{rng.exponential():.6g}", "7", f"k{min(rng.geometric(0.02), 90)}",
                f"{rng.normal():.6g}",
            ]  # fmt: skip
            if missing:
                row = [
                    cell if i in (3, 5) or rng.random() > 0.1 else "" for i, cell in enumerate(row)
                ]
            writer.writerow(row)
    features = ["u", "colour", "v", "constant", "kind"]
    return data.csv(path, "y", features, missing=missing or "error")


@pytest.mark.parametrize("missing", [False, "mean", "median", "most_frequent"])
@pytest.mark.parametrize("n", [60, 600])
def test_inputs_are_those_of_scikit_learns_transformer(tmp_path, missing, n):
    """Fitted on the training rows, applied to others, unknown and rare categories included."""
    train, test = random_table(tmp_path, n, missing).split(0.3, seed=1)
    preprocessing = data.fit_preprocessing(train)
    order = sorted(train.features, key=lambda c: c.kind != "numeric")
    transformer = column_transformer(train).fit(_object_array(order, len(train)))
    for table in (train, test):
        order = sorted(table.features, key=lambda c: c.kind != "numeric")
        expected = transformer.transform(_object_array(order, len(table)))
        inputs = preprocessing.table_inputs(table)
        assert inputs.dtype == np.float32 and inputs.shape == (len(table), preprocessing.width)
        np.testing.assert_allclose(inputs, expected, rtol=1e-6, atol=1e-6)
    assert len(preprocessing.input_names) == preprocessing.width
    if n == 600:
        assert preprocessing.input_names[-1] == "kind=(other)"


def test_scaling_is_that_of_the_training_rows(tmp_path):
    train, _ = random_table(tmp_path).split(0.5)
    preprocessing = data.fit_preprocessing(train)
    inputs = preprocessing.table_inputs(train)
    np.testing.assert_allclose(inputs[:, :2].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(inputs[:, :2].std(0), 1, rtol=1e-5)
    assert (inputs[:, 2] == 0).all()  # the constant column
    targets = preprocessing.targets(train)
    assert targets.shape == (30, 1) and targets.dtype == np.float32
    np.testing.assert_allclose([targets.mean(), targets.std()], [0, 1], atol=1e-6)
    np.testing.assert_allclose(preprocessing.answers(targets), train.labels, rtol=1e-4, atol=1e-5)
    unscaled = data.fit_preprocessing(train, scale_target=False)
    np.testing.assert_allclose(unscaled.targets(train)[:, 0], train.labels, rtol=1e-6)


def test_json_round_trip(tmp_path):
    table = random_table(tmp_path, 600, "mean")
    preprocessing = data.fit_preprocessing(table)
    text = json.dumps(preprocessing.to_dict(), allow_nan=False)
    again = data.Preprocessing.from_dict(json.loads(text))
    assert again == preprocessing
    np.testing.assert_array_equal(again.table_inputs(table), preprocessing.table_inputs(table))


def test_json_that_is_damaged_is_refused(tmp_path):
    good = data.fit_preprocessing(random_table(tmp_path)).to_dict()

    def broken(**changes):
        return json.loads(json.dumps(good)) | changes

    numeric = good["numeric"][0]
    bad = [
        None, [], {}, broken(format="other"), broken(extra=1), broken(columns=["u"]),
        broken(target=3), broken(target_scale=0.0), broken(target_mean="x"), broken(classes=[1]),
        broken(numeric=[numeric | {"scale": 0.0}, *good["numeric"][1:]]),
        broken(numeric=[numeric | {"mean": float("nan")}, *good["numeric"][1:]]),
        broken(numeric=[numeric | {"name": 3}, *good["numeric"][1:]]),
        broken(numeric=[*good["numeric"], numeric]), broken(numeric=3),
        broken(categorical=[{"name": "colour", "categories": [1]}]),
    ]  # fmt: skip
    for content in bad:
        with pytest.raises(DataError, match="not the preprocessing of a table"):
            data.Preprocessing.from_dict(content)


def test_one_row_for_prediction(write):
    table = data.csv(write(PEOPLE), target="left")
    preprocessing = data.fit_preprocessing(table)
    row = preprocessing.parse_row(" 41, f ,Oslo,800")
    np.testing.assert_array_equal(
        preprocessing.inputs(row)[0], preprocessing.table_inputs(table)[1]
    )
    assert preprocessing.parse_row("41;f;Oslo;800") == row
    unknown = preprocessing.inputs(preprocessing.parse_row("41,f,Paris,800"))[0]
    assert unknown[preprocessing.input_names.index("city=Oslo")] == 0
    assert preprocessing.answers(np.array([[0.1, 0.9], [2.0, 1.0]])) == ["yes", "no"]
    with pytest.raises(DataError, match=r"3 fields, but 4 are needed.*age, sex, city, income"):
        preprocessing.parse_row("41,f,Oslo")
    with pytest.raises(DataError, match="column 'age', row 1: 'old' is not a number"):
        preprocessing.inputs(preprocessing.parse_row("old,f,Oslo,800"))
    with pytest.raises(DataError, match="column 'age', row 1: the value is missing"):
        preprocessing.inputs(preprocessing.parse_row(",f,Oslo,800"))
    with pytest.raises(DataError, match="the column 'city' is missing"):
        preprocessing.inputs({"age": [1], "sex": ["m"], "income": [3]})


def test_datasets(write):
    path = write(PEOPLE + PEOPLE.split("\n", 1)[1] * 4)
    train, test, preprocessing = data.csv(path, "left").datasets(0.2, seed=3)
    assert (len(train), len(test)) == (24, 6) and train.shape == (preprocessing.width,)
    assert train.task == "classification" and train.classes == ["no", "yes"]
    assert np.bincount(test.labels).tolist() == [3, 3]
    assert train.tensors[1].dtype == np.int64
    train, _, preprocessing = data.csv(path, "income").datasets()
    assert train.task == "regression" and train.tensors[1].shape == (24, 1)


def test_decimal_comma_reaches_prediction(write):
    table = data.csv(write("x;y\n1,5;2,25\n2,5;3,5\n3;4,75\n"), decimal=",")
    preprocessing = data.fit_preprocessing(table)
    assert preprocessing.inputs({"x": ["2,5"]}) == pytest.approx(preprocessing.inputs({"x": [2.5]}))


@given(st.text(max_size=12))
def test_is_number_takes_what_float_takes_and_no_more(text):
    if is_number(text):
        assert float(text) == float(text)
    else:
        try:
            value = float(text)
        except ValueError:
            return
        # float also takes inf, nan, underscores, spaces and other scripts' digits.
        assert not np.isfinite(value) or "_" in text or text != text.strip() or not text.isascii()


CELL = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=6
).map(str.strip)


@given(
    rows=st.lists(st.lists(CELL, min_size=3, max_size=3), min_size=1, max_size=5),
    delimiter=st.sampled_from(",;\t|"),
)
@settings(max_examples=150, deadline=None)
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, rows, delimiter):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = stdlib_csv.writer(file, delimiter=delimiter)
        writer.writerow(["a", "b", "c"])
        writer.writerows(rows)
    file = read_csv(path, delimiter, header=True)
    assert file.names == ["a", "b", "c"] and file.rows == rows
