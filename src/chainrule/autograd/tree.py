"""Nested containers of tensors, taken apart and put together again.

A tree is a tensor (or what `asarray` makes one of), None, or a dict, list or tuple (named ones too)
of trees. A list or tuple of nothing but numbers is one array and no tree.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from chainrule.errors import ArgumentError

Rebuild = Callable[[Sequence[Any]], Any]


def flatten(tree: Any) -> tuple[list[Any], Rebuild]:
    """The leaves of a tree in order, and the function that builds the same tree of other leaves."""
    leaves: list[Any] = []
    build = _take_apart(tree, leaves)
    return leaves, lambda others: build(iter(others))


def _take_apart(tree: Any, leaves: list[Any]) -> Callable[[Iterator[Any]], Any]:
    """Append the leaves of `tree`; returns the function that builds it from other leaves."""
    kind = type(tree)
    if isinstance(tree, dict):
        parts = {key: _take_apart(value, leaves) for key, value in tree.items()}

        def build(others: Iterator[Any]) -> Any:
            built = copy.copy(tree)  # an ordered or a default dict stays one
            built.update((key, part(others)) for key, part in parts.items())
            return built

        return build
    if isinstance(tree, list | tuple) and not _is_numbers(tree):
        items = [_take_apart(item, leaves) for item in tree]
        if hasattr(kind, "_fields"):  # a named tuple takes its items one by one
            return lambda others: kind(*[item(others) for item in items])
        return lambda others: kind([item(others) for item in items])
    if tree is None:
        return lambda others: None
    leaves.append(tree)
    return next


def _is_numbers(items: Any) -> bool:
    """Whether a list or tuple holds nothing but numbers, which make it one array."""
    return len(items) > 0 and all(
        isinstance(item, bool | int | float | complex | np.generic)
        or (isinstance(item, list | tuple) and _is_numbers(item))
        for item in items
    )


def leaves_like(like: Any, tree: Any) -> list[Any]:
    """What stands in `tree` where `like` has its leaves; the two must be built alike.

    Raises:
        ArgumentError: if they are not.
    """
    if isinstance(like, dict):
        if isinstance(tree, dict) and tree.keys() == like.keys():
            return [leaf for key in like for leaf in leaves_like(like[key], tree[key])]
        raise ArgumentError(f"expected a dict with the keys {list(like)}, got {_described(tree)}.")
    if isinstance(like, list | tuple) and not _is_numbers(like):
        if isinstance(tree, list | tuple) and len(tree) == len(like):
            pairs = zip(like, tree, strict=True)
            return [leaf for one, other in pairs for leaf in leaves_like(one, other)]
        raise ArgumentError(f"expected {len(like)} items, got {_described(tree)}.")
    return [] if like is None else [tree]


def _described(tree: Any) -> str:
    if isinstance(tree, dict):
        return f"a dict with the keys {list(tree)}"
    size = f" of {len(tree)}" if isinstance(tree, list | tuple) else ""
    return f"{type(tree).__name__}{size}"


def transform(function: Callable[[Any], Any], tree: Any) -> Any:
    """The tree of `function(leaf)` for each leaf."""
    leaves, build = flatten(tree)
    return build([function(leaf) for leaf in leaves])
