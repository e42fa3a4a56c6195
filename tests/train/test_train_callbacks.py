"""Callbacks: the order of calls, early stopping, checkpoints, schedules, clipping, logs."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from small_problem import weights

import chainrule as cr
from chainrule import data, nn, optim, train
from chainrule.errors import ArgumentError, CheckpointError, UnknownNameError
from chainrule.optim import lr_scheduler
from chainrule.train.callbacks import METHODS


def validation(problem):
    return data.DataLoader(problem.dataset, 25)


class Recorder(train.Callback):
    """Writes down every call: its own name, the method's, and the trainer's place."""

    def __init__(self, name, calls):
        self.name, self.calls = name, calls
        for method in METHODS:
            setattr(self, method, self._recording(method))

    def _recording(self, method):
        def record(trainer, *rest):
            self.calls.append((self.name, method, trainer.epoch, trainer.step, len(rest)))

        return record


def test_the_order_of_calls(problem):
    calls = []
    recorders = [Recorder("a", calls), Recorder("b", calls)]
    problem.trainer(callbacks=recorders).fit(problem.loader(32), epochs=2)
    assert [c[1:] for c in calls[::2]] == [c[1:] for c in calls[1::2]]  # a, then b, each time
    assert {c[0] for c in calls[::2]} == {"a"}
    step = ["gradients", "step_end", "after_step"]
    epoch = ["epoch_start", *step, *step, "epoch_end", "after_epoch"]
    assert [c[1] for c in calls[::2]] == ["fit_start", *epoch, *epoch, "fit_end"]
    places = {(c[1], c[2], c[3]) for c in calls}
    assert ("gradients", 0, 0) in places and ("step_end", 0, 1) in places
    assert ("epoch_end", 0, 2) in places and ("after_epoch", 1, 2) in places
    assert ("fit_end", 2, 4) in places
    assert {c[4] for c in calls if c[1] == "epoch_end"} == {1}


def test_fit_end_is_called_after_an_error_too(problem):
    calls = []

    def fail(trainer):
        raise RuntimeError("mine")

    trainer = problem.trainer(callbacks=[Recorder("a", calls), train.Lambda(gradients=fail)])
    with pytest.raises(RuntimeError, match="mine"):
        trainer.fit(problem.loader())
    assert calls[-1][1] == "fit_end" and not trainer.finished


def test_a_callback_of_ones_own(problem):
    """It sees gradients before the step, adds to the record, and stops the run."""

    class Norms(train.Callback):
        def __init__(self):
            self.norms = []

        def gradients(self, trainer):
            total = sum(float(cr.sum(p.grad * p.grad)) for p in trainer.model.parameters())
            self.norms.append(math.sqrt(total))

        def epoch_end(self, trainer, record):
            record["norm"] = float(np.mean(self.norms[-4:]))
            if trainer.epoch == 1:
                trainer.stop("seen enough")

    own = Norms()
    history = problem.trainer(callbacks=[own]).fit(problem.loader(), epochs=9)
    assert len(history) == 2 and history.stopped == "seen enough"
    assert history["norm"] == [np.mean(own.norms[:4]), np.mean(own.norms[4:])]
    assert all(norm > 0 for norm in own.norms)


def test_lambda_knows_the_methods():
    with pytest.raises(UnknownNameError, match="did you mean 'epoch_end'"):
        train.Lambda(epoch_ends=print)


class Fixed(train.Callback):
    """Puts given numbers into the records."""

    def __init__(self, key, values):
        self.key, self.values = key, list(values)

    def epoch_end(self, trainer, record):
        record[self.key] = self.values[trainer.epoch]
        with cr.no_grad():
            trainer.model[0].bias.fill_(float(trainer.epoch))


@pytest.mark.parametrize(
    ("key", "values", "options", "epochs", "best"),
    [
        ("val_loss", [3, 2, 2.5, 2.2, 1, 1, 1], {"patience": 2}, 4, 1),
        ("val_loss", [3, 2, 1.95, 1.9, 1, 1], {"patience": 2, "min_delta": 0.2}, 4, 1),
        ("val_accuracy", [0.1, 0.5, 0.4, 0.3, 0.9], {"patience": 2}, 4, 1),
        ("score", [0.1, 0.5, 0.4, 0.3, 0.9], {"patience": 2}, 4, 1),
        ("score", [0.5, 0.1, 0.4, 0.3, 0.9], {"patience": 2, "mode": "min"}, 4, 1),
        ("val_loss", [2, math.nan, math.nan, 1], {"patience": 2}, 3, 0),
        ("val_loss", [3, 2, 1], {"patience": 2}, 3, 2),
    ],
)
def test_early_stopping(problem, key, values, options, epochs, best):
    stopping = train.EarlyStopping(key, restore_best=True, **options)
    trainer = problem.trainer(callbacks=[Fixed(key, values), stopping])
    history = trainer.fit(problem.loader(), epochs=len(values))
    assert len(history) == epochs
    assert (history.stopped is not None) == (epochs < len(values))
    if history.stopped:
        assert key in history.stopped and "2 epochs" in history.stopped
    assert trainer.model[0].bias.tolist() == [best] * 8


def test_early_stopping_leaves_the_last_weights_unless_told(problem):
    stopping = train.EarlyStopping("val_loss", patience=1)
    trainer = problem.trainer(callbacks=[Fixed("val_loss", [1, 2, 3]), stopping])
    trainer.fit(problem.loader(), epochs=3)
    assert trainer.model[0].bias.tolist() == [1.0] * 8


def test_early_stopping_asks_the_metric_which_way_is_up(problem):
    class Distance(train.Metric):
        name = "distance"
        higher_is_better = False

        def reset(self):
            self.epoch = getattr(self, "epoch", 0)

        def update(self, outputs, targets):
            pass

        def compute(self):
            return [5.0, 3.0, 4.0, 4.5, 9.0][trainer.epoch]

    stopping = train.EarlyStopping("distance", patience=2)
    trainer = problem.trainer(metrics=[Distance()], callbacks=[stopping])
    trainer.fit(problem.loader(), epochs=5)
    assert len(trainer.history) == 4 and stopping.watch.best == 3.0


def test_early_stopping_resumes(problem, tmp_path):
    def make():
        stopping = train.EarlyStopping(patience=2, restore_best=True)
        callbacks = [Fixed("val_loss", [3, 1, 2, 2, 0]), stopping]
        return problem.trainer(callbacks=callbacks, out=tmp_path)

    make().fit(problem.loader(), epochs=3)
    resumed = make()
    history = resumed.fit(problem.loader(), epochs=5, resume=True)
    assert len(history) == 4 and resumed.model[0].bias.tolist() == [1.0] * 8
    again = make()
    history = again.fit(problem.loader(), epochs=5, resume=True)  # it has stopped, and stays so
    assert len(history) == 4 and history.stopped and again.model[0].bias.tolist() == [1.0] * 8


def test_a_measure_that_is_not_there(problem):
    trainer = problem.trainer(callbacks=[train.EarlyStopping("val_los")])
    with pytest.raises(UnknownNameError, match=r"unknown measure 'val_los'.*validation=loader"):
        trainer.fit(problem.loader())
    with pytest.raises(UnknownNameError, match="mode"):
        train.EarlyStopping(mode="up")
    with pytest.raises(ArgumentError, match="patience"):
        train.EarlyStopping(patience=0)


# --- checkpoints ----------------------------------------------------------------------------------


def test_the_best_and_the_last_checkpoint(problem, tmp_path):
    checkpoint = train.Checkpoint(tmp_path, monitor="val_loss")
    callbacks = [Fixed("val_loss", [3, 1, 2]), checkpoint]
    problem.trainer(callbacks=callbacks).fit(problem.loader(), epochs=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]
    best, last = (train.read_checkpoint(tmp_path / f"{name}.ckpt") for name in ("best", "last"))
    assert (best["epoch"], last["epoch"]) == (2, 3)
    assert best["model"]["0.bias"].tolist() == [1.0] * 8
    assert [record["val_loss"] for record in best["history"]] == [3, 1]


def test_a_kill_between_best_and_last_loses_neither(problem, tmp_path, monkeypatch):
    """The best is written first: if the last is not, the epoch is done again, and so the best."""

    class Killed(Exception):
        pass

    def make():
        checkpoint = train.Checkpoint(tmp_path, monitor="val_loss")
        return problem.trainer(callbacks=[Fixed("val_loss", [3, 1, 2]), checkpoint])

    killed = make()
    save = train.Checkpoint.save

    def die(self, trainer):
        if trainer.epoch == 2:
            raise Killed
        save(self, trainer)

    monkeypatch.setattr(train.Checkpoint, "save", die)
    with pytest.raises(Killed):
        killed.fit(problem.loader(), epochs=3)
    monkeypatch.undo()
    assert train.read_checkpoint(tmp_path / "best.ckpt")["epoch"] == 2
    assert train.read_checkpoint(tmp_path)["epoch"] == 1
    resumed = make()
    resumed.fit(problem.loader(), epochs=3, resume=tmp_path)
    assert train.read_checkpoint(tmp_path / "best.ckpt")["epoch"] == 2
    assert resumed.callbacks[1].watch.best == 1


@pytest.mark.parametrize("first", ["checkpoint", "schedule"])
def test_a_checkpoint_within_an_epoch_whatever_the_order(problem, tmp_path, first):
    """What other callbacks do at the end of the step is in it."""

    class Killed(Exception):
        pass

    def kill(trainer):
        if trainer.step == 6:
            raise Killed

    def make(look=lambda trainer: None):
        trainer = problem.trainer()
        schedule = train.Schedule(lr_scheduler.StepLR(trainer.optimizer, 1, 0.9), interval="step")
        trainer.callbacks = [schedule, train.Checkpoint(tmp_path, every_seconds=0)]
        if first == "checkpoint":
            trainer.callbacks.reverse()
        trainer.callbacks.append(train.Lambda(after_step=look))
        return trainer

    whole = make()
    whole.fit(problem.loader(), epochs=2)
    with pytest.raises(Killed):
        make(kill).fit(problem.loader(), epochs=2)
    resumed = make()
    resumed.fit(problem.loader(), epochs=2, resume=tmp_path)
    assert weights(resumed.model) == weights(whole.model)
    assert resumed.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"]


def test_reading_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no checkpoint at .*nowhere"):
        train.read_checkpoint(tmp_path / "nowhere")


# --- schedules and clipping -----------------------------------------------------------------------


def rates(problem, make_schedule, **options):
    seen = []
    look = train.Lambda(gradients=lambda t: seen.append(t.optimizer.param_groups[0]["lr"]))
    trainer = problem.trainer(callbacks=[look])
    trainer.callbacks.append(train.Schedule(make_schedule(trainer.optimizer), **options))
    trainer.fit(problem.loader(), epochs=3)
    return seen, trainer.history["lr"]


def test_a_schedule_by_epoch(problem):
    seen, recorded = rates(problem, lambda o: lr_scheduler.StepLR(o, 1, 0.1))
    assert seen == pytest.approx([0.05] * 4 + [0.005] * 4 + [0.0005] * 4)
    assert recorded == pytest.approx([0.05, 0.005, 0.0005])


def test_a_schedule_by_step(problem):
    seen, _ = rates(problem, lambda o: lr_scheduler.StepLR(o, 1, 0.5), interval="step")
    assert seen == pytest.approx([0.05 * 0.5**i for i in range(12)])


def test_a_schedule_that_watches(problem):
    trainer = problem.trainer(callbacks=[Fixed("val_loss", [1, 1, 1, 1])])
    plateau = lr_scheduler.ReduceLROnPlateau(trainer.optimizer, factor=0.1, patience=1)
    trainer.callbacks.append(train.Schedule(plateau, monitor="val_loss"))
    history = trainer.fit(problem.loader(), epochs=4)
    assert history["lr"] == pytest.approx([0.05, 0.05, 0.05, 0.005])


def test_schedules_that_make_no_sense(problem):
    optimizer = problem.trainer().optimizer
    step, plateau = lr_scheduler.StepLR(optimizer, 1), lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(UnknownNameError, match="did you mean 'epoch'"):
        train.Schedule(step, interval="epochs")
    with pytest.raises(ArgumentError, match="name it, such as monitor='val_loss'"):
        train.Schedule(plateau)
    with pytest.raises(ArgumentError, match="StepLR watches no measure"):
        train.Schedule(step, monitor="val_loss")
    with pytest.raises(ArgumentError, match="'epoch'"):
        train.Schedule(plateau, interval="step", monitor="val_loss")


@pytest.mark.parametrize("options", [{"norm": 0.01}, {"value": 0.001}])
def test_clipping(problem, options):
    seen = []

    def look(trainer):
        flat = np.concatenate([p.grad.numpy().ravel() for p in trainer.model.parameters()])
        seen.append((np.linalg.norm(flat), np.abs(flat).max()))

    clipping = train.GradientClipping(**options)
    problem.trainer(callbacks=[clipping, train.Lambda(gradients=look)]).fit(problem.loader())
    norms, largest = zip(*seen, strict=True)
    if "norm" in options:
        assert norms == pytest.approx([0.01] * 4, rel=1e-3)
    else:
        assert largest == pytest.approx([0.001] * 4)


@pytest.mark.parametrize("options", [{}, {"norm": 1, "value": 1}, {"norm": 0}, {"value": -1}])
def test_clipping_to_nothing(options):
    with pytest.raises(ArgumentError):
        train.GradientClipping(**options)


# --- logs -----------------------------------------------------------------------------------------


def test_csv_log(problem, tmp_path):
    file = tmp_path / "log" / "metrics.csv"

    def make():
        return problem.trainer(callbacks=[train.CSVLogger(file)], out=tmp_path)

    make().fit(problem.loader(), validation(problem), epochs=2)
    history = make().fit(problem.loader(), validation(problem), epochs=3, resume=True)
    with open(file, newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    assert [float(row["val_loss"]) for row in rows] == history["val_loss"]
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert list(rows[0]) == history.keys


def test_tensorboard_log(problem, tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is missing"
    )
    trainer = problem.trainer(callbacks=[train.TensorBoard(tmp_path / "tb")])
    history = trainer.fit(problem.loader(), validation(problem), epochs=3)
    log = accumulator.EventAccumulator(str(tmp_path / "tb")).Reload()
    found = {}
    for tag in log.Tags()["tensors"]:
        events = log.Tensors(tag)
        assert [event.step for event in events] == [1, 2, 3]
        found[tag] = [event.tensor_proto.float_val[0] for event in events]
    assert found["loss/training"] == pytest.approx(history["loss"])
    assert found["accuracy/validation"] == pytest.approx(history["val_accuracy"])
    assert found["lr/training"] == pytest.approx(history["lr"])


def test_tensorboard_missing(problem, tmp_path, monkeypatch):
    import sys

    from chainrule.errors import MissingExtraError

    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    with pytest.raises(MissingExtraError, match=r"chainrule\[tensorboard\]"):
        problem.trainer(callbacks=[train.TensorBoard(tmp_path)]).fit(problem.loader())


def test_averaged_weights_as_a_callback(problem):
    """A user's own callback with a state: the average of the weights is in the checkpoint."""

    class Average(train.Callback):
        def __init__(self):
            self.sums, self.count = {}, 0

        def step_end(self, trainer):
            self.count += 1
            for name, value in trainer.model.state_dict().items():
                self.sums[name] = self.sums.get(name, 0) + value.numpy().astype(float)

        def state_dict(self):
            return vars(self)

        def load_state_dict(self, state):
            vars(self).update(state)

    own, other = Average(), Average()
    trainer = problem.trainer(callbacks=[own])
    trainer.fit(problem.loader(), epochs=1)
    resumed = problem.trainer(callbacks=[other])
    resumed._loader = problem.loader()
    resumed.load_state_dict(trainer.state_dict())
    assert other.count == 4 and other.sums.keys() == own.sums.keys()


# --- history --------------------------------------------------------------------------------------


def test_history_as_a_list_and_a_table(tmp_path):
    history = cr.History([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "val_r2": 0.5}])
    assert len(history) == 2 and history[0]["loss"] == 2.0 and history["loss"] == [2.0, 1.0]
    assert [record["epoch"] for record in history] == [1, 2]
    assert math.isnan(history["val_r2"][0]) and history["val_r2"][1] == 0.5
    assert repr(history) == "History(2 epochs; last: epoch=2, loss=1, val_r2=0.5)"
    assert repr(cr.History()) == "History(no epochs)"
    with pytest.raises(UnknownNameError, match="did you mean 'loss'"):
        history["los"]
    history.to_csv(tmp_path / "h.csv")
    assert (tmp_path / "h.csv").read_text() == "epoch,loss,val_r2\n1,2.0,\n2,1.0,0.5\n"
    history.append({"epoch": 3, "loss": math.nan})
    history.to_json(tmp_path / "h.json")
    assert json.loads((tmp_path / "h.json").read_text())[2] == {"epoch": 3, "loss": None}


def test_the_best_epoch():
    history = cr.History(
        [{"epoch": i + 1, "loss": v, "accuracy": v, "mine": v}
         for i, v in enumerate([3.0, 1.0, math.nan, 2.0])]
    )  # fmt: skip
    assert history.best("loss")["epoch"] == 2
    assert history.best("accuracy")["epoch"] == 1
    assert history.best("mine", higher=False)["epoch"] == 2
    with pytest.raises(ArgumentError, match="no number"):
        cr.History([{"epoch": 1, "loss": math.nan}]).best("loss")


def test_history_plots_itself(problem, tmp_path):
    history = problem.trainer().fit(problem.loader(), validation(problem), epochs=2)
    figure = history.plot(title="a run")
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy"]
    lines = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[0].lines}
    assert lines == {"training": history["loss"], "held out": history["val_loss"]}
    assert history.plot(tmp_path / "a" / "loss.png") is None
    assert (tmp_path / "a" / "loss.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ArgumentError, match="no epoch to plot"):
        cr.History().plot()


def test_a_model_in_training_mode_at_evaluation():
    """A loop of one's own that forgets eval(): one warning, not an error."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    optim.SGD(model.parameters())
    assert model.training
