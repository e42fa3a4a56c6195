"""What a loop does with memory and time, and what it counts and reports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from looping import (
    B,
    H,
    W,
    X,
    cell,
    squashed,
)

import chainrule as cr
from chainrule.graph import observe


def applied(function: Any) -> list[tuple[str, Any]]:
    """(name, operations of the body) of what a function applies."""
    seen = []

    def note(primitive: Any, inputs: Any, outputs: Any, params: Any) -> None:
        body = params.get("body")
        seen.append((primitive.name, body and [op.name for op in body.ops]))

    with observe(note):
        function()
    return seen


def test_the_gradient_of_a_weight_is_one_product_behind_the_loop() -> None:
    w = W.detach().requires_grad_()
    loss = squashed(cr.scan(cell(w, B.detach()), H.detach(), X.detach()))
    back = applied(loss.backward)
    loops = [ops for name, ops in back if name == "scan"]
    assert len(loops) == 1
    assert loops[0].count("matmul") == 1  # g W, and not the product that gives dW
    assert [name for name, _ in back].count("matmul") == 1


def test_the_loop_back_reads_what_the_loop_saved() -> None:
    w = W.detach().requires_grad_()
    loss = squashed(cr.scan(cell(w, B.detach()), H.detach(), X.detach()))
    (ops,) = [ops for name, ops in applied(loss.backward) if name == "scan"]
    assert "tanh" not in ops
    loss = squashed(cr.scan(cell(w, B.detach()), H.detach(), X.detach(), checkpoint=3))
    loops = [ops for name, ops in applied(loss.backward) if name == "scan"]
    assert any("scan" in ops for ops in loops)  # each run of steps is computed again


def test_checkpoints_save_memory() -> None:
    x = cr.zeros((64, 8, 8))
    w = cr.zeros((8, 8), requires_grad=True)

    def saved(**how: Any) -> int:
        h, _ = cr.scan(lambda h, x: (cr.tanh(h @ w + x), None), x[0], x, **how)
        seen, size, todo = set(), 0, [h._node]
        while todo:
            node = todo.pop()
            if node is None or node in seen or not hasattr(node, "edges"):
                continue
            seen.add(node)
            size += sum(a.nbytes for a in node.outputs if isinstance(a, np.ndarray))
            todo += [e[0] for e in node.edges if e is not None]
        return size

    assert saved(checkpoint=8) < saved() / 3


def test_nothing_is_saved_where_nothing_is_recorded() -> None:
    with cr.no_grad():
        seen = []
        with observe(lambda p, i, outputs, params: seen.append((p.name, len(outputs)))):
            cr.scan(cell(W, B), H, X)
    assert ("scan", 2) in seen


def test_counts_operations() -> None:
    total = 0

    def count(primitive: Any, inputs: Any, outputs: Any, params: Any) -> None:
        nonlocal total
        total += primitive.flops(outputs, *inputs, **params)

    with cr.no_grad(), observe(count):
        cr.scan(lambda h, x: (h @ W + x, None), H, X)
    assert total == 7 * (2 * 2 * 3 * 3 + 2 * 3)


def test_a_nan_is_traced_into_the_loop() -> None:
    def step(c: Any, x: Any) -> Any:
        return cr.log(c) * x, None  # at step 1 of 1, at step 2 of 0

    line = step.__code__.co_firstlineno + 1
    with (
        cr.autograd.detect_anomaly(),
        pytest.raises(
            cr.errors.NonFiniteError,
            match=r"infinity was made by log .* at step 1 of a scan from x float32 \(\) from 0 to"
            rf" 0.*test_control_memory\.py:{line}\]",
        ),
    ):
        cr.scan(step, 1.0, cr.ones(4))
    with (
        cr.autograd.detect_anomaly(),
        pytest.raises(cr.errors.NonFiniteError, match=r"made by sqrt .* at step 0 of a while_loop"),
    ):
        cr.while_loop(lambda c: c < 1, lambda c: cr.cond(c < 0, cr.sqrt, cr.exp, c), -1.0)
