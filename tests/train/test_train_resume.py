"""Runs that were killed go on as if they had not been; damaged checkpoints are refused."""

from __future__ import annotations

import pytest
from small_problem import weights

import chainrule as cr
from chainrule import data, nn, train
from chainrule.errors import (
    ArgumentError,
    CheckpointError,
)


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
