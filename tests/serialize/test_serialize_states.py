"""`save_state` and `load_state`."""

import math

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from serialize_tools import arrays, same_bits

import chainrule as cr
from chainrule.errors import ArgumentError, CheckpointError, DTypeError
from chainrule.serialize import load_state, save_state

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(),
)  # fmt: skip
LEAVES = st.one_of(SCALARS, arrays(), arrays(("float32", "int64")).map(cr.asarray))
TREES = st.recursive(
    LEAVES,
    lambda children: st.one_of(
        st.lists(children, max_size=4),
        st.lists(children, max_size=3).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers()), children, max_size=4),
    ),
    max_leaves=12,
)


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, np.ndarray | np.generic):
        assert same_bits(a, b)
    elif isinstance(a, cr.Tensor):
        assert same_bits(a.numpy(), b.numpy())
    elif isinstance(a, float):
        assert (math.isnan(a) and math.isnan(b)) or a.hex() == b.hex()
    else:
        assert a == b


@given(TREES)
@settings(max_examples=60, deadline=None)
def test_states_come_back_exactly(scratch, tree):
    save_state(tree, scratch / "state.ckpt")
    assert_same(load_state(scratch / "state.ckpt"), tree)


def test_a_state_of_everything(tmp_path):
    tree = {
        "state": {0: {"step": 3, "v": cr.ones(2)}, 1: {"step": 4}, "1": "a string key"},
        "groups": [{"betas": (0.9, 0.999), "lr": 1e-3, "name": None}],
        "random": np.array([2**64 - 1, 0], dtype=np.uint64),
        "history": [0.1, math.inf, -math.inf, math.nan, -0.0, 5e-324, 1e308],
        "big": 2**200, "text": 'ä"\\\n\ud800', "numbers": [np.int32(3), np.bool_(True)],
        "a/b": np.zeros(1), "a": {"b": np.ones(1)}, "__metadata__": np.zeros(2),
        "": {"": cr.zeros(())}, "\ud800": np.ones(3),
    }  # fmt: skip
    save_state(tree, tmp_path / "x.ckpt")
    assert_same(load_state(tmp_path / "x.ckpt"), tree)
    assert_same(load_state(tmp_path / "x.ckpt")["history"][2], -math.inf)
    save_state(tree, tmp_path / "y.ckpt")
    assert (tmp_path / "x.ckpt").read_bytes() == (tmp_path / "y.ckpt").read_bytes()


def test_arrays_of_a_loaded_state_can_be_written_to(tmp_path):
    save_state([np.zeros(3)], tmp_path / "x")
    (array,) = load_state(tmp_path / "x")
    array[0] = 1.0
    assert array.tolist() == [1.0, 0.0, 0.0]


def test_the_arrays_of_a_state_are_named_by_path(tmp_path):
    save_state({"model": {"0.weight": cr.ones(2)}, "l": [np.ones(1)]}, tmp_path / "x")
    assert set(safetensors.numpy.load_file(tmp_path / "x")) == {"/model/0.weight", "/l/0"}


class Odd:
    def __repr__(self):
        return "<odd>"


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"a": [1, Odd()]}, "the state at '/a/1' is <odd>, a Odd"),
        ({"a": {1, 2}}, "'/a' is .*a set"),
        ({"a": 1j}, "a complex"),
        ({"a": b"x"}, "a bytes"),
        ({"a": np.zeros(1, "complex64")}, "'/a' is complex64"),
        ({"a": {None: 1}}, "'/a' has the key None"),
        ({True: 1}, "has the key True"),
        ({1.5: 1}, "has the key 1.5"),
        (Odd(), "the state at '/'"),
    ],
)
def test_what_a_state_cannot_hold(tree, words, tmp_path):
    with pytest.raises(DTypeError, match=words):
        save_state(tree, tmp_path / "x.ckpt")
    assert not list(tmp_path.iterdir())


def test_a_state_that_contains_itself(tmp_path):
    tree = {}
    tree["again"] = tree
    with pytest.raises(ArgumentError, match="contains itself"):
        save_state(tree, tmp_path / "x.ckpt")


def test_weights_and_states_are_not_mistaken_for_each_other(tmp_path):
    cr.save({"x": cr.ones(1)}, tmp_path / "w.safetensors")
    save_state({"x": cr.ones(1)}, tmp_path / "s.ckpt")
    with pytest.raises(CheckpointError, match=r"holds weights .* read it with cr\.load"):
        load_state(tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"state of a run .*load_state"):
        cr.load(tmp_path / "s.ckpt")
    safetensors.numpy.save_file({"x": np.ones(1)}, tmp_path / "t.safetensors")
    with pytest.raises(CheckpointError, match="holds weights"):
        load_state(tmp_path / "t.safetensors")
