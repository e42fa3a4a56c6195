"""Programs on disk: whole or not used, one user's alone, bounded, safe among processes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from chainrule.compiler.ir import Graph, Op
from chainrule.compiler.native import cache, cache_keys
from chainrule.compiler.native.cache import Entry
from chainrule.compiler.native.target import host
from chainrule.errors import ArgumentError, ChainruleWarning
from chainrule.graph import Primitive, Spec
from chainrule.primitives.elementwise import add, exp, mul

KEY = "0123" * 16
ENTRY = Entry(b'{"steps": []}', bytes(range(256)) * 9, b"constants")

posix = pytest.mark.skipif(os.name == "nt", reason="owners and modes of POSIX")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CHAINRULE_CACHE", str(tmp_path / "programs"))
    monkeypatch.setattr(cache, "_warned", set())
    return tmp_path / "programs"


def file_of(place: Path, key: str = KEY) -> Path:
    return place / f"{key}.program"


def test_what_is_stored_is_loaded(place):
    assert cache.load(KEY) is None
    cache.store(KEY, ENTRY, "a step")
    assert cache.load(KEY) == ENTRY
    assert cache.load("f" * 64) is None
    (listed,) = cache.entries()
    assert (listed.path, listed.title) == (file_of(place), "a step")
    assert listed.size == file_of(place).stat().st_size
    assert cache.clear() == (1, listed.size)
    assert cache.load(KEY) is None


@posix
def test_folder_and_files_are_the_owners_alone(place):
    before = os.umask(0)
    try:
        cache.store(KEY, ENTRY, "a step")
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert stat.S_IMODE(file_of(place).stat().st_mode) == 0o600


def damaged(content: bytes, how: str) -> bytes:
    return {
        "cut": content[:-7],
        "empty": b"",
        "longer": content + b"x",
        "flipped": content[:-20] + bytes([content[-20] ^ 1]) + content[-19:],
        "header": content[:60] + b"{" + content[61:],
        "other format": b"\x7fELF" + content,
    }[how]


@pytest.mark.parametrize("how", ["cut", "empty", "longer", "flipped", "header", "other format"])
def test_damaged_entries_are_named_and_removed(place, how):
    cache.store(KEY, ENTRY, "a step")
    path = file_of(place)
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.warns(ChainruleWarning, match=f"{KEY}.*cannot be used.*compiled again"):
        assert cache.load(KEY) is None
    assert not path.exists()
    cache.store(KEY, ENTRY, "a step")
    assert cache.load(KEY) == ENTRY


def test_every_single_byte_counts(place):
    cache.store(KEY, Entry(b"{}", b"code", b""), "t")
    path = file_of(place)
    content = path.read_bytes()
    for i in range(len(content)):
        path.write_bytes(content[:i] + bytes([content[i] ^ 0x10]) + content[i + 1 :])
        path.chmod(0o600)
        with pytest.warns(ChainruleWarning):
            assert cache.load(KEY) is None


def test_an_entry_of_another_key_is_refused(place):
    cache.store(KEY, ENTRY, "a step")
    other = "f" * 64
    file_of(place).rename(file_of(place, other))
    with pytest.warns(ChainruleWarning, match="belongs to another program"):
        assert cache.load(other) is None


@posix
def test_a_file_that_others_may_write_is_refused(place):
    cache.store(KEY, ENTRY, "a step")
    file_of(place).chmod(0o666)
    with pytest.warns(ChainruleWarning, match="other users"):
        assert cache.load(KEY) is None


@posix
def test_links_and_pipes_are_refused(place, tmp_path):
    cache.store(KEY, ENTRY, "a step")
    real = tmp_path / "real"
    file_of(place).rename(real)
    file_of(place).symlink_to(real)
    with pytest.warns(ChainruleWarning, match="cannot be used"):
        assert cache.load(KEY) is None
    assert real.exists()
    os.mkfifo(file_of(place), 0o600)
    with pytest.warns(ChainruleWarning, match="no ordinary file"):
        assert cache.load(KEY) is None


@posix
def test_a_folder_that_others_may_write_is_not_used(place):
    cache.store(KEY, ENTRY, "a step")
    place.chmod(0o777)
    with pytest.warns(ChainruleWarning, match=rf"{place}.*other users.*chmod 700") as seen:
        assert cache.load(KEY) is None
        cache.store(KEY, ENTRY, "a step")
    assert len(seen) == 1
    place.chmod(0o700)
    assert cache.load(KEY) == ENTRY


@posix
def test_a_folder_of_somebody_else_is_not_used(place, monkeypatch):
    cache.store(KEY, ENTRY, "a step")
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.warns(ChainruleWarning, match="is not used"):
        assert cache.load(KEY) is None


def test_a_file_in_place_of_the_folder(place):
    place.write_text("a file")
    with pytest.warns(ChainruleWarning, match="is a file; set CHAINRULE_CACHE"):
        cache.store(KEY, ENTRY, "a step")
    assert place.read_text() == "a file"


def test_no_folder_to_write_to_is_said_once(place, monkeypatch):
    place.parent.joinpath("file").write_text("")
    monkeypatch.setenv("CHAINRULE_CACHE", str(place.parent / "file" / "programs"))
    with pytest.warns(ChainruleWarning, match="file/programs") as seen:
        cache.store(KEY, ENTRY, "a step")
        cache.store(KEY, ENTRY, "a step")
        assert cache.load(KEY) is None
    assert len(seen) == 1


def test_a_read_only_folder_is_said_once_and_read_from(place, monkeypatch):
    cache.store(KEY, ENTRY, "a step")

    def refuse(path: object) -> None:  # nothing is forbidden to the superuser, who may run this
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache, "atomic_path", refuse)
    monkeypatch.setattr(os, "utime", refuse)
    with pytest.warns(ChainruleWarning, match=f"{place}.*permission was denied") as seen:
        cache.store("f" * 64, ENTRY, "a step")
        cache.store("e" * 64, ENTRY, "a step")
    assert len(seen) == 1
    assert cache.load(KEY) == ENTRY


def test_a_full_disk_is_said_once(monkeypatch, place):
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(ChainruleWarning, match="disk is full"):
        cache.store(KEY, ENTRY, "a step")
    assert list(place.iterdir()) == []


def test_zero_turns_it_off(monkeypatch, place):
    monkeypatch.setenv("CHAINRULE_CACHE", "0")
    cache.store(KEY, ENTRY, "a step")
    assert cache.load(KEY) is None
    assert not place.exists()
    assert cache.entries() == []
    assert cache.clear() == (0, 0)


def test_the_longest_unused_go_first(place, monkeypatch):
    monkeypatch.setenv("CHAINRULE_CACHE_LIMIT", "1")
    big = Entry(b"{}", b"\0" * 300_000, b"")
    keys = [f"{n:064x}" for n in range(3)]
    for age, key in zip((300, 200, 100), keys, strict=True):
        cache.store(key, big, "a step")
        then = time.time() - age
        os.utime(file_of(place, key), (then, then))
    assert cache.load(keys[0]) == big  # now the last used
    cache.store("f" * 64, big, "a step")
    assert cache.load(keys[1]) is None
    assert all(cache.load(key) for key in (keys[0], keys[2], "f" * 64))


def test_abandoned_temporary_files_go(place):
    cache.store(KEY, ENTRY, "a step")
    old, new = place / ".x-abc.part.program", place / ".y-abc.part.program"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    cache.store(KEY, ENTRY, "a step")
    assert (old.exists(), new.exists()) == (False, True)
    assert len(cache.entries()) == 1


def test_a_limit_that_is_no_number(monkeypatch):
    monkeypatch.setenv("CHAINRULE_CACHE_LIMIT", "much")
    with pytest.raises(ArgumentError, match="CHAINRULE_CACHE_LIMIT='much'"):
        cache.limit()


def test_several_processes_write_and_read_at_once(place):
    """Each entry that is found is whole, and nobody is disturbed by another one's evictions."""
    body = """
        import sys, warnings
        from chainrule.compiler.native import cache
        warnings.simplefilter("error")
        seed = int(sys.argv[1])
        found = 0
        for n in range(60):
            key = f"{n // 2 * (seed + 1) % 7:064x}"  # each twice in succession
            entry = cache.Entry(b"{}", key.encode() * 3000, b"")
            got = cache.load(key)
            assert got is None or got == entry
            found += got is not None
            cache.store(key, entry, "a step")
        print(found > 0)
    """
    environment = os.environ | {"CHAINRULE_CACHE_LIMIT": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(body), str(seed)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(4)
    ]
    for process in running:
        out, error = process.communicate(timeout=120)
        assert (process.returncode, out, error) == (0, "True\n", "")
    assert not list(place.glob(".*"))


# --- keys -----------------------------------------------------------------------------------------


def graph(shape=(3, 4), dtype="float32", constant=2.0, primitive=mul, order=(0, 1)) -> Graph:
    g = Graph()
    x = g.input(Spec(shape, np.dtype(dtype)), "x")
    c = g.constant(np.full(shape, constant, dtype))
    pair = [x, c]
    y = g.add(primitive, *(pair[i] for i in order))
    g.outputs = [g.add(exp, y)]
    return g


def test_equal_graphs_have_equal_keys():
    assert cache_keys.graph_key(graph(), host()) == cache_keys.graph_key(graph(), host())


@pytest.mark.parametrize(
    "other",
    [
        graph(shape=(4, 3)),
        graph(dtype="float64"),
        graph(constant=3.0),
        graph(primitive=add),
        graph(order=(1, 0)),
    ],
)
def test_what_matters_changes_the_key(other):
    assert cache_keys.graph_key(graph(), host()) != cache_keys.graph_key(other, host())


def test_updates_options_targets_versions_and_sources_change_the_key(monkeypatch):
    plain = cache_keys.graph_key(graph(), host())
    updated = graph()
    updated.updates = {0: 0}
    keys = {plain, cache_keys.graph_key(updated, host())}
    keys.add(cache_keys.graph_key(graph(), host(), {"simplify": False}))
    keys.add(cache_keys.graph_key(graph(), host("plain")))
    versions = cache_keys._versions()
    monkeypatch.setattr(cache_keys, "_versions", lambda: ["0.0.0", *versions[1:]])
    keys.add(cache_keys.graph_key(graph(), host()))
    changed = [*versions[:-1], [*versions[-1][:-1], ["file.py", 1, 1]]]
    monkeypatch.setattr(cache_keys, "_versions", lambda: changed)
    keys.add(cache_keys.graph_key(graph(), host()))
    assert len(keys) == 6 - (host().name == "plain")


def with_params(**params) -> Graph:
    g = Graph()
    x = g.input(Spec((3, 4), np.dtype("float32")), "x")
    g.ops.append(Op(exp, (x,), params, (Spec((3, 4), np.dtype("float32")),)))
    g.outputs = [g.ops[0].output]
    return g


def test_parameters_that_are_equal_in_python_have_keys_of_their_own():
    different = [
        1, 1.0, True, "1", (1,), (1.0,), (True,), ((1,),), [1], np.int64(1), np.float32(1),
        (np.int64(1),), (np.uint64(1),), (np.array([1]),), 0.0, -0.0, (0.0,), (-0.0,), None, "None",
        np.dtype("float32"), np.dtype("float64"), slice(1), slice(1, None),
    ]  # fmt: skip
    keys = [cache_keys.graph_key(with_params(value=x), host()) for x in different]
    kept = [key for key in keys if key is not None]
    assert len(set(kept)) == len(kept) == len(different) - 1  # arrays are not kept
    again = [cache_keys.graph_key(with_params(value=x), host()) for x in different]
    assert again == keys


def test_who_else_refers_to_a_parameter_makes_no_difference():
    name = "".join(["a", "xis"])
    first = cache_keys.graph_key(with_params(value=(name, name)), host())
    shared = "axis"
    kept = [shared] * 3
    assert cache_keys.graph_key(with_params(value=(kept[0], shared)), host()) == first


def test_constants_that_repeat_themselves_have_keys_of_their_own():
    """Numbers are looked at once where a step is 0; where they lie is part of the key."""
    row, column = np.arange(3.0), np.arange(3.0)[:, None]
    keys = set()
    for array in (
        np.broadcast_to(row, (3, 3)), np.broadcast_to(column, (3, 3)), np.tile(row, (3, 1)),
        np.broadcast_to(row + 1, (3, 3)), np.broadcast_to(np.float64(0), (3, 3)), np.zeros((3, 3)),
    ):  # fmt: skip
        g = Graph()
        g.outputs = [g.add(exp, g.constant(array))]
        keys.add(cache_keys.graph_key(g, host()))
    assert len(keys) == 6


def test_users_operations_are_not_kept():
    mine = Primitive("exp", "exp(x)", ("x",), exp.infer, exp.evaluate)
    g = graph()
    g.outputs = [g.add(mine, g.outputs[0])]
    assert cache_keys.graph_key(g, host()) is None


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, -0.0, float("inf"), 0.1, "name", (1, (2.5, None)), [1, "a"], 1 + 2j,
        np.dtype("float32"), np.float32(0.1), np.int64(-3), slice(1, None, 2),
    ],
)  # fmt: skip
def test_parameters_are_written_down_exactly(value):
    again = cache_keys.decode(cache_keys.encode(value))
    assert type(again) is type(value)
    assert repr(again) == repr(value)


def test_nan_and_lookalikes_differ():
    assert np.isnan(cache_keys.decode(cache_keys.encode(float("nan"))))
    different = [1, 1.0, True, "1", np.float32(1), np.float64(1), (1,), [1]]
    assert len({repr(cache_keys.encode(x)) for x in different}) == len(different)
    with pytest.raises(cache_keys.NotKept):
        cache_keys.encode(lambda x: x)
