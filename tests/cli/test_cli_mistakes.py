"""Bad input on the command line: exit code 2 and one paragraph that says what is wrong."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import call, parts, refused, works

import chainrule as cr
from chainrule import files


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", "(?i)missing argument 'recipe'.* See: chainrule train --help"),
        ("trian lenet", "unknown command 'trian'; did you mean 'train'"),
        ("train lenet --epoch 3", "--epoch"),
        ("train lenett", "unknown recipe 'lenett'; did you mean 'lenet'"),
        ("train lenet --data digit", "unknown data set 'digit'; did you mean 'digits'"),
        ("train mlp --optimizer adm", "unknown optimizer 'adm'; did you mean 'adam'"),
        ("train mlp --schedule cosin", "unknown schedule 'cosin'; did you mean 'cosine'"),
        ("train mlp --activation rlu", "unknown activation 'rlu'; did you mean 'relu'"),
        ("train csv --missing dorp", "unknown policy .* 'dorp'; did you mean 'drop'"),
        ("train csv --task regresion", "did you mean 'regression'"),
        ("train lenet --epochs 0", "epochs must be a whole number from 1 on, but is 0"),
        ("train lenet --epochs many", "--epochs"),
        ("train lenet --epochs 1.5", "--epochs"),
        ("train lenet --lr -1", "lr must be a positive number, but is -1"),
        ("train lenet --lr nan", "lr must be a positive number, but is nan"),
        ("train lenet --lr inf", "lr must be a positive number, but is inf"),
        ("train lenet --batch-size 0", "batch_size must be a whole number from 1 on"),
        ("train lenet --momentum 1", "momentum must be a number from 0 to below 1"),
        ("train lenet --weight-decay -1", "weight_decay must be a number from 0 on"),
        ("train lenet --clip-norm 0", "clip_norm must be a positive number"),
        ("train mlp --dropout 1", "dropout must be a number from 0 to below 1"),
        ("train mlp --hidden 3,x", "--hidden takes whole numbers .* got '3,x'"),
        ("train mlp --hidden 3,0", "hidden must be whole numbers from 1 on"),
        ("train mlp --seed -1", "seed must be a whole number from 0 on"),
        ("train mlp --workers -1", "workers must be a whole number from 0 on"),
        ("train csv --data a.csv --decimal ;", "decimal must be a point or a comma"),
        ("train lenet --resume", "name it by --out"),
        ("train lenet --resume --overwrite --out x", "choose one"),
        ("train lenet --data iris", "'lenet' learns from images, but 'iris' gives tables"),
        ("train csv --data digits", "'csv' learns from tables, but 'digits' gives images"),
        ("train mlp --data iris --augment", "augmentation is for images"),
        ("train csv --data iris --target x", "target says how to read a CSV file"),
        ("train csv --data nowhere.csv", "cannot read 'nowhere.csv': no such file"),
        ("train csv --data .", "has no sub-folders"),
        ("evaluate nowhere", "there is no run in 'nowhere'"),
        ("predict nowhere x.png", "there is no run in 'nowhere'"),
        ("predict nowhere", "[Mm]issing argument"),
    ],
)
def test_wrong_command_lines(command, words, tmp_path):
    assert re.search(words, refused(*command.split()))
    assert list(tmp_path.iterdir()) == []  # nothing was begun


# --- tables ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("", "", "is empty"),
        ("a,b\n", "", "has a header with 2 columns and no row"),
        ("a,b\n1,2\n,3\n4,5\n", "", r"column 'a', row 2 \(line 3\): the value is missing"),
        ("a,b\n1,2\n3,\n4,5\n", "--missing mean", "a target is never filled in"),
        ("a,b\n1,2\n2,3\nx,3\n4,5\n", "", r"column 'a', row 3 \(line 4\): 'x' is not a finite"),
        ("a,b\n1,2\n2,3,4\n", "", r"row 2 \(line 3\): 3 fields, but there are 2 columns"),
        ("a,b\n1,2\n3,4\n5,6\n", "--target c", "unknown column of .* 'c'.*Known: a, b"),
        ("a,b\n1,2\n3,4\n5,6\n", "--features a,c", "unknown column of .* 'c'"),
        ("a,b\n1,2\n3,4\n5,6\n", "--features b", "the target 'b' cannot be a feature"),
        ("a,b\n1,2\n3,2\n5,2\n", "", "all rows have one class|all values are 2"),
        ("a,b\n,1\n,2\n", "--missing drop", "no row without a missing value"),
        ("a,b\n1,2\n", "", "nothing is to be learned|cannot split 1 samples"),
        ("a,b\n1,f\xfcr\n", "", "not utf-8 text: line 2"),
        ("a,a\n1,2\n", "", "more than one column named 'a'"),
    ],
)
def test_tables(tmp_path, content, options, words):
    (tmp_path / "t.csv").write_bytes(content.encode("latin-1"))
    error = refused("train", "csv", "--data", "t.csv", "--out", "x", *options.split())
    assert re.search(words, error), error
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1.0,2.0", "has 2 fields, but 3 are needed, in this order: length, width, colour"),
        ("1,2,3,4", "has 4 fields"),
        ("", "fields, but 3 are needed"),
        ("long,2.0,red", "column 'length', row 1: 'long' is not a number"),
        (",2.0,red", "column 'length', row 1: the value is missing"),
        ("nowhere.csv", "cannot read 'nowhere.csv'"),
        ("table.csv", "'table.csv': column 'width', row 2: 'x' is not a number"),
        ("other.csv", "unknown column of 'other.csv' 'colour'"),
        ("note.txt", "'note.txt' is a file of another kind"),
    ],
)
def test_rows_to_predict(runs, tmp_path, row, words):
    (tmp_path / "table.csv").write_text("colour,length,width\nred,1,2\nred,1,x\n")
    (tmp_path / "other.csv").write_text("length,width\n1,2\n")
    (tmp_path / "note.txt").write_text("1,2,red")
    assert re.search(words, refused("predict", runs / "table", row))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("length,width,colour,kind\n1,2,red,c\n", "row 1: 'c' is none of the classes .* 'a', 'b'"),
        ("length,width,colour\n1,2,red\n", "unknown column of .* 'kind'"),
        ("length,width,colour,kind\n1,,red,a\n", "column 'width', row 1: the value is missing"),
    ],
)
def test_other_tables_to_evaluate_on(runs, tmp_path, content, words):
    (tmp_path / "other.csv").write_text(content)
    assert re.search(words, refused("evaluate", runs / "table", "--data", "other.csv"))


# --- images ---------------------------------------------------------------------------------------


def test_images_that_are_none(runs, tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    whole = next((runs / "pictures" / "red").iterdir()).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for name in ("text.png", "empty.png", "cut.png"):
        assert name in refused("predict", runs / "digits", name)
    assert "cannot read 'nowhere.png'" in refused("predict", runs / "digits", "nowhere.png")
    assert "trained on images, and '1,2,3' is no file" in refused(
        "predict", runs / "digits", "1,2,3"
    )
    file = next((runs / "pictures" / "red").iterdir())
    assert "invert is for images" in refused("predict", runs / "table", "1,2,red", "--invert")
    assert "is a file of another kind" in refused("predict", runs / "table", file)


def test_a_damaged_image_in_a_folder(runs, tmp_path):
    shutil.copytree(runs / "pictures", tmp_path / "p")
    (tmp_path / "p" / "red" / "broken.png").write_bytes(b"\x89PNG\r\n")
    assert "broken.png" in refused("train", "lenet", "--data", "p", "--out", "x")
    assert not (tmp_path / "x").exists()


def test_data_that_do_not_fit_the_model(runs, tmp_path, monkeypatch):
    """Wrong classes, wrong size, wrong channels, the wrong kind."""
    shutil.copytree(runs / "pictures", tmp_path / "p")
    (tmp_path / "p" / "red").rename(tmp_path / "p" / "blue")
    error = refused("evaluate", runs / "colour", "--data", "p")
    assert "has the class 'blue'; the run knows 'green', 'red'" in error
    error = refused("evaluate", runs / "colour", "--data", "digits")
    assert "(3, 32, 32)" in error and "(1, 28, 28)" in error
    error = refused("evaluate", runs / "digits", "--data", "iris")
    assert "trained on images, and 'iris' gives rows of a table" in error
    error = refused("evaluate", runs / "table", "--data", "digits")
    assert "trained on rows of a table, and 'digits' gives images" in error
    assert "has the class 'setosa'" in refused("evaluate", runs / "table", "--data", "iris")
    assert "is a regression" in refused("evaluate", runs / "diabetes", "--data", "iris")


# --- damaged runs and files -----------------------------------------------------------------------


@pytest.fixture
def run(runs, tmp_path):
    """A copy of a run that may be damaged."""
    shutil.copytree(runs / "table", tmp_path / "run")
    return tmp_path / "run"


def test_damaged_weights(run):
    whole = (run / "model.safetensors").read_bytes()
    for damaged in (b"", whole[:100], whole[:-7], whole[:-7] + b"\x01" * 7, b"\x80\x04." + whole):
        (run / "model.safetensors").write_bytes(damaged)
        for command in (["evaluate", run], ["predict", run, "1,2,red"]):
            assert "model.safetensors" in refused(*command)
    cr.save({"other": cr.zeros((2,))}, run / "model.safetensors")
    assert "is of another run" in refused("evaluate", run)
    (run / "model.safetensors").unlink()
    assert "is not finished" in refused("predict", run, "1,2,red")


def change(content, path, value):
    """Set what lies at a path of keys; the value `...` removes it."""
    *way, last = path.split("/")
    for key in way:
        content = content[int(key) if isinstance(content, list) else key]
    if value is ...:
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", "something else"), ("settings", ...), ("settings", 3), ("settings/epochs", "x"),
        ("settings/hidden", "ab"), ("settings/lr", None), ("settings/optimizer", "sdg"),
        ("settings/recipe", "none"), ("settings/unheard_of", 1), ("shape", ...), ("shape", [-1]),
        ("shape", [3]), ("shape", "x"), ("outputs", 7), ("outputs", "2"), ("classes", [1, 2]),
        ("classes", None), ("task", "regression"), ("preprocessing", []),
        ("preprocessing/kind", "x"), ("preprocessing/kind", "image"),
        ("preprocessing/numeric", None),
        ("preprocessing/numeric/0/scale", 0), ("preprocessing/columns", ["a"]),
    ],
)  # fmt: skip
def test_a_damaged_config(run, path, value):
    content = json.loads((run / "config.json").read_text())
    change(content, path, value)
    (run / "config.json").write_text(json.dumps(content))
    error = refused("evaluate", run)
    assert "config.json" in error or "recipe 'none'" in error, error


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "[" * 100_000, "\xff\xfe"])
def test_a_config_that_is_no_json(run, text):
    (run / "config.json").write_text(text, encoding="utf-16-le" if text == "\xff\xfe" else "utf-8")
    assert "config.json" in refused("evaluate", run)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("preprocessing/mean", [0.1, 0.2]), ("preprocessing/std", [0.0]),
        ("preprocessing/std", "x"), ("preprocessing/mean", [float("nan")]),
        ("preprocessing/border", None), ("preprocessing/mean", ...), ("shape", [1, 28]),
    ],
)  # fmt: skip
def test_a_damaged_config_of_images(runs, tmp_path, path, value):
    shutil.copytree(runs / "digits", tmp_path / "run")
    content = json.loads((tmp_path / "run" / "config.json").read_text())
    change(content, path, value)
    (tmp_path / "run" / "config.json").write_text(json.dumps(content))
    assert "config.json" in refused("evaluate", "run")


def test_a_damaged_checkpoint_loses_nothing(run):
    content = (run / "last.ckpt").read_bytes()
    (run / "last.ckpt").write_bytes(content[:-20])
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    assert "last.ckpt" in refused("train", "csv", "--out", run, "--resume")
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before


def test_a_damaged_idx_file(tmp_path, monkeypatch):
    monkeypatch.setenv("CHAINRULE_DATA", str(tmp_path))
    folder = tmp_path / "mnist"
    folder.mkdir()
    header = b"\x00\x00\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (5, 28, 28))
    good = header + bytes(5 * 784)
    labels = b"\x00\x00\x08\x01" + (5).to_bytes(4, "big") + bytes(5)
    for part in ("train", "t10k"):
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(good)
    file = folder / "train-images-idx3-ubyte"
    for damaged in (b"", good[:-1], good + b"x", b"\x00\x00\x09\x03" + good[4:], b"hello, world"):
        file.write_bytes(damaged)
        assert "train-images-idx3-ubyte" in refused("train", "mlp", "--data", "mnist", "--out", "x")
    file.unlink()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(good)[:-9])
    assert "idx3-ubyte.gz" in refused("train", "mlp", "--data", "mnist", "--out", "x")
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(good))
    (folder / "train-labels-idx1-ubyte").write_bytes(labels[:-1] + b"\x0b")
    assert "11" in refused("train", "mlp", "--data", "mnist", "--out", "x")
    assert not (tmp_path / "x").exists()


def test_a_data_folder_that_is_none(monkeypatch):
    monkeypatch.setenv("CHAINRULE_DATA", "nowhere")
    assert "CHAINRULE_DATA names 'nowhere'" in refused("train", "mlp", "--data", "mnist")


# --- places to write ------------------------------------------------------------------------------


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in ("file", "file/run"):
        error = refused("train", "csv", "--data", "iris", "--epochs", 1, "--out", out)
        assert f"'{out}'" in error
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(("code", "words"), [(13, "permission was denied"), (30, "read-only")])
def test_a_folder_that_cannot_be_written(monkeypatch, code, words):
    def refuse(self, *rest, **more):
        raise OSError(code, "no", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    error = refused("train", "csv", "--data", "iris", "--epochs", 1, "--out", "x")
    assert "'x'" in error and words in error


@pytest.mark.parametrize("writes", [0, 1, 2, 4, 6, 7, 8, 9])
def test_a_full_disk(tmp_path, monkeypatch, writes):
    """At whichever write: one paragraph, no half file, and the run goes on when there is room."""
    done, sync = [], files.os.fsync

    def full(descriptor):
        if len(done) >= writes:
            raise OSError(28, "No space left on device")
        done.append(descriptor)
        sync(descriptor)

    monkeypatch.setattr(files, "_sync_folder", lambda folder: None)
    monkeypatch.setattr(files.os, "fsync", full)
    command = ("train", "csv", "--data", "iris", "--epochs", 2, "--out", "x", "--quiet")
    error = refused(*command)
    assert "the disk is full" in error and "'x/" in error.replace("\\", "/")
    assert parts(tmp_path) == []
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    works(*command, "--resume")
    works("evaluate", "x")


# --- runs that are there --------------------------------------------------------------------------


def test_a_run_that_is_there_is_not_written_over(run):
    before = (run / "model.safetensors").read_bytes()
    error = refused("train", "csv", "--data", "iris", "--out", run)
    assert "--resume" in error and "--overwrite" in error
    assert (run / "model.safetensors").read_bytes() == before


def test_a_folder_of_other_files(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.txt").write_text("three years of work")
    for more in ([], ["--overwrite"], ["--resume"]):
        error = refused("train", "csv", "--data", "iris", "--out", "x", *more)
        assert "is not empty and holds no run" in error
    assert [p.name for p in (tmp_path / "x").iterdir()] == ["thesis.txt"]


def test_overwriting_needs_data(run):
    """The old run is removed when the new one can begin, and not before."""
    before = sorted(p.name for p in run.iterdir())
    refused("train", "csv", "--data", "nowhere.csv", "--out", run, "--overwrite")
    assert sorted(p.name for p in run.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["mlp"], "recipe = csv and cannot go on with mlp"),
        (["csv", "--data", "iris"], "data = .*table.csv and cannot go on with iris"),
        (["csv", "--lr", "0.5"], "lr = 0.05 and cannot go on with 0.5"),
        (["csv", "--epochs", "99"], "epochs = 40 and cannot go on with 99"),
        (["csv", "--seed", "1"], "seed = 0"),
    ],
)
def test_a_run_goes_on_as_it_was_begun(run, options, words):
    assert re.search(words, refused("train", *options, "--out", run, "--resume"))


def test_data_that_have_changed(table, tmp_path):
    works("train", "csv", "--data", table, "--epochs", 1, "--out", "x", "--quiet")
    table.write_text(table.read_text() + "9.0,9.0,red,b\n")
    assert "has changed since the run" in refused("train", "csv", "--out", "x", "--resume")


# --- training that fails --------------------------------------------------------------------------


def test_training_that_explodes(tmp_path):
    error = refused(
        "train", "csv", "--data", "diabetes", "--optimizer", "sgd", "--lr", 1e12, "--out", "x",
        "--schedule", "constant", "--quiet",
    )  # fmt: skip
    assert re.search(r"in epoch \d+, step \d+", error)
    assert "Lower the learning rate" in error and "last.ckpt" in error
    from chainrule.train import read_checkpoint

    state = read_checkpoint("x")
    assert all(np.isfinite(value.numpy()).all() for value in state["model"].values())
    assert "is not finished" in refused("evaluate", "x")


def test_a_fault_of_our_own_is_no_traceback(monkeypatch):
    from chainrule import recipes

    def broken(*rest):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(recipes, "evaluate", broken)
    answer = call("evaluate", "x")
    assert answer.code == 1 and "fault in chainrule" in answer.err
    assert answer.err.startswith("error: ZeroDivisionError: division by zero")


def test_pictures_are_left_out_without_matplotlib(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    answer = call("train", "csv", "--data", "iris", "--epochs", 1, "--out", "x", "--quiet")
    assert answer.code == 0
    assert "warning: this run has no pictures" in answer.err and "chainrule[plot]" in answer.err
    assert not list((tmp_path / "x").glob("*.png"))
    works("evaluate", "x")
