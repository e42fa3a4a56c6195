"""The state of a model, by path: what `state_dict` gives and `load_state_dict` takes."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from chainrule import array as xp
from chainrule.array._core import check_device
from chainrule.dtypes import DType, as_dtype, is_float
from chainrule.errors import ArgumentTypeError, ChainruleError, StateDictError
from chainrule.graph import Value

if TYPE_CHECKING:
    from chainrule.nn.module import Module

# Models saved before batch norm counted its batches have no such entry.
_OPTIONAL = "num_batches_tracked"


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` did not find, and what it did not need."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return (
            f"IncompatibleKeys(missing_keys={self.missing_keys}, "
            f"unexpected_keys={self.unexpected_keys})"
        )

    __str__ = __repr__


def entries(module: Module, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, tensor) for each parameter and persistent buffer; one that is shared comes twice."""
    for path, part in module.named_modules(remove_duplicate=False):
        inside = f"{prefix}{path}." if path else prefix
        for name, parameter in part._parameters.items():
            if parameter is not None:
                yield inside + name, parameter
        for name, buffer in part._buffers.items():
            if buffer is not None and name not in part._non_persistent:
                yield inside + name, buffer


def load(
    module: Module, state_dict: Mapping[str, Any], *, strict: bool, assign: bool
) -> IncompatibleKeys:
    """Give the entries of a module new values: all of them, or on an error none."""
    if not isinstance(state_dict, Mapping):
        raise ArgumentTypeError(
            f"load_state_dict takes a dict of tensors by path, got {type(state_dict).__name__}."
        )
    own = dict(entries(module))
    missing = [key for key in own if key not in state_dict and not key.endswith(_OPTIONAL)]
    unexpected = [key for key in state_dict if key not in own]
    problems = _key_problems(missing, unexpected, list(own)) if strict else []
    values: dict[str, Any] = {}
    for key, tensor in own.items():
        if key not in state_dict:
            continue
        value = _as_value(key, state_dict[key])
        if value.shape != tensor.shape:
            problems.append(
                f"{key!r} has shape {value.shape} in the state and {tensor.shape} in the model"
            )
        elif not problems:
            values[key] = _cast(key, value, value.dtype if assign else tensor.dtype, tensor)
    if problems:
        raise StateDictError(
            f"this state does not fit into {type(module).__name__}, which stays as it was: "
            + "; ".join(problems)
            + "."
            + (_advice(missing, unexpected, own) if strict else "")
        )
    for key, value in values.items():
        own[key]._array = value._array
    return IncompatibleKeys(missing, unexpected)


def requested_dtype(args: tuple[Any, ...], dtype: Any, device: Any) -> DType | None:
    """The dtype that the arguments of `Module.to` ask for."""
    for argument in args:
        if isinstance(argument, Value):
            dtype = argument.dtype
        elif isinstance(argument, str) and not argument.startswith(("float", "int", "complex")):
            device = argument
        elif argument is not None and not isinstance(argument, bool):
            dtype = argument
    check_device(device)
    target = None if dtype is None else as_dtype(dtype)
    if target is not None and not is_float(target):
        raise ArgumentTypeError(
            f"a module computes in floats and cannot be cast to {target.name}; use cr.float32 or "
            "cr.float64."
        )
    return target


def cast(module: Module, dtype: DType) -> None:
    """Cast floating parameters and buffers, which stay the same objects, and their gradients."""
    for tensor in (*module.parameters(), *module.buffers()):
        if is_float(tensor.dtype):
            tensor._array = tensor._array.astype(dtype, copy=False)
            if tensor.grad is not None:
                tensor.grad = tensor.grad.astype(dtype, copy=False)


def _as_value(key: str, value: Any) -> Any:
    if isinstance(value, Value):
        return value
    try:
        return xp.asarray(value, copy=True)
    except (ChainruleError, TypeError, ValueError, RuntimeError) as error:
        raise ArgumentTypeError(
            f"the state's entry {key!r} is a {type(value).__name__} and no tensor: {error}"
        ) from None


def _cast(key: str, value: Any, dtype: Any, tensor: Any) -> Any:
    complex_to_real = value.dtype.kind == "c" and dtype.kind != "c"
    if complex_to_real or (tensor.requires_grad and not is_float(dtype)):
        raise StateDictError(
            f"the state's entry {key!r} is {value.dtype.name} and its place in the model is "
            f"{tensor.dtype.name}, which it cannot take."
        )
    return xp.astype(value.detach(), dtype, copy=False)


def _key_problems(missing: list[str], unexpected: list[str], known: list[str]) -> list[str]:
    problems = []
    if missing:
        problems.append(f"missing: {_listed(missing)}")
    if unexpected:
        named = []
        for key in unexpected[:8]:
            near = difflib.get_close_matches(key, missing or known, n=1, cutoff=0.6)
            named.append(f"{key!r}" + (f" (nearest: {near[0]!r})" if near else ""))
        more = f" and {len(unexpected) - 8} more" if len(unexpected) > 8 else ""
        problems.append(f"unexpected: {', '.join(named)}{more}")
    return problems


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
    return ", ".join(map(repr, keys[:8])) + more


def _advice(missing: list[str], unexpected: list[str], own: Mapping[str, Any]) -> str:
    """What to do about keys that differ: a prefix that wrappers add is recognised."""
    if not (missing or unexpected):
        return ""
    heads = {key.split(".")[0] + "." for key in unexpected if "." in key}
    for head in sorted(heads):
        if all(key.startswith(head) and key[len(head) :] in own for key in unexpected):
            return (
                f" All unexpected keys fit without the prefix {head!r}: "
                f"{{k.removeprefix({head!r}): v for k, v in state.items()}}."
            )
    return " Pass strict=False to load what fits by name."
