"""Limited-memory BFGS: a quasi-Newton method for losses without noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from chainrule import array as xp
from chainrule.autograd.modes import enable_grad, no_grad
from chainrule.errors import ArgumentError, DTypeError, TraceError
from chainrule.graph import state as graph_state
from chainrule.optim.domains import NON_NEGATIVE, POSITIVE_INTEGER, Domains
from chainrule.optim.line_search import Point, strong_wolfe
from chainrule.optim.optimizer import Group, Optimizer, Parameters
from chainrule.tensor import Tensor

Closure = Callable[[], Any]


def _largest(x: Tensor) -> float:
    return float(xp.max(xp.abs(x)))


def _dot(x: Tensor, y: Tensor) -> float:
    return float(xp.vecdot(x, y))


class LBFGS(Optimizer):
    """L-BFGS (Liu and Nocedal, 1989; Nocedal and Wright, "Numerical Optimization", algorithm 7.5).

    From the last changes of the parameters `s_i` and of the gradient `y_i` it builds the product of
    the inverse Hessian and the gradient, d = -H g, in two loops over the history, and moves along
    it:

        p <- p + t d,   t = lr, or by a line search to the strong Wolfe conditions

    One call of `step` makes up to `max_iter` such moves and calls the closure for each:

        def closure():
            opt.zero_grad()
            loss = loss_of(model)
            loss.backward()
            return loss
        opt.step(closure)

    Arguments:
        params: parameters or named parameters; groups are not offered.
        lr: length of the step along d, or where the line search begins.
        max_iter: moves in one step.
        max_eval: calls of the closure in one step. Default: 5/4 max_iter.
        tolerance_grad: stop when no derivative is larger.
        tolerance_change: stop when loss or parameters change less.
        history_size: how many changes are remembered.
        line_search_fn: None or "strong_wolfe".

    Raises:
        ArgumentError: if a hyperparameter is outside its domain, or there are several groups.
    """

    domains: ClassVar[Domains] = {
        "lr": NON_NEGATIVE, "max_iter": POSITIVE_INTEGER, "max_eval": POSITIVE_INTEGER,
        "tolerance_grad": NON_NEGATIVE, "tolerance_change": NON_NEGATIVE,
        "history_size": POSITIVE_INTEGER,
    }  # fmt: skip
    numbers: ClassVar[tuple[str, ...]] = (
        "func_evals",
        "n_iter",
        "t",
        "ro",
        "H_diag",
        "prev_loss",
        "al",
    )

    def __init__(
        self, params: Parameters, lr: float = 1, max_iter: int = 20, max_eval: int | None = None,
        tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9, history_size: int = 100,
        line_search_fn: str | None = None,
    ):  # fmt: skip
        defaults = dict(
            lr=lr, max_iter=max_iter, max_eval=max_iter * 5 // 4 if max_eval is None else max_eval,
            tolerance_grad=tolerance_grad, tolerance_change=tolerance_change,
            history_size=history_size, line_search_fn=line_search_fn,
        )  # fmt: skip
        super().__init__(params, defaults)

    def add_param_group(self, param_group: Group) -> None:
        if self.param_groups:
            raise ArgumentError(
                "LBFGS treats all parameters as one vector and takes one group only."
            )
        super().add_param_group(param_group)

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        if group["line_search_fn"] not in (None, "strong_wolfe"):
            raise ArgumentError(
                f"line_search_fn is None or 'strong_wolfe', but got {group['line_search_fn']!r}."
            )

    def _check_state(self, index: int, p: Tensor, remembered: dict[str, Any]) -> None:
        """The state is that of all parameters together; it is kept with the first."""

    # --- all parameters as one vector -------------------------------------------------------------

    @property
    def _params(self) -> list[Tensor]:
        return self.param_groups[0]["params"]

    def _gradient(self) -> Tensor:
        grads = [xp.zeros_like(p) if p.grad is None else p.grad for p in self._params]
        return xp.concat([xp.flatten(g) for g in grads])

    def _move(self, t: float, d: Tensor) -> None:
        """p <- p + t d"""
        start = 0
        for p in self._params:
            p.copy_(p + t * xp.reshape(d[start : start + p.size], p.shape))
            start += p.size

    def _evaluate(self, closure: Closure) -> tuple[Any, Tensor]:
        with enable_grad():
            loss = closure()
        return loss, self._gradient()

    # --- the step ---------------------------------------------------------------------------------

    def step(self, closure: Closure | None = None) -> Any:
        """Make up to `max_iter` moves; returns the loss before the first.

        Arguments:
            closure: computes loss and gradients anew and returns the loss; called many times.
        """
        if graph_state.tracer is not None:
            raise TraceError(
                "LBFGS cannot be part of a compiled function: it looks at the numbers of each "
                "evaluation to choose the next one. Compile what the closure computes, and call "
                "step(closure) outside."
            )
        if closure is None:
            raise DTypeError(
                "LBFGS evaluates the loss several times in a step: pass step() a function that "
                "calls zero_grad(), computes the loss, calls backward() on it and returns it."
            )
        group, state = self.param_groups[0], self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        with no_grad():
            first_loss, g = self._evaluate(closure)
            state["func_evals"] += 1
            if all(p.grad is None for p in self._params):
                self._warn_unreached()
            if not _largest(g) <= group["tolerance_grad"]:
                self._iterate(closure, group, state, float(first_loss), g)
        self._backwards = graph_state.backwards
        return first_loss

    def _iterate(
        self, closure: Closure, group: Group, state: dict[str, Any], loss: float, g: Tensor
    ) -> None:
        evaluations, tolerance = 1, group["tolerance_change"]
        for i in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            d = self._direction(state, g, group["history_size"])
            first = state["n_iter"] == 1
            t = group["lr"] * (min(1.0, 1 / float(xp.sum(xp.abs(g)))) if first else 1)
            state.update(d=d, t=t, prev_flat_grad=g, prev_loss=loss)
            slope = _dot(g, d)
            if slope > -tolerance:
                return
            last = i == group["max_iter"]
            before = Point(0.0, loss, g, slope)
            after, calls = self._advance(closure, group, before, t, d, last, evaluations)
            evaluations += calls
            state["func_evals"] += calls
            t, change, loss, g = after.t, after.loss - loss, after.loss, after.gradient
            state["t"] = t
            if (
                last
                or evaluations >= group["max_eval"]
                or _largest(g) <= group["tolerance_grad"]
                or _largest(t * d) <= tolerance
                or abs(change) < tolerance
            ):
                return

    def _direction(self, state: dict[str, Any], g: Tensor, history_size: int) -> Tensor:
        """d = -H g by the two-loop recursion, after the last move has entered the history."""
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1.0)
            return -g
        ys, ss, ro = state["old_dirs"], state["old_stps"], state["ro"]
        y, s = g - state["prev_flat_grad"], state["t"] * state["d"]
        curvature = _dot(y, s)
        if curvature > 1e-10:
            for memory, new in ((ys, y), (ss, s), (ro, 1 / curvature)):
                memory.append(new)
                del memory[:-history_size]
            state["H_diag"] = curvature / _dot(y, y)
        q, alphas = -g, []
        for y, s, r in zip(reversed(ys), reversed(ss), reversed(ro), strict=True):
            alphas.append(r * _dot(s, q))
            q = q - alphas[-1] * y
        d = state["H_diag"] * q
        for y, s, r, a in zip(ys, ss, ro, reversed(alphas), strict=True):
            d = d + (a - r * _dot(y, d)) * s
        return d

    def _advance(
        self, closure: Closure, group: Group, start: Point, t: float, d: Tensor, last: bool,
        evaluations: int,
    ) -> tuple[Point, int]:  # fmt: skip
        """Move along d; returns where that led, and the number of calls of the closure."""
        if group["line_search_fn"] is None:
            self._move(t, d)
            if last:  # what would be found out is not needed any more
                return start._replace(t=t), 0
            loss, g = self._evaluate(closure)
            return Point(t, float(loss), g, 0.0), 1
        values = [p.detach() for p in self._params]

        def evaluate(t: float) -> Point:
            self._move(t, d)
            loss, g = self._evaluate(closure)
            for p, value in zip(self._params, values, strict=True):
                p.copy_(value)
            return Point(t, float(loss), g, _dot(g, d))

        point, calls = strong_wolfe(
            evaluate, start, t, _largest(d), group["tolerance_change"],
            max_steps=group["max_eval"] - evaluations,
        )  # fmt: skip
        self._move(point.t, d)
        return point, calls
