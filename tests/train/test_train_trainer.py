"""What fit, evaluate and predict do, checked against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from small_problem import weights

import chainrule as cr
from chainrule import data, nn, optim, train
from chainrule.errors import (
    ArgumentError,
    ChainruleError,
    DataError,
    ShapeError,
)


@pytest.mark.parametrize("compile", [False, True])
def test_fit_is_the_plain_loop(problem, compile):
    """The same weights as a loop written out, eagerly bit for bit; losses weighted by samples."""
    model = problem.model()
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loader, totals, right = problem.loader(), [], []
    cr.random.manual_seed(7)
    for _ in range(2):
        total, hits = 0.0, 0
        for inputs, labels in loader:
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = nn.functional.cross_entropy(outputs, labels)
            loss.backward()
            optimizer.step()
            total += float(loss) * len(inputs)
            hits += int((outputs.detach().numpy().argmax(1) == labels.numpy()).sum())
        totals.append(total / 50)
        right.append(hits / 50)

    trainer = problem.trainer(compile=compile)
    history = trainer.fit(problem.loader(), epochs=2)
    if not compile:
        assert weights(trainer.model) == weights(model)
    for p, q in zip(trainer.model.parameters(), model.parameters(), strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert history["loss"] == pytest.approx(totals, rel=1e-6 if compile else 1e-12)
    assert history["accuracy"] == pytest.approx(right, rel=1e-12)
    assert [len(batch[0]) for batch in problem.loader()] == [16, 16, 16, 2]


def test_history_holds_what_was_measured(problem):
    trainer = problem.trainer()
    validation = data.DataLoader(problem.dataset, 20)
    history = trainer.fit(problem.loader(), validation=validation, epochs=3)
    assert history is trainer.history and len(history) == 3 and trainer.finished
    assert list(history[-1]) == [
        "epoch", "steps", "loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds",
        "samples_per_second",
    ]  # fmt: skip
    assert history["epoch"] == [1, 2, 3] and history["steps"] == [4, 8, 12]
    assert (trainer.epoch, trainer.step) == (3, 12)
    assert not history.interrupted and history.stopped is None
    measured = trainer.evaluate(validation)
    assert measured == {"loss": history[-1]["val_loss"], "accuracy": history[-1]["val_accuracy"]}


def test_without_validation_or_metrics(problem):
    history = problem.trainer(metrics=()).fit(problem.loader(), epochs=1)
    assert list(history[0]) == ["epoch", "steps", "loss", "lr", "seconds", "samples_per_second"]


def test_evaluate_is_a_mean_over_samples(problem):
    trainer = problem.trainer()
    trainer.fit(problem.loader(), epochs=2)
    trainer.model.eval()
    outputs = trainer.model(cr.asarray(problem.inputs)).detach()
    expected = float(nn.functional.cross_entropy(outputs, cr.asarray(problem.labels)))
    for batch_size in (7, 50, 64):
        measured = trainer.evaluate(data.DataLoader(problem.dataset, batch_size))
        assert measured["loss"] == pytest.approx(expected, rel=1e-6)
        assert measured["accuracy"] == (outputs.numpy().argmax(1) == problem.labels).mean()


def test_evaluate_and_predict_leave_everything_as_it_was(problem):
    trainer = problem.trainer()
    trainer.fit(problem.loader(), epochs=1)
    trainer.model.train()
    trainer.model[1].eval()
    before, state = weights(trainer.model), cr.random.get_state()
    trainer.evaluate(data.DataLoader(problem.dataset, 10))
    trainer.predict(problem.inputs)
    assert [m.training for m in trainer.model.modules()] == [True, True, False, True, True, True]
    assert weights(trainer.model) == before
    np.testing.assert_array_equal(cr.random.get_state(), state)
    assert cr.is_grad_enabled()


def test_a_failing_evaluation_puts_the_modes_back(problem):
    trainer = problem.trainer()
    with pytest.raises(ChainruleError):
        trainer.predict(np.zeros((3, 5), np.float32))
    assert all(module.training for module in trainer.model.modules()) and cr.is_grad_enabled()


def test_predict_takes_arrays_tensors_data_sets_and_loaders(problem):
    trainer = problem.trainer()
    trainer.fit(problem.loader(), epochs=1)
    expected = trainer.model.eval()(cr.asarray(problem.inputs)).detach().numpy()
    for inputs in (
        problem.inputs, cr.asarray(problem.inputs), problem.inputs.tolist(), problem.dataset,
        data.DataLoader(problem.dataset, 9), data.TensorDataset(problem.inputs),
    ):  # fmt: skip
        found = trainer.predict(inputs, batch_size=16)
        assert not found.requires_grad
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_fit_again_goes_on(problem):
    once, twice = problem.trainer(), problem.trainer()
    once.fit(problem.loader(), epochs=3)
    loader = problem.loader()
    twice.fit(loader, epochs=1)
    twice.fit(loader, epochs=2)
    assert weights(once.model) == weights(twice.model)
    assert once.history["loss"] == twice.history["loss"]
    assert twice.history["epoch"] == [1, 2, 3]


def test_the_seed_of_the_trainer(problem):
    first, second, third = (problem.trainer(seed=s) for s in (5, 5, 6))
    for trainer in (first, second, third):
        cr.random.manual_seed(99)
        trainer.fit(problem.loader(), epochs=1)
    assert weights(first.model) == weights(second.model) != weights(third.model)


def test_parts_put_into_evaluation_mode_stay_there(problem):
    freeze = train.Lambda(fit_start=lambda trainer: trainer.model[1].eval())
    trainer = problem.trainer(callbacks=[freeze])
    before = weights(trainer.model[1])
    trainer.fit(problem.loader(), validation=data.DataLoader(problem.dataset, 10), epochs=2)
    after = weights(trainer.model[1])
    assert after["running_mean"] == before["running_mean"]
    assert after["weight"] != before["weight"]


def test_a_float64_regression(problem):
    x = np.linspace(-1, 1, 40)[:, None]
    y = 3 * x - 1
    cr.random.manual_seed(0)
    model = nn.Linear(1, 1).double()
    optimizer = optim.SGD(model.parameters(), lr=0.3)
    trainer = cr.Trainer(model, optimizer, nn.MSELoss(), ["r2", "mae"], progress=False)
    trainer.fit(data.DataLoader(data.TensorDataset(x, y), 10, shuffle=True), epochs=60)
    assert model.weight.dtype == cr.float64
    assert model.weight.item() == pytest.approx(3, abs=1e-9)
    assert trainer.history[-1]["r2"] == pytest.approx(1, abs=1e-12)
    assert trainer.predict(x).dtype == cr.float64


def test_lbfgs(problem):
    generator = np.random.default_rng(0)
    a, w = generator.normal(size=(40, 5)), generator.normal(size=(5, 1))
    model = nn.Linear(5, 1, bias=False).double()
    optimizer = optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe")
    trainer = cr.Trainer(model, optimizer, nn.MSELoss(), ["mse"], progress=False)
    history = trainer.fit(data.DataLoader(data.TensorDataset(a, a @ w), 40), epochs=3)
    np.testing.assert_allclose(model.weight.detach().numpy(), w.T, atol=1e-6)
    assert history["loss"][0] == pytest.approx(history["mse"][0])  # both before the first step
    assert history["loss"][-1] < 1e-10


def test_probabilities_decide_at_one_half():
    """BCELoss takes probabilities, BCEWithLogitsLoss logits; both give the same accuracy."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(30, 2)).astype(np.float32)
    y = (x.sum(1, keepdims=True) > 0).astype(np.float32)
    loader = data.DataLoader(data.TensorDataset(x, y), 30)
    cr.random.manual_seed(0)
    linear = nn.Linear(2, 1)
    logits = cr.Trainer(linear, loss=nn.BCEWithLogitsLoss(), metrics=["accuracy"])
    chances = cr.Trainer(
        nn.Sequential(linear, nn.Sigmoid()), loss=nn.BCELoss(), metrics=["accuracy"]
    )
    assert 0.2 < logits.evaluate(loader)["accuracy"] < 0.8
    assert logits.evaluate(loader) == pytest.approx(chances.evaluate(loader), rel=1e-6)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([np.zeros((2, 2))], "expects batches .inputs, targets., but got a NumPy array"),
        ([{"x": 1}], "got a dict"),
        ([(1, 2, 3)], "got a tuple of 3"),
        ([], "gave no batch, so there is nothing to train on"),
    ],
)
def test_batches_of_another_form(problem, batches, words):
    with pytest.raises(DataError, match=words):
        problem.trainer().fit(batches)


def test_nothing_to_evaluate_or_predict(problem):
    with pytest.raises(DataError, match="nothing to evaluate"):
        problem.trainer().evaluate([])
    with pytest.raises(DataError, match="no inputs"):
        problem.trainer().predict(np.zeros((0, 2), np.float32))


def test_a_data_set_in_place_of_a_loader(problem):
    for call in (problem.trainer().fit, problem.trainer().evaluate):
        with pytest.raises(ArgumentError, match=r"data\.DataLoader\(dataset"):
            call(problem.dataset)
        with pytest.raises(ArgumentError, match="got a NumPy array"):
            call(problem.inputs)
    with pytest.raises(ArgumentError, match="validation takes batches"):
        problem.trainer().fit(problem.loader(), validation=problem.dataset)


@pytest.mark.parametrize("epochs", [0, -1, 1.5, True, "3"])
def test_epochs_that_are_none(problem, epochs):
    with pytest.raises(ArgumentError, match="whole number from 1 on"):
        problem.trainer().fit(problem.loader(), epochs=epochs)


def test_fit_without_an_optimiser(problem):
    with pytest.raises(ArgumentError, match="needs an optimiser"):
        cr.Trainer(problem.model()).fit(problem.loader())


def test_a_loss_that_is_no_scalar(problem):
    trainer = problem.trainer()
    trainer.loss = nn.CrossEntropyLoss(reduction="none")
    with pytest.raises(ShapeError, match=r"scalar, but has shape \(16,\)"):
        trainer.fit(problem.loader())


def test_regression_targets_of_another_shape(problem):
    model = nn.Linear(2, 1)
    trainer = cr.Trainer(model, optim.SGD(model.parameters()), nn.MSELoss(), progress=False)
    targets = problem.labels.astype(np.float32)
    with pytest.raises(ShapeError, match=r"\(16, 1\).*\(16,\)|\(16,\).*\(16, 1\)"):
        trainer.fit(data.DataLoader(data.TensorDataset(problem.inputs, targets), 16))


def test_a_label_that_the_model_has_no_output_for(problem):
    problem.labels[21] = 3
    with pytest.raises(ChainruleError, match=r"\b3\b") as caught:
        problem.trainer().fit(data.DataLoader(problem.dataset, 50))
    assert "21" in str(caught.value)


def test_inputs_that_do_not_fit_name_the_layer(problem):
    problem.inputs = problem.inputs[:, :1]
    with pytest.raises(ShapeError, match=r"'0' \(Linear\)"):
        problem.trainer().fit(problem.loader())


def test_an_interrupted_epoch_goes_on_with_its_own_loader(problem):
    class Stop(Exception):
        pass

    def stop_at(step):
        def look(trainer):
            if trainer.step == step:
                raise Stop

        return train.Lambda(after_step=look)

    whole, parts = problem.trainer(), problem.trainer(callbacks=[stop_at(6)])
    whole.fit(problem.loader(), epochs=3)
    loader = problem.loader()
    with pytest.raises(Stop):
        parts.fit(loader, epochs=3)
    with pytest.raises(ArgumentError, match="the loader it was begun with"):
        parts.fit(problem.loader(), epochs=2)
    parts.fit(loader, epochs=2)
    assert weights(parts.model) == weights(whole.model)
    assert parts.history["loss"] == whole.history["loss"]
