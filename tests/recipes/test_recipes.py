"""Recipes below the command line: settings, preparing data, forms, resuming, pictures."""

from __future__ import annotations

import json

import numpy as np
import pytest

import chainrule as cr
from chainrule import data, recipes
from chainrule.errors import ArgumentError, CheckpointError, DataError, UnknownNameError
from chainrule.recipes import pictures, registry
from chainrule.recipes.form import Form
from chainrule.recipes.prepare import held_out, prepare
from chainrule.recipes.run import build_model, settings_of_run
from chainrule.recipes.settings import Settings, locate


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHAINRULE_DATA", raising=False)


def settings(recipe="csv", data="iris", **given):
    return recipes.get(recipe).make_settings(data, **given)


# --- settings -------------------------------------------------------------------------------------


def test_settings_come_from_the_recipe_then_the_data_then_the_user(monkeypatch):
    recipe = registry.Recipe(
        "r", "", "digits", lambda *rest: None, {"epochs": 1, "batch_size": 2, "lr": 0.1},
        {"iris": {"epochs": 5, "lr": 0.2}},
    )  # fmt: skip
    assert recipe.make_settings(None).data == "digits"
    assert recipe.make_settings("wine", lr=None).lr == 0.1
    chosen = recipe.make_settings("iris", lr=0.3, batch_size=None)
    assert (chosen.epochs, chosen.lr, chosen.batch_size) == (5, 0.3, 2)


@pytest.mark.parametrize("name", sorted(recipes.RECIPES))
def test_every_recipe_has_settings_for_its_data(name):
    recipe = recipes.get(name)
    for place in [recipe.data, *recipe.for_data]:
        made = recipe.make_settings(place)
        assert made.recipe == name and made.data == place in data.names()
        text = json.dumps(made.to_dict())
        assert Settings.from_dict(json.loads(text), "x") == made


def test_settings_from_an_older_file_have_the_defaults():
    content = settings().to_dict()
    del content["decimal"], content["features"]
    assert Settings.from_dict(content, "x") == settings()
    with pytest.raises(CheckpointError, match=r"'a/config.json' does not hold .*epochs"):
        Settings.from_dict({**content, "epochs": "3"}, "a/config.json")


def test_an_unknown_recipe():
    with pytest.raises(UnknownNameError, match="did you mean 'resnet20'"):
        recipes.get("resnet")


def test_where_data_are(tmp_path, monkeypatch):
    assert locate("digits") == "digits" and locate("nowhere.csv") == "nowhere.csv"
    (tmp_path / "a.csv").write_text("x")
    assert locate("a.csv") == str(tmp_path / "a.csv")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "b.csv").write_text("x")
    monkeypatch.setenv("CHAINRULE_DATA", str(tmp_path / "there"))
    assert locate("b.csv") == str(tmp_path / "there" / "b.csv")
    (tmp_path / "digits").mkdir()
    assert locate("digits") == "digits"


def test_folders_for_new_runs(tmp_path):
    assert recipes.fresh_folder("csv", "/a/my table.csv").parts == ("runs", "csv-my-table")
    (tmp_path / "runs" / "csv-my-table").mkdir(parents=True)
    assert recipes.fresh_folder("csv", "my table.csv").name == "csv-my-table-2"


# --- preparing ------------------------------------------------------------------------------------


def test_images_are_scaled_by_the_training_images_alone():
    prepared = prepare(settings("lenet", "digits", augment=False))
    train, test = data.load("digits")
    form = prepared.form
    assert form.shape == (1, 28, 28) and form.outputs == 10 and form.task == "classification"
    everything = train.batch(np.arange(len(train)))[0]
    assert form.preprocessing["mean"] == pytest.approx([everything.mean()], abs=1e-4)
    assert form.preprocessing["std"] == pytest.approx([everything.std()], abs=1e-4)
    images, labels = prepared.test.batch(np.arange(5))
    expected, same = test.batch(np.arange(5))
    np.testing.assert_allclose(images, (expected - form.mean) / form.std, atol=1e-6)
    np.testing.assert_array_equal(labels, same)
    np.testing.assert_allclose(form.pictures(images), expected, atol=1e-6)
    assert len(prepared.train) == 1438 and len(prepared.test) == 359


def test_training_images_are_varied_and_held_out_ones_are_not():
    plain = prepare(settings("lenet", "digits", augment=False))
    varied = prepare(settings("lenet", "digits", augment=True))
    first = [p.train.batch(np.arange(8))[0] for p in (plain, varied)]
    assert first[0].shape == first[1].shape and not np.allclose(*first)
    held = [p.test.batch(np.arange(8))[0] for p in (plain, varied)]
    np.testing.assert_array_equal(*held)


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes", "moons"])
def test_tables_by_name_are_scaled_by_the_training_rows_alone(name):
    prepared = prepare(settings("csv", name))
    train, test = data.load(name)
    raw = np.asarray(train[:][0], np.float64)
    mean, std = raw.mean(0), raw.std(0)
    found = prepared.test[:][0]
    np.testing.assert_allclose(found, (test[:][0] - mean) / std, atol=1e-4)
    np.testing.assert_allclose(prepared.train[:][0].mean(0), 0, atol=1e-5)
    targets = prepared.test[:][1]
    if name == "diabetes":
        y = np.asarray(train[:][1]).reshape(-1)
        expected = (test[:][1].reshape(-1, 1) - y.mean()) / y.std()
        np.testing.assert_allclose(targets, expected, atol=1e-4)
        assert targets.shape == (len(test), 1) and prepared.form.classes is None
    else:
        np.testing.assert_array_equal(targets, test[:][1])
        assert prepared.form.classes == (train.classes or prepared.form.classes)


def test_forms_survive_their_files():
    for chosen in (settings("csv", "wine"), settings("csv", "diabetes"), settings("mlp", "digits")):
        form = prepare(chosen).form
        assert Form.from_dict(json.loads(json.dumps(form.to_dict())), "x") == form


def test_classes_of_other_data_are_found_by_name():
    form = prepare(settings("csv", "iris")).form
    assert form.class_numbers(["virginica", "setosa"], "other") == [2, 0]
    with pytest.raises(DataError, match="other has the class 'rose'; the run knows 'setosa'"):
        form.class_numbers(["rose"], "other")


def test_rows_of_another_file_get_the_numbers_of_the_run(tmp_path):
    rows = [f"{i},{'ba'[i % 2]}" for i in range(20)]
    (tmp_path / "train.csv").write_text("x,y\n" + "\n".join(rows) + "\n")
    (tmp_path / "other.csv").write_text("y,x\nb,100\nb,0\na,1\n")
    chosen = settings("csv", "train.csv")
    form = prepare(chosen).form
    assert form.classes == ["a", "b"]
    inputs, labels = held_out(chosen, form, "other.csv")[:]
    assert labels.tolist() == [1, 1, 0]
    feature = form.table.numeric[0]
    np.testing.assert_allclose(inputs[:, 0] * feature.scale + feature.mean, [100, 0, 1], atol=1e-4)
    own = held_out(chosen, form, "train.csv")
    assert len(own) == 4  # the file that it was trained on: its held-out rows alone


@pytest.mark.parametrize(("recipe", "shape"), [("mlp", (1, 28, 28)), ("resnet20", (3, 32, 32))])
def test_folders_of_images_are_brought_to_the_recipes_size(tmp_path, recipe, shape):
    from PIL import Image

    for number in range(12):
        place = tmp_path / "p" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10, 8), (200, 20 * number, 0)).save(place)
    prepared = prepare(settings(recipe, "p", augment=False))
    assert prepared.form.shape == shape and prepared.form.classes == ["a", "b"]
    assert (len(prepared.train), len(prepared.test)) == (10, 2)


def test_models_fit_their_form():
    form = Form((3, 20, 20), 5, "classification", list("abcde"), {"kind": "image"})
    for recipe in ("mlp", "lenet", "resnet20"):
        model = build_model(settings(recipe, "digits"), form)
        assert model.eval()(cr.zeros((2, 3, 20, 20))).shape == (2, 5)
    tall = Form((1, 20, 28), 2, "classification", list("ab"), {"kind": "image"})
    with pytest.raises(ArgumentError, match=r"square images of at least 12x12.* 20x28"):
        build_model(settings("lenet", "digits"), tall)


# --- going on -------------------------------------------------------------------------------------


def test_more_epochs_where_the_rate_is_constant(tmp_path):
    chosen = settings(epochs=4, schedule="constant", dropout=0.1)
    whole = recipes.start(chosen, tmp_path / "whole", progress=False)
    recipes.start(settings(epochs=2, schedule="constant", dropout=0.1), "part", progress=False)
    more = settings_of_run("part", "csv", None, {"epochs": 4, "workers": 1})
    part = recipes.start(more, "part", resume=True, progress=False)
    assert part.results == whole.results and len(part.history) == 4
    weights = [
        (folder / "model.safetensors").read_bytes() for folder in (whole.folder, part.folder)
    ]
    assert weights[0] == weights[1]
    assert recipes.RunFolder("part").read_config()[0].epochs == 4


def test_evaluation_and_loading_leave_the_random_state(tmp_path):
    recipes.start(settings(epochs=1), "x", progress=False)
    cr.random.manual_seed(5)
    before = cr.random.get_state()
    recipes.evaluate("x")
    recipes.predict("x", ["5.1,3.5,1.4,0.2"])
    np.testing.assert_array_equal(cr.random.get_state(), before)
    model, _, form = recipes.load_run("x")
    assert not model.training and form.classes == ["setosa", "versicolor", "virginica"]


def test_predictions_are_those_of_the_model(tmp_path):
    recipes.start(settings(epochs=30, lr=0.02), "x", progress=False)
    model, chosen, form = recipes.load_run("x")
    inputs, labels = held_out(chosen, form)[:]
    scores = model(cr.asarray(inputs)).detach().numpy().astype(np.float64)
    chances = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    raw = data.load("iris")[1][:][0]
    rows = [",".join(map(str, row.tolist())) for row in raw]
    for prediction, expected in zip(recipes.predict("x", rows), chances, strict=True):
        found = [dict(prediction.probabilities)[name] for name in form.classes]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
        assert prediction.answer == form.classes[expected.argmax()]
    assert recipes.evaluate("x")["accuracy"] == (chances.argmax(1) == labels).mean()


# --- pictures -------------------------------------------------------------------------------------


@pytest.fixture
def figures(monkeypatch):
    """The figures that were drawn, besides their files."""
    drawn, save = [], pictures._save

    def keep(figure, path):
        drawn.append(figure)
        save(figure, path)

    monkeypatch.setattr(pictures, "_save", keep)
    return drawn


def test_the_confusion_matrix_as_a_picture(tmp_path, figures):
    counts = np.array([[5, 1, 0], [0, 4, 2], [0, 0, 0]])
    pictures.confusion(tmp_path / "c.png", counts, ["cat", "a very long name of a class", "$x_$"])
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    axes = figures[0].axes[0]
    assert axes.get_title() == "9 of 12 right (75.00 %)"
    assert {text.get_text() for text in axes.texts} == {"5", "1", "4", "2"}
    assert [label.get_text() for label in axes.get_yticklabels()][1] == "a very long nam…"
    shares = axes.images[0].get_array()
    np.testing.assert_allclose(shares, [[5 / 6, 1 / 6, 0], [0, 4 / 6, 2 / 6], [0, 0, 0]])


def test_a_confusion_matrix_of_many_classes(tmp_path, figures):
    pictures.confusion(tmp_path / "c.png", np.eye(45, dtype=int), [f"c{i}" for i in range(45)])
    axes = figures[0].axes[0]
    assert len(axes.texts) == 0 and len(axes.get_xticks()) <= 40


def test_which_samples_are_shown():
    true = np.zeros(60, int)
    guess = np.where(np.arange(60) % 2, 0, 1)  # every second one is wrong
    chosen = pictures.chosen_samples(np.eye(2)[guess], true)
    assert len(chosen) == 24 and (guess[chosen] != true[chosen]).sum() == 16
    all_right = pictures.chosen_samples(np.eye(2)[true], true)
    assert all_right.tolist() == list(range(24))
    assert pictures.chosen_samples(np.eye(2)[true[:3]], true[:3]).tolist() == [0, 1, 2]


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_as_a_picture(tmp_path, figures, channels):
    true, chances = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]])
    images = np.random.default_rng(0).uniform(size=(3, channels, 6, 6))
    chosen = pictures.chosen_samples(chances, true)
    assert chosen.tolist() == [1, 0, 2]
    pictures.samples(tmp_path / "s.png", images[chosen], true, chances, chosen, ["no", "yes"])
    titles = [axes.get_title() for axes in figures[0].axes[:3]]
    assert titles == ["no (80 %)\ntrue yes", "no (90 %)", "yes (60 %)"]
    assert "1 of 3 held-out images wrong, in red" in figures[0].get_suptitle()
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_values_as_a_picture(tmp_path, figures):
    true, guess = np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.0, 2.5])
    pictures.regression(tmp_path / "r.png", true, guess, "$price_$", 0.75)
    axes = figures[0].axes[0]
    assert axes.get_title() == "R2 = 0.750" and axes.get_xlabel() == "true \\$price_\\$"
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), np.stack([true, guess], 1))
