"""Ctrl-C and SIGTERM: the step at hand is finished, the state is saved, the run goes on later."""

from __future__ import annotations

import signal
import threading

import numpy as np
import pytest
from small_problem import weights

from chainrule import data, train

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture(autouse=True)
def python_handles_ctrl_c():
    """As in a terminal, however the tests were started (in the background SIGINT is ignored)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def send_at(step, number=signal.SIGINT, times=1):
    def send(trainer):
        if trainer.step == step:
            for _ in range(times):
                signal.raise_signal(number)

    return train.Lambda(gradients=send)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("workers", [0, 2])
def test_the_step_is_finished_and_the_run_goes_on(problem, tmp_path, number, workers):
    whole = problem.trainer(callbacks=[train.Lambda()])
    whole.fit(problem.loader(num_workers=workers), epochs=3)
    stopped = problem.trainer(callbacks=[send_at(5, number)], out=tmp_path)
    handlers = [signal.getsignal(s) for s in SIGNALS]
    history = stopped.fit(problem.loader(num_workers=workers), epochs=3)
    assert [signal.getsignal(s) for s in SIGNALS] == handlers
    assert history.interrupted and not stopped.finished and history.stopped is None
    assert (stopped.epoch, stopped.step, len(history)) == (1, 6, 1)
    assert train.read_checkpoint(tmp_path)["step"] == 6
    resumed = problem.trainer(callbacks=[train.Lambda()], out=tmp_path)
    history = resumed.fit(problem.loader(num_workers=workers), epochs=3, resume=True)
    assert not history.interrupted and weights(resumed.model) == weights(whole.model)
    assert history["loss"] == whole.history["loss"]


def test_the_same_trainer_goes_on(problem):
    whole, parts = problem.trainer(), problem.trainer(callbacks=[send_at(5)])
    whole.fit(problem.loader(), epochs=3)
    loader = problem.loader(num_workers=2)
    assert parts.fit(loader, epochs=3).interrupted
    assert not parts.fit(loader, epochs=2).interrupted
    assert weights(parts.model) == weights(whole.model)


def test_a_second_ctrl_c_stops_at_once(problem, tmp_path):
    trainer = problem.trainer(callbacks=[send_at(5, times=2)], out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(problem.loader(), epochs=3)
    assert trainer.step == 5
    assert train.read_checkpoint(tmp_path)["epoch"] == 1  # that of the last epoch's end
    resumed = problem.trainer(callbacks=[train.Lambda()], out=tmp_path)
    resumed.fit(problem.loader(), epochs=3, resume=True)
    whole = problem.trainer()
    whole.fit(problem.loader(), epochs=3)
    assert weights(resumed.model) == weights(whole.model)


def test_ctrl_c_during_validation(problem, tmp_path):
    """The epoch's steps are done and kept; its validation is measured after resuming."""

    class Slow(data.Dataset):
        def __init__(self, send):
            self.send = send

        def __len__(self):
            return 50

        def __getitem__(self, i):
            if self.send and i == 30:
                signal.raise_signal(signal.SIGINT)
            return problem.inputs[i], problem.labels[i]

    def validation(send):
        return data.DataLoader(Slow(send), 10)

    stopped = problem.trainer(out=tmp_path)
    history = stopped.fit(problem.loader(), validation(True), epochs=2)
    assert history.interrupted and len(history) == 0
    assert (stopped.epoch, stopped.step) == (0, 4)
    resumed = problem.trainer(out=tmp_path)
    history = resumed.fit(problem.loader(), validation(False), epochs=2, resume=True)
    whole = problem.trainer()
    whole.fit(problem.loader(), validation(False), epochs=2)
    assert weights(resumed.model) == weights(whole.model)
    assert history["val_loss"] == whole.history["val_loss"] and history["steps"] == [4, 8]


def test_before_the_first_step(problem, tmp_path):
    early = train.Lambda(fit_start=lambda trainer: signal.raise_signal(signal.SIGINT))
    trainer = problem.trainer(callbacks=[early], out=tmp_path)
    assert trainer.fit(problem.loader(), epochs=2).interrupted and trainer.step == 0
    assert train.read_checkpoint(tmp_path)["step"] == 0


def test_an_ignored_signal_stays_ignored(problem):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    trainer = problem.trainer(callbacks=[send_at(2)])
    assert not trainer.fit(problem.loader(), epochs=1).interrupted and trainer.step == 4


def test_outside_the_main_thread(problem):
    """Python lets only the main thread handle signals; training works elsewhere all the same."""
    trainer = problem.trainer()
    thread = threading.Thread(target=trainer.fit, args=(problem.loader(),))
    thread.start()
    thread.join()
    assert trainer.finished and np.isfinite(trainer.history[-1]["loss"])
