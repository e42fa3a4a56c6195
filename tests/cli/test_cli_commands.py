"""The commands, used as they are meant to be."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from command import call, works

import chainrule as cr
from chainrule import data

PNG = b"\x89PNG\r\n\x1a\n"


def test_version_and_help():
    assert works("--version") == f"chainrule {cr.__version__}\n"
    for command in ("train", "evaluate", "predict", "models", "datasets", "doctor"):
        assert command in works("--help")
        assert f"chainrule {command}" in works(command, "--help").replace("\n", " ")


def test_no_arguments_show_the_help():
    answer = call()
    assert answer.code in (0, 2) and "Usage" in answer.out + answer.err  # by the version of typer


def test_models():
    printed = works("models")
    for name, parameters in (("mlp", "13,002"), ("lenet", "61,706"), ("resnet20", "269,722")):
        line = next(line for line in printed.splitlines() if line.startswith(name))
        assert parameters in line
    assert "csv" in printed


def test_datasets():
    printed = works("datasets")
    for info in data.catalogue():
        line = next(line for line in printed.splitlines() if line.startswith(f"{info.name} "))
        assert f"{info.samples:,}" in line and info.task in line


def test_doctor():
    printed = works("doctor")
    assert f"chainrule {cr.__version__}" in printed
    works_here = (
        "derivatives",
        "matrix product",
        "compiled code",
        "files",
        "digits data",
        "pictures",
    )
    for name in works_here:
        assert f"{name}: works" in printed
    assert "numpy" in printed and "CHAINRULE_DATA: not set" in printed


def test_doctor_says_what_fails(monkeypatch):
    from chainrule.cli import inform

    def broken():
        raise OSError("no such disk")

    monkeypatch.setitem(inform.CHECKS, "files", broken)
    answer = call("doctor")
    assert answer.code == 2 and "files: fails, OSError: no such disk" in answer.out


def test_a_run_writes_its_folder(tmp_path):
    printed = works("train", "mlp", "--epochs", 2, "--out", "x", "--hidden", "8", "--seed", 3)
    lines = printed.splitlines()
    assert lines[0].startswith("epoch 1/2: loss ") and lines[1].startswith("epoch 2/2: ")
    assert lines[2].startswith("held-out data, epoch 2 (359 samples): loss ")
    assert lines[3].startswith("saved in x: config.json, confusion.png, ")
    names = {p.name for p in (tmp_path / "x").iterdir()}
    pictures = {"loss.png", "confusion.png", "samples.png"}
    assert names == pictures | {
        "config.json", "last.ckpt", "metrics.csv", "model.safetensors", "results.json",
    }  # fmt: skip
    assert all((tmp_path / "x" / name).read_bytes().startswith(PNG) for name in pictures)
    config = json.loads((tmp_path / "x" / "config.json").read_text())
    assert config["settings"]["seed"] == 3 and config["settings"]["hidden"] == [8]
    assert config["classes"] == [str(d) for d in range(10)]
    with open(tmp_path / "x" / "metrics.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    results = json.loads((tmp_path / "x" / "results.json").read_text())
    assert float(rows[-1]["val_accuracy"]) == results["accuracy"] and results["epochs"] == 2
    assert float(rows[-1]["val_loss"]) == pytest.approx(results["loss"], rel=1e-5)
    weights = cr.load(tmp_path / "x" / "model.safetensors")
    assert weights["0.weight"].shape == (8, 784)


def test_the_same_command_gives_the_same_bits(tmp_path):
    for out, seed in (("x", 0), ("y", 0), ("z", 1)):
        works(
            "train", "csv", "--data", "iris", "--epochs", 2, "--dropout", 0.2, "--seed", seed,
            "--out", out, "--quiet",
        )  # fmt: skip
    x, y, z = ((tmp_path / out / "model.safetensors").read_bytes() for out in "xyz")
    assert x == y != z


def test_quiet_says_only_the_result():
    printed = works("train", "csv", "--data", "iris", "--epochs", 1, "--quiet", "--out", "x")
    assert [line.split()[0] for line in printed.splitlines()] == ["held-out", "saved"]


def test_a_folder_of_its_own_for_each_run(tmp_path):
    for _ in range(2):
        works("train", "csv", "--data", "iris", "--epochs", 1, "--quiet")
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["csv-iris", "csv-iris-2"]


def test_overwrite(tmp_path):
    works("train", "csv", "--data", "diabetes", "--epochs", 1, "--quiet", "--out", "x")
    (tmp_path / "x" / "notes.txt").write_text("mine")
    works("train", "csv", "--data", "wine", "--epochs", 1, "--quiet", "--out", "x", "--overwrite")
    names = {p.name for p in (tmp_path / "x").iterdir()}
    assert "confusion.png" in names and "regression.png" not in names and "notes.txt" in names


def test_a_batch_larger_than_the_data_is_one_smaller_batch(tmp_path):
    works("train", "csv", "--data", "iris", "--epochs", 2, "--batch-size", 9999, "--out", "x")
    with open(tmp_path / "x" / "metrics.csv", encoding="utf-8", newline="") as file:
        assert [row["steps"] for row in csv.DictReader(file)] == ["1", "2"]


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "lbfgs", "lion"])
def test_optimizers(optimizer):
    options = ["--lr", 0.5] if optimizer == "lbfgs" else ["--lr", 0.01, "--momentum", 0.5]
    works("train", "csv", "--data", "iris", "--epochs", 1, "--optimizer", optimizer, *options)


def test_every_option_of_train():
    works(
        "train", "mlp", "--data", "digits", "--epochs", 1, "--lr", 0.01, "--batch-size", 100,
        "--optimizer", "adamw", "--weight-decay", 0.1, "--schedule", "constant", "--clip-norm", 1,
        "--augment", "--hidden", "20,10", "--activation", "silu", "--dropout", 0.1, "--seed", 7,
        "--workers", 2, "--no-compile", "--quiet", "--out", "a folder/x",
    )  # fmt: skip


# --- evaluate -------------------------------------------------------------------------------------


def test_evaluate_repeats_the_result(runs):
    for name in ("digits", "table", "diabetes"):
        results = json.loads((runs / name / "results.json").read_text())
        del results["epochs"]
        assert json.loads(works("evaluate", runs / name, "--json")) == results
    printed = works("evaluate", runs / "digits")
    assert "on its held-out data (359 samples): loss" in printed and " %" in printed


def test_evaluate_on_other_rows_uses_the_runs_own_scaling(runs, tmp_path):
    """Of one row alone mean and spread could not be fitted: those of training are used."""
    (tmp_path / "one.csv").write_text("kind,colour,width,length\nb,purple,5.0,3.1\n")
    found = json.loads(works("evaluate", runs / "table", "--data", "one.csv", "--json"))
    assert found["samples"] == 1 and found["accuracy"] == 1.0
    (tmp_path / "wrong.csv").write_text("kind,colour,width,length\na,purple,5.0,3.1\n")
    other = json.loads(works("evaluate", runs / "table", "--data", "wrong.csv", "--json"))
    assert other["accuracy"] == 0.0
    chance = np.exp(-found["loss"]), np.exp(-other["loss"])
    assert sum(chance) == pytest.approx(1, abs=1e-5)


def test_evaluate_a_regression_in_the_targets_own_unit(runs):
    found = json.loads(works("evaluate", runs / "diabetes", "--json"))
    assert 20 < found["mae"] < 100 and found["r2"] < 1


def test_evaluate_on_a_folder_with_some_of_the_classes(runs, tmp_path):
    shutil.copytree(runs / "pictures" / "red", tmp_path / "some" / "red")
    found = json.loads(works("evaluate", runs / "colour", "--data", "some", "--json"))
    assert found["samples"] == 10
    shutil.copytree(runs / "pictures" / "green", tmp_path / "some" / "green")
    both = json.loads(works("evaluate", runs / "colour", "--data", "some", "--json"))
    assert both["samples"] == 20


# --- predict --------------------------------------------------------------------------------------


def test_predict_digits_light_on_dark_and_dark_on_light(runs, digit):
    right = []
    for dark, light, label in digit:
        lines = works("predict", runs / "digits", dark, light).splitlines()
        assert lines[0].startswith(f"{dark}: ") and lines[1].startswith(f"{light}: ")
        guesses = [line.split(": ")[1][0] for line in lines]
        right.append([guess == label for guess in guesses])
    assert np.mean(right, axis=0).min() > 0.7


def test_invert_says_it_outright(runs, digit):
    dark, light, _ = digit[0]
    by_itself = works("predict", runs / "digits", light)
    assert works("predict", runs / "digits", light, "--invert") == by_itself
    assert works("predict", runs / "digits", light, "--no-invert") != by_itself
    assert works("predict", runs / "digits", dark, "--invert") != by_itself


def test_predict_rows(runs):
    printed = works("predict", runs / "table", "3.0,5.0,blue", "1.0;2.0;red", "--top", 1)
    assert [line.split(": ")[1][0] for line in printed.splitlines()] == ["b", "a"]
    assert works("predict", runs / "table", "-3.0,2.0,red").startswith("-3.0,2.0,red: a ")


def test_predict_a_file_of_rows(runs, tmp_path):
    """Columns are found by name, in any order, with others between."""
    (tmp_path / "new.csv").write_text("colour,x,width,length\nblue,9,5.0,3.0\nred,9,2.0,1.0\n")
    lines = works("predict", runs / "table", "new.csv", "--json").splitlines()
    found = [json.loads(line) for line in lines]
    assert [one["input"] for one in found] == ["new.csv, row 1", "new.csv, row 2"]
    assert [one["answer"] for one in found] == ["b", "a"]
    assert list(found[0]["probabilities"]) == ["b", "a"]
    assert sum(found[0]["probabilities"].values()) == pytest.approx(1, abs=1e-6)


def test_predict_a_value(runs):
    row = ",".join(["0.01"] * 10)
    printed = works("predict", runs / "diabetes", row)
    assert printed.startswith(f"{row}: ") and 20 < float(printed.split(": ")[1]) < 350


def test_predict_colours(runs):
    file = next((runs / "pictures" / "red").iterdir())
    printed = works("predict", runs / "colour", file)
    assert "red " in printed and "green " in printed


# --- data from elsewhere --------------------------------------------------------------------------


def test_a_path_in_the_data_folder(tmp_path, table, monkeypatch):
    monkeypatch.setenv("CHAINRULE_DATA", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    works("train", "csv", "--data", "table.csv", "--epochs", 1, "--out", "x", "--quiet")
    monkeypatch.delenv("CHAINRULE_DATA")
    monkeypatch.chdir(tmp_path)
    works("evaluate", "elsewhere/x")  # the full path is kept


def test_dates(tmp_path):
    rows = [f"2020-{1 + i // 28:02}-{1 + i % 28:02},{i / 10}" for i in range(200)]
    (tmp_path / "series.csv").write_text("day,value\n" + "\n".join(rows) + "\n")
    works("train", "csv", "--data", "series.csv", "--epochs", 30, "--out", "x", "--quiet")
    assert json.loads(works("evaluate", "x", "--json"))["r2"] > 0.9
    assert 5 < float(works("predict", "x", "2020-04-08").split(": ")[1]) < 12


@pytest.mark.parametrize("policy", ["drop", "mean", "median", "most_frequent"])
def test_missing_cells(table, policy):
    table.write_text(table.read_text().replace("3.2,5.1", "3.2,").replace("green", ""))
    works("train", "csv", "--data", table, "--epochs", 1, "--missing", policy, "--out", "x")
    answer = call("predict", "x", ",5.0,blue")
    assert answer.code == (2 if policy == "drop" else 0)


def test_which_columns_and_what_they_are(table, tmp_path):
    works(
        "train", "csv", "--data", table, "--target", "length", "--features", "width,kind",
        "--categorical", "width", "--task", "regression", "--epochs", 1, "--out", "x",
    )  # fmt: skip
    content = json.loads((tmp_path / "x" / "config.json").read_text())
    assert content["task"] == "regression" and content["preprocessing"]["columns"] == [
        "width", "kind",
    ]  # fmt: skip
    assert not content["preprocessing"]["numeric"]


def test_decimal_commas(tmp_path):
    rows = "".join(f"{i},5;{2 * i},25\n" for i in range(20))
    (tmp_path / "a.csv").write_text("x;y\n" + rows)
    works("train", "csv", "--data", "a.csv", "--decimal", ",", "--epochs", 1, "--out", "x")
    works("predict", "x", "3,5", "a.csv")
