"""`chainrule cache` lists the compiled programs and removes them."""

from __future__ import annotations

import os
import time

from command import refused, works

from chainrule.compiler.native import cache


def test_list_and_clear(tmp_path, monkeypatch):
    monkeypatch.setenv("CHAINRULE_CACHE", str(tmp_path / "programs"))
    assert "0 programs" in works("cache")
    cache.store("a" * 64, cache.Entry(b"{}", b"\0" * 5000, b""), "step of lenet")
    cache.store("b" * 64, cache.Entry(b"{}", b"\0" * (2 << 20), b""), "predict")
    then = time.time() - 7300
    os.utime(tmp_path / "programs" / f"{'a' * 64}.program", (then, then))
    lines = works("cache", "list").splitlines()
    assert lines[1].split() == ["predict", "2.0", "MiB", "0", "s", "b" * 12]
    assert lines[2].split() == ["step", "of", "lenet", "5.1", "KiB", "2", "h", "a" * 12]
    assert lines[-1].startswith("2 programs, 2.0 MiB of at most 512.0 MiB, in ")
    assert works("cache", "clear").startswith("removed 2 files, 2.0 MiB")
    assert cache.entries() == []


def test_turned_off(monkeypatch):
    monkeypatch.setenv("CHAINRULE_CACHE", "0")
    assert "CHAINRULE_CACHE=0" in works("cache")


def test_an_unknown_action():
    assert "unknown action 'clean'; did you mean 'clear'?" in refused("cache", "clean")
