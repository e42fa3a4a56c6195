"""What every optimiser shares: groups of parameters, their state, the step, and checkpoints."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from chainrule import array as xp
from chainrule.autograd.modes import enable_grad, no_grad
from chainrule.compiler.numbers import NumberDict, StateDict
from chainrule.dtypes import is_float
from chainrule.errors import ArgumentError, ChainruleWarning, CheckpointError, DTypeError
from chainrule.graph import Value, program_tracer, state, structure
from chainrule.optim.domains import Domains, check, plain
from chainrule.tensor import Tensor

Group = dict[str, Any]
Parameters = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[Group]

# PyTorch's choices of how a step is carried out. None changes a result: taken, and not needed.
_HINTS = frozenset({"foreach", "fused", "capturable"})


class Optimizer:
    """Base of all optimisers.

    An optimiser names its hyperparameters with their defaults and writes down what one step does to
    one parameter:

        class SignDescent(optim.Optimizer):
            def __init__(self, params, lr=0.01):
                super().__init__(params, {"lr": lr})

            def update(self, p, g, state, group):
                p.copy_(p - group["lr"] * cr.sign(g))

    Arguments:
        params: parameters (leaf tensors), or pairs `(name, parameter)`, or dictionaries such as
            `{"params": [...], "lr": 0.1}`: groups with hyperparameters of their own.
        defaults: the hyperparameters of groups that do not name them.
        hints: PyTorch's `foreach`, `fused` and `capturable`, which change no result, are accepted
            and have no effect.

    Attributes:
        param_groups: one dictionary for each group, `params` and the hyperparameters in it. All are
            Python numbers and may be changed between steps.
        state: what is remembered about each parameter, a dictionary by parameter.
        defaults: as passed.

    Raises:
        ArgumentError: if there are no parameters, one comes twice or was computed from others, or a
            hyperparameter is outside its domain.
        DTypeError: if something else than a tensor is passed as a parameter.
    """

    domains: ClassVar[Domains] = {}
    """The domains of the hyperparameters; those not named here are not checked."""

    numbers: ClassVar[tuple[str, ...]] = ("step",)
    """Entries of a parameter's state that are Python numbers. PyTorch has tensors of shape ()."""

    def __init__(self, params: Parameters, defaults: dict[str, Any], **hints: Any):
        self._check_hints(hints)
        self.defaults = {name: plain(value) for name, value in defaults.items()}
        self.state: Mapping[Any, dict[str, Any]] = StateDict()
        self.param_groups: list[Group] = []
        self._backwards = state.backwards
        self._warned = False
        for group in _as_groups(type(self).__name__, params):
            self.add_param_group(group)

    def _check_hints(self, hints: dict[str, Any]) -> None:
        if hints.pop("differentiable", False):
            raise ArgumentError(
                f"{type(self).__name__} cannot record its own steps (differentiable=True); write "
                "the update in tensor operations and differentiate that, with cr.grad."
            )
        if unknown := sorted(hints.keys() - _HINTS):
            raise TypeError(
                f"{type(self).__name__}() got an unexpected keyword argument {unknown[0]!r}"
            )

    # --- groups -----------------------------------------------------------------------------------

    def add_param_group(self, param_group: Group) -> None:
        """Take in more parameters, with hyperparameters of their own.

        Arguments:
            param_group: `{"params": parameters, ...}`; `defaults` fill in what it does not name.
        """
        owner = type(self).__name__
        if not isinstance(param_group, dict) or "params" not in param_group:
            raise ArgumentError(
                "a parameter group is a dictionary with the entry 'params', but got "
                f"{param_group!r:.80}."
            )
        given = {name: plain(v) for name, v in param_group.items() if name != "params"}
        names, params = _names_and_tensors(owner, param_group["params"])
        group: Group = NumberDict({"params": params, **self.defaults, **given})
        if names:
            group["param_names"] = names
        if self.param_groups and ("param_names" in self.param_groups[0]) != bool(names):
            raise ArgumentError(
                "either all parameters of an optimiser have names or none; pass named_parameters() "
                "everywhere, or parameters() everywhere."
            )
        self._check_group(group)
        seen = {id(p) for other in self.param_groups for p in other["params"]}
        for i, p in enumerate(params):
            if id(p) in seen:
                raise ArgumentError(
                    f"params[{i}], of shape {p.shape}, was given to {owner} before; give each "
                    "parameter once, in one group."
                )
            seen.add(id(p))
        self.param_groups.append(group)

    def _structure(self) -> Iterator[Any]:
        """Which groups, parameters and states there are: what a compiled step depends on."""
        for group in self.param_groups:
            yield group
            yield from group["params"]
        yield self.state

    def _check_group(self, group: Group) -> None:
        """Refuse hyperparameters outside their domains."""
        for name, domain in self.domains.items():
            check(type(self).__name__, name, group[name], domain)

    # --- the step ---------------------------------------------------------------------------------

    def update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group) -> None:
        """Change the parameter `p`, whose gradient is `g`, and what `state` remembers about it."""
        raise NotImplementedError(f"{type(self).__name__} does not define update().")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient.

        Arguments:
            closure: computes the loss and its gradients anew (zero_grad, forward, backward) and
                returns the loss. Called once, before the step.

        Returns:
            What the closure returned; None without one.
        """
        update = self.update
        if state.tracer is not None and (tracer := program_tracer()) is not None:
            tracer.touch(self)
            if tracer is state.tracer:
                update = tracer.updates(self)
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        reached = False
        with no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if (g := p.grad) is not None:
                        reached = True
                        update(p, -g if group.get("maximize") else g, self.state[p], group)
        if not reached:
            self._warn_unreached()
        self._backwards = state.backwards
        return loss

    def _warn_unreached(self) -> None:
        if state.backwards == self._backwards or self._warned:
            return
        self._warned = True
        count = sum(len(group["params"]) for group in self.param_groups)
        warnings.warn(
            f"backward() reached none of the {count} parameters of this {type(self).__name__}, "
            "so the step changed nothing. Was the optimiser made for another model, are all "
            "parameters frozen, or was zero_grad() called between backward() and step()?",
            ChainruleWarning,
            stacklevel=3,
        )

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or set them to zero if not `set_to_none`."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    p.grad = xp.zeros_like(p.grad)

    # --- checkpoints ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The state as a dictionary, in PyTorch's layout.

        `{"state": {0: {...}, ...}, "param_groups": [{"lr": ..., "params": [0, ...]}, ...]}`:
        parameters are numbered in the order of the groups. The values do not change when the
        optimiser goes on.
        """
        index: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            numbered = [index.setdefault(id(p), len(index)) for p in group["params"]]
            groups.append({**{k: v for k, v in group.items() if k != "params"}, "params": numbered})
        kept = {
            index[id(p)]: {name: _detached(value) for name, value in remembered.items()}
            for p, remembered in self.state.items()
            if remembered
        }
        return {"state": kept, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave: one's own, or a PyTorch optimiser's.

        Arrays take the dtypes of their parameters, hyperparameters the values they had.

        Raises:
            CheckpointError: if the state is of another optimiser or of other parameters.
        """
        saved = [dict(group) for group in state_dict["param_groups"]]
        sizes = [len(group["params"]) for group in self.param_groups]
        if (given := [len(group["params"]) for group in saved]) != sizes:
            raise CheckpointError(
                f"the state is of groups with {given} parameters, but this {type(self).__name__} "
                f"has groups with {sizes}; make the optimiser as it was, with the same model."
            )
        groups = [
            self._restored_group(i, new, old)
            for i, (new, old) in enumerate(zip(saved, self.param_groups, strict=True))
        ]
        params: dict[Any, Tensor] = {}
        for new, old in zip(saved, self.param_groups, strict=True):
            params.update(zip(new["params"], old["params"], strict=True))
        states = StateDict()
        for index, remembered in state_dict["state"].items():
            if index not in params:
                raise CheckpointError(f"the state has an entry for parameter {index}, in no group.")
            p = params[index]
            states[p] = {name: self._restored(value, p, name) for name, value in remembered.items()}
            self._check_state(index, p, states[p])
        self.param_groups, self.state = groups, states
        structure.epoch += 1

    def _restored_group(self, position: int, saved: Group, current: Group) -> Group:
        group: Group = NumberDict({name: plain(value) for name, value in saved.items()})
        # Switches were added to PyTorch's optimisers over time; older states do not have them.
        for name, value in self.defaults.items():
            if isinstance(value, bool):
                group.setdefault(name, value)
        if missing := sorted(self.defaults.keys() - group.keys()):
            raise CheckpointError(
                f"group {position} of the state has no {', '.join(missing)}; is it the state of "
                f"another optimiser than {type(self).__name__}?"
            )
        self._check_group(group)
        group["params"] = current["params"]
        if "param_names" in current and "param_names" not in saved:
            group["param_names"] = current["param_names"]
        return group

    def _restored(self, value: Any, p: Tensor, name: str) -> Any:
        """An entry of a saved state in our form."""
        if isinstance(value, list | tuple):
            return [self._restored(v, p, name) for v in value]
        if name in self.numbers:
            number = np.asarray(value).item() if hasattr(value, "__array__") else value
            return int(number) if name == "step" else number
        if not hasattr(value, "__array__"):
            return value
        tensor = xp.tensor(value)
        return xp.astype(tensor, p.dtype, copy=False) if is_float(p.dtype) else tensor

    def _check_state(self, index: int, p: Tensor, remembered: dict[str, Any]) -> None:
        for name, value in remembered.items():
            if isinstance(value, Value) and value.shape != p.shape:
                raise CheckpointError(
                    f"{name!r} of parameter {index} has shape {value.shape} in the state, but the "
                    f"parameter has shape {p.shape}; is the model the same?"
                )

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {k}: {group[k]}" for k in sorted(group) if k != "params"]
        return "\n".join([*lines, ")"])


def _as_groups(owner: str, params: Any) -> list[Group]:
    if isinstance(params, Value):
        raise DTypeError(f"{owner} takes a list of parameters, but got one tensor; write [tensor].")
    if isinstance(params, Mapping) or not isinstance(params, Iterable):
        hint = " Pass model.parameters()." if hasattr(params, "parameters") else (
            " Call it: model.parameters()." if callable(params) else ""
        )  # fmt: skip
        raise DTypeError(
            f"{owner} takes parameters, such as model.parameters(), or a list of groups, but got a "
            f"{type(params).__name__}.{hint}"
        )
    _refuse_set(params)
    given = list(params)
    if not given:
        raise ArgumentError(
            f"{owner} got no parameters. Has the model none, or was a generator such as "
            "model.parameters() used up before? Then pass list(model.parameters())."
        )
    return given if isinstance(given[0], dict) else [{"params": given}]


def _refuse_set(params: Any) -> None:
    if isinstance(params, set | frozenset):
        raise DTypeError(
            "a set of parameters has no fixed order, and the state is kept by order; pass a list."
        )


def _names_and_tensors(owner: str, params: Any) -> tuple[list[str], list[Tensor]]:
    _refuse_set(params)
    entries = [params] if isinstance(params, Value) else list(params)
    named = [entry for entry in entries if isinstance(entry, tuple)]
    if named and len(named) != len(entries):
        raise ArgumentError(
            f"{owner} got parameters with names and others without; name all of them or none."
        )
    tensors: list[Any] = [entry[1] for entry in named] if named else entries
    for i, p in enumerate(tensors):
        if not isinstance(p, Tensor):
            raise DTypeError(f"{owner} optimises tensors, but params[{i}] is a {type(p).__name__}.")
        if not p.is_leaf:
            raise ArgumentError(
                f"params[{i}], of shape {p.shape}, was computed from other tensors, and an "
                "optimiser changes leaves only; pass the tensors that it was computed from, or "
                "make a leaf of its value: p.detach().requires_grad_()."
            )
    return [entry[0] for entry in named], tensors


def _detached(value: Any) -> Any:
    """A value that does not change when the optimiser goes on."""
    if isinstance(value, list):
        return [_detached(v) for v in value]
    return value.detach() if isinstance(value, Tensor) else value
