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
    CheckpointError,
    DataError,
    NonFiniteError,
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


# --- resuming, in one process ---------------------------------------------------------------------


def test_resume_in_the_middle_of_an_epoch(problem, tmp_path):
    class Killed(Exception):
        pass

    def kill(trainer):
        if trainer.step == 7:
            raise Killed

    def make(killer=None):
        callbacks = [train.Checkpoint(tmp_path, every_seconds=0)]
        return problem.trainer(
            callbacks=[train.Lambda(step_end=killer or print_nothing), *callbacks]
        )

    def print_nothing(trainer):
        pass

    whole = make()
    whole.fit(problem.loader(), epochs=3)
    (tmp_path / "last.ckpt").unlink()
    with pytest.raises(Killed):
        make(kill).fit(problem.loader(), epochs=3)
    cr.random.manual_seed(1234)  # another process draws other numbers
    resumed = make()
    history = resumed.fit(problem.loader(), epochs=3, resume=True)
    assert resumed.resumed_from == str(tmp_path)
    assert weights(resumed.model) == weights(whole.model)
    assert history["loss"] == whole.history["loss"]
    assert history["steps"] == [4, 8, 12]
    again = make()
    again.fit(problem.loader(), epochs=3, resume=tmp_path / "last.ckpt")
    assert weights(again.model) == weights(whole.model) and again.finished


def test_resume_between_the_last_step_and_the_end_of_the_epoch(problem, tmp_path):
    """The steps are done, the validation is not: it is measured, and no step is done twice."""

    class Killed(Exception):
        pass

    class Boom:
        def __iter__(self):
            raise Killed

    validation = data.DataLoader(problem.dataset, 10)
    whole = problem.trainer()
    whole.fit(problem.loader(), validation, epochs=2)
    killed = problem.trainer(out=tmp_path)
    with pytest.raises(Killed):
        killed.fit(problem.loader(), Boom(), epochs=2)
    killed.callbacks[-1].save(killed)
    resumed = problem.trainer(out=tmp_path)
    resumed.fit(problem.loader(), validation, epochs=2, resume=True)
    assert resumed.history["steps"] == [4, 8]
    assert weights(resumed.model) == weights(whole.model)
    assert resumed.history["val_loss"] == whole.history["val_loss"]


def test_resume_is_refused(problem, tmp_path):
    with pytest.raises(ArgumentError, match="out="):
        problem.trainer().fit(problem.loader(), resume=True)
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        problem.trainer(out=tmp_path).fit(problem.loader(), resume=True)
    problem.trainer(out=tmp_path).fit(problem.loader(), epochs=1)
    with pytest.raises(CheckpointError, match=r"metrics \['accuracy'\], but this trainer has \[\]"):
        problem.trainer(metrics=(), out=tmp_path).fit(problem.loader(), resume=True)
    stopping = train.EarlyStopping("loss")
    with pytest.raises(CheckpointError, match="callbacks"):
        problem.trainer(callbacks=[stopping], out=tmp_path).fit(problem.loader(), resume=True)
    trainer = problem.trainer(out=tmp_path)
    trainer.model.append(nn.Linear(3, 3))
    with pytest.raises(CheckpointError, match=r"5\.weight"):
        trainer.fit(problem.loader(), resume=True)
    with pytest.raises(CheckpointError, match="not the state of a trainer"):
        trainer.load_state_dict({"model": {}})


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "pickle"])
def test_resume_from_a_damaged_checkpoint(problem, tmp_path, damage):
    problem.trainer(out=tmp_path).fit(problem.loader(), epochs=1)
    file = tmp_path / "last.ckpt"
    content = bytearray(file.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flip":
        content[-5] ^= 1
    elif damage == "empty":
        content = b""
    else:
        content = b"\x80\x04\x95" + content
    file.write_bytes(content)
    trainer = problem.trainer(out=tmp_path)
    before = weights(trainer.model)
    with pytest.raises(CheckpointError, match=r"last\.ckpt"):
        trainer.fit(problem.loader(), resume=True)
    assert weights(trainer.model) == before
    assert file.read_bytes() == bytes(content)  # nothing is lost that a user may want to look at


def test_resume_needs_a_loader_that_can(problem, tmp_path):
    batches = list(problem.loader())

    def fail(trainer):
        if trainer.step == 2:
            raise KeyboardInterrupt

    trainer = problem.trainer(callbacks=[train.Lambda(step_end=fail)], out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(batches, epochs=2)
    trainer.callbacks[-1].save(trainer)
    trainer = problem.trainer(callbacks=[train.Lambda()], out=tmp_path)
    with pytest.raises(CheckpointError, match="in the middle of an epoch"):
        trainer.fit(batches, epochs=2, resume=True)


def test_a_list_of_batches_resumes_between_epochs(problem, tmp_path):
    batches = list(problem.loader())
    whole, part = problem.trainer(), problem.trainer(out=tmp_path)
    whole.fit(batches, epochs=2)
    part.fit(batches, epochs=1)
    resumed = problem.trainer(out=tmp_path)
    resumed.fit(batches, epochs=2, resume=True)
    assert weights(resumed.model) == weights(whole.model)


# --- NaN and infinity -----------------------------------------------------------------------------


def test_nan_in_the_data_names_the_sample(problem, tmp_path):
    problem.inputs[13, 1] = np.nan
    trainer = problem.trainer(out=tmp_path)
    before = weights(trainer.model)
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(data.DataLoader(problem.dataset, 10), epochs=2)
    text = str(caught.value)
    assert "epoch 1, step 2" in text and "input in row 3 of the batch, sample 13" in text
    assert "last.ckpt" in text
    assert weights(trainer.model) != before  # step 1 was done
    assert all(np.isfinite(v.numpy()).all() for v in trainer.model.state_dict().values())
    again = problem.trainer(out=tmp_path)
    problem.inputs[13, 1] = 0
    again.fit(data.DataLoader(problem.dataset, 10), epochs=1, resume=True)
    assert again.finished and np.isfinite(again.history[-1]["loss"])


def test_nan_in_a_subset_names_the_sample_of_the_whole(problem):
    problem.inputs[41, 0] = np.inf
    part = data.Subset(problem.dataset, np.arange(30, 50))
    with pytest.raises(NonFiniteError, match="row 1 of the batch, sample 41 of the data set"):
        problem.trainer().fit(data.DataLoader(part, 10, num_workers=2), epochs=1)


def test_an_exploding_rate_names_the_first_operation(problem, tmp_path):
    trainer = problem.trainer(lr=1e30, out=tmp_path)
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(problem.loader(), epochs=9)
    text = str(caught.value)
    assert "epoch 1, step " in text and "first" in text and "made by" in text
    assert "Lower the learning rate" in text and str(tmp_path / "last.ckpt") in text
    assert all(np.isfinite(v.numpy()).all() for v in trainer.model.state_dict().values())
    state = train.read_checkpoint(tmp_path)
    assert all(np.isfinite(v.numpy()).all() for v in state["model"].values())


def test_an_optimisers_step_too_far(problem, tmp_path):
    """The loss and the gradients are finite, and the weights after the step would not be."""
    trainer = problem.trainer(lr=3e38, out=tmp_path)
    problem.inputs *= 1e3
    trainer.model = nn.Linear(2, 3)
    trainer.optimizer = optim.SGD(trainer.model.parameters(), lr=3e38)
    before = weights(trainer.model)
    with pytest.raises(
        NonFiniteError, match=r"step made 'weight' infinite or NaN.* epoch 1, step 1"
    ):
        trainer.fit(problem.loader(), epochs=1)
    assert weights(trainer.model) == before


def test_the_logarithm_of_zero_names_the_layer():
    class Logarithm(nn.Module):
        def forward(self, x):
            return cr.log(nn.functional.relu(x))

    cr.random.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), Logarithm(), nn.Linear(3, 1))
    trainer = cr.Trainer(model, optim.SGD(model.parameters()), nn.MSELoss(), progress=False)
    before = weights(model)
    x, y = np.ones((8, 2), np.float32), np.ones((8, 1), np.float32)
    with cr.no_grad():
        model[0].weight[1] = -1.0
        model[0].bias[1] = 0.0
    before = weights(model)
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(data.DataLoader(data.TensorDataset(x, y), 8), epochs=1)
    text = str(caught.value)
    assert "made by log" in text and "'1' (Logarithm)" in text and "epoch 1, step 1" in text
    assert weights(model) == before


def test_an_infinite_gradient_of_a_finite_loss():
    """sqrt(x) at 0: the loss is 0, its slope is not."""

    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(cr.zeros((1,)))

        def forward(self, x):
            return cr.sqrt(self.w * self.w * x)

    model = Root()
    trainer = cr.Trainer(model, optim.SGD(model.parameters()), nn.L1Loss(), progress=False)
    ones = np.ones((4, 1), np.float32)
    with pytest.raises(NonFiniteError, match="gradient of 'w' is not finite in epoch 1, step 1"):
        trainer.fit(data.DataLoader(data.TensorDataset(ones, ones), 4), epochs=1)
    assert model.w.item() == 0


def test_batch_statistics_are_put_back_after_nan(problem):
    trainer = problem.trainer()
    trainer.fit(problem.loader(), epochs=1)
    before = weights(trainer.model)
    problem.inputs[:] = np.nan
    with pytest.raises(NonFiniteError):
        trainer.fit(problem.loader(), epochs=1)
    assert weights(trainer.model) == before


def test_a_large_finite_sum_is_no_fault(problem):
    """Numbers near the largest float32 are finite, though their sum is not."""
    assert train.nonfinite.is_finite(np.full(10, 3e38, np.float32))
    assert train.nonfinite.is_finite(np.full(10, 1e308))
    assert not train.nonfinite.is_finite(np.array([1.0, np.nan]))
    assert not train.nonfinite.is_finite(np.array([np.inf, -np.inf]))
    assert train.nonfinite.is_finite(np.array([1, 2]))
