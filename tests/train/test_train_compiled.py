"""The trainer's step, evaluation and predictions as programs."""

from __future__ import annotations

import numpy as np
import pytest

import chainrule as cr
from chainrule import data, nn, optim, train
from chainrule.errors import NonFiniteError, TraceError


def numbers(model):
    return {k: np.array(v.numpy()) for k, v in model.state_dict().items()}


def assert_close(a, b, **tolerance):
    assert a.keys() == b.keys()
    for key, value in a.items():
        np.testing.assert_allclose(value, b[key], err_msg=key, **tolerance)


def build(optimizer=optim.AdamW, callbacks=(), compile=True, **arguments):
    cr.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(5, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(16, 3),
    ).double()  # fmt: skip
    arguments = {"lr": 0.01, **arguments}
    opt = optimizer(model.parameters(), **arguments)
    return cr.Trainer(
        model, opt, metrics=["accuracy"], callbacks=list(callbacks), seed=3, progress=False,
        compile=compile,
    )  # fmt: skip


def loader(n=50, batch_size=16):
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((n, 5)), generator.integers(0, 3, n)
    return data.DataLoader(data.TensorDataset(x, y), batch_size, shuffle=True, seed=1)


@pytest.mark.parametrize("optimizer", [optim.SGD, optim.AdamW, optim.RMSprop])
@pytest.mark.parametrize("clipping", [False, True])
def test_a_run_is_the_eager_run(optimizer, clipping):
    runs = []
    for compile in (True, False):
        callbacks = [train.GradientClipping(norm=0.5)] if clipping else []
        trainer = build(optimizer, callbacks, compile)
        schedule = optim.lr_scheduler.CosineAnnealingLR(trainer.optimizer, T_max=12)
        trainer.callbacks.append(train.Schedule(schedule, interval="step"))
        history = trainer.fit(loader(), validation=loader(), epochs=3)
        runs.append((trainer, history))
    (compiled, history), (eager, expected) = runs
    assert_close(numbers(compiled.model), numbers(eager.model), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-10)
    np.testing.assert_allclose(history["val_loss"], expected["val_loss"], rtol=1e-10)
    assert history["accuracy"] == expected["accuracy"]
    # Two shapes of batches (the last is smaller), whatever the rate does.
    assert compiled._step._program.traces == 2
    assert compiled._measure.traces == 2


def test_a_second_fit_compiles_nothing_anew():
    trainer = build()
    trainer.fit(loader(48), epochs=1)
    program = trainer._step._program
    trainer.fit(loader(48), epochs=2)
    assert trainer._step._program is program
    assert program.traces == 1


def test_predictions_and_evaluation_agree_with_the_model():
    trainer = build()
    trainer.fit(loader(), epochs=1)
    x = np.random.default_rng(1).standard_normal((37, 5))
    got = trainer.predict(x, batch_size=10)
    with cr.no_grad():
        expected = trainer.model.eval()(cr.asarray(x))
    np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-12)
    assert not got.requires_grad
    assert trainer._apply.traces == 2


def test_callbacks_that_look_at_gradients_run_between_two_programs():
    seen = []

    class Watch(train.Callback):
        def gradients(self, trainer):
            seen.append(float(cr.sum(trainer.model[0].weight.grad ** 2)))

    trainer, eager = build(callbacks=[Watch()]), build(callbacks=[Watch()], compile=False)
    trainer.fit(loader(32), epochs=2)
    compiled_seen, seen[:] = list(seen), []
    eager.fit(loader(32), epochs=2)
    np.testing.assert_allclose(compiled_seen, seen, rtol=1e-9)
    assert len(seen) == 4
    assert_close(numbers(trainer.model), numbers(eager.model), rtol=1e-9, atol=1e-11)
    assert trainer._step._program is None
    assert trainer._step._forward_backward.traces == 1
    assert trainer._step._update.traces == 1


def test_other_settings_of_a_callback_are_another_program():
    clip = train.GradientClipping(norm=1e-9)
    trainer = build(optim.SGD, [clip], lr=1.0)
    before = numbers(trainer.model)
    trainer.fit(loader(48), epochs=1)
    np.testing.assert_allclose(numbers(trainer.model)["4.weight"], before["4.weight"], atol=1e-7)
    clip.norm = 1e9
    trainer.fit(loader(48), epochs=1)
    assert not np.allclose(numbers(trainer.model)["4.weight"], before["4.weight"], atol=1e-3)


def test_a_step_that_is_not_finite_changes_nothing():
    trainer = build()
    trainer.fit(loader(48), epochs=1)
    before, state = numbers(trainer.model), trainer.optimizer.state_dict()
    step, random = trainer.step, cr.random.get_state()
    x, y = np.ones((16, 5)), np.zeros(16, np.int64)
    x[3, 2] = np.inf
    with pytest.raises(NonFiniteError, match="row 3"):
        trainer.fit([(cr.asarray(x), cr.asarray(y))], epochs=1)
    assert_close(numbers(trainer.model), before, rtol=0)
    assert trainer.step == step
    np.testing.assert_array_equal(cr.random.get_state()[0], random[0])
    for index, entries in trainer.optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            np.testing.assert_array_equal(
                np.asarray(value), np.asarray(state["state"][index][name])
            )
    trainer.fit(loader(48), epochs=1)


def test_lbfgs_and_models_with_branches_run_without_compiling():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(5, 3).double()

        def forward(self, x):
            y = self.linear(x)
            return y if float(cr.sum(y)) > 0 else y * 2

    model = Branching()
    trainer = cr.Trainer(model, optim.SGD(model.parameters(), lr=0.1), progress=False)
    before = numbers(model)
    with pytest.raises(TraceError, match=r"compile=False|without cr\.compile") as caught:
        trainer.fit(loader(), epochs=1)
    assert "test_train_compiled.py" in str(caught.value)
    assert_close(numbers(model), before, rtol=0)
    opt = optim.SGD(model.parameters(), lr=0.1)
    cr.Trainer(model, opt, progress=False, compile=False).fit(loader(), epochs=1)
    trainer = build(optim.LBFGS, lr=0.5)
    trainer.fit(loader(), epochs=1)


def test_resuming_is_exact(tmp_path):
    whole = build()
    whole.fit(loader(), epochs=3)
    first = build(callbacks=[train.Checkpoint(tmp_path)])
    first.fit(loader(), epochs=1)
    second = build(callbacks=[train.Checkpoint(tmp_path)])
    second.fit(loader(), epochs=3, resume=tmp_path)
    for key, value in numbers(whole.model).items():
        np.testing.assert_array_equal(value, numbers(second.model)[key], err_msg=key)
