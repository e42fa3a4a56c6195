"""Hooks: functions that a module calls before and after it runs, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from chainrule.autograd.function import Function
from chainrule.autograd.hooks import HookDict, RemovableHandle
from chainrule.errors import ArgumentError, ArgumentTypeError
from chainrule.graph import Value, state, structure

if TYPE_CHECKING:
    from chainrule.nn.module import Module


class Hook(NamedTuple):
    """One registered function, and how it is to be called."""

    function: Callable[..., Any]
    with_kwargs: bool = False
    always_call: bool = False


class Hooks:
    """All hooks of one module."""

    def __init__(self) -> None:
        self.forward_pre = HookDict()
        self.forward = HookDict()
        self.backward_pre = HookDict()
        self.backward = HookDict()

    def keys(self) -> Iterator[int]:
        """The identities of all hooks, in order."""
        for hooks in (self.forward_pre, self.forward, self.backward_pre, self.backward):
            yield from hooks

    @staticmethod
    def add(hooks: HookDict, hook: Hook, prepend: bool) -> RemovableHandle:
        """Register a hook after the others, or before them."""
        handle = RemovableHandle(hooks)
        structure.epoch += 1
        others = list(hooks.items()) if prepend else []
        for key, _ in others:
            del hooks[key]
        hooks[handle.id] = hook
        hooks.update(others)
        return handle

    def call(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run `module.forward` with everything that hangs on it."""
        called: set[int] = set()
        try:
            for hook in list(self.forward_pre.values()):
                args, kwargs = _run_forward_pre(hook, module, args, kwargs)
            passage = None
            if (self.backward or self.backward_pre) and state.grad_enabled:
                passage = _Passage(module, self, len(args))
                args = passage.enter(args)
            result = module.forward(*args, **kwargs)
            for key, hook in list(self.forward.items()):
                called.add(key)
                result = _run_forward(hook, module, args, kwargs, result)
            return result if passage is None else passage.leave(result)
        except Exception:
            for key, hook in list(self.forward.items()):
                if hook.always_call and key not in called:
                    _run_forward(hook, module, args, kwargs, None)
            raise


class Hooked:
    """The methods of a module that register hooks."""

    _hooks: Hooks | None

    def _hooks_for(self) -> Hooks:
        if self._hooks is None:
            self._hooks = Hooks()
        return self._hooks

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args)` before `forward`; what it returns, if not None, replaces args.

        Arguments:
            prepend: call it before the hooks that are there.
            with_kwargs: call `hook(module, args, kwargs)`, which may return both.
        """
        return Hooks.add(self._hooks_for().forward_pre, Hook(hook, with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:  # fmt: skip
        """Call `hook(module, args, output)` after `forward`; what it returns replaces the output.

        Arguments:
            prepend: call it before the hooks that are there.
            with_kwargs: call `hook(module, args, kwargs, output)`.
            always_call: call it, with output None, also when `forward` raises.
        """
        made = Hook(hook, with_kwargs, always_call)
        return Hooks.add(self._hooks_for().forward, made, prepend)

    def register_full_backward_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, grad_output)` when dL/d(outputs) is known; it may return another."""
        return Hooks.add(self._hooks_for().backward_pre, Hook(hook), prepend)

    def register_full_backward_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, grad_input, grad_output)` when dL/d(inputs) is known.

        Both are tuples with None for what has no gradient; a tuple returned replaces grad_input.
        """
        return Hooks.add(self._hooks_for().backward, Hook(hook), prepend)


def _run_forward_pre(
    hook: Hook, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if hook.with_kwargs:
        replaced = hook.function(module, args, kwargs)
        if replaced is None:
            return args, kwargs
        if not (isinstance(replaced, tuple) and len(replaced) == 2):
            raise ArgumentTypeError(
                f"a forward pre-hook with kwargs returns None or (args, kwargs), but got "
                f"{type(replaced).__name__}."
            )
        return replaced
    replaced = hook.function(module, args)
    if replaced is None:
        return args, kwargs
    return (replaced if isinstance(replaced, tuple) else (replaced,)), kwargs


def _run_forward(
    hook: Hook, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
) -> Any:
    if hook.with_kwargs:
        replaced = hook.function(module, args, kwargs, result)
    else:
        replaced = hook.function(module, args, result)
    return result if replaced is None else replaced


class _Passage:
    """The gradients of one call of a module on their way back through it.

    Inputs and outputs pass through two identities, `_Exit` and `_Entrance`. Going back, the first
    sees all gradients of the outputs, the second all gradients of the inputs.
    """

    def __init__(self, module: Module, hooks: Hooks, n_inputs: int):
        self.module, self.hooks = module, hooks
        self.inputs: list[int] = []
        self.outputs: list[int] = []
        self.n_inputs, self.n_outputs = n_inputs, 0
        self.grad_output: tuple[Any, ...] | None = None

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.inputs = _requiring_grad(args)
        return _through(_Entrance, self, args, self.inputs)

    def leave(self, result: Any) -> Any:
        results = result if isinstance(result, tuple) else (result,)
        self.outputs, self.n_outputs = _requiring_grad(results), len(results)
        passed = _through(_Exit, self, results, self.outputs)
        if not isinstance(result, tuple):
            return passed[0]
        return passed if type(result) is tuple else type(result)(*passed)  # a named tuple

    def at_exit(self, gradients: tuple[Any, ...]) -> tuple[Any, ...]:
        """Show the gradients of the outputs to the pre-hooks, which may replace them."""
        grad_output = _spread(gradients, self.outputs, self.n_outputs)
        for hook in list(self.hooks.backward_pre.values()):
            replaced = hook.function(self.module, grad_output)
            if replaced is not None:
                grad_output = _as_many(replaced, self.n_outputs, "pre-hook", "grad_output")
        if self.inputs:
            self.grad_output = grad_output
        else:
            for hook in list(self.hooks.backward.values()):
                hook.function(self.module, (None,) * self.n_inputs, grad_output)
        return tuple(grad_output[i] for i in self.outputs)

    def at_entrance(self, gradients: tuple[Any, ...]) -> tuple[Any, ...]:
        """Show the gradients of the inputs to the hooks, which may replace them."""
        if self.grad_output is None:
            # A second derivative may reach the inputs without passing the outputs.
            return gradients
        grad_input = _spread(gradients, self.inputs, self.n_inputs)
        for hook in list(self.hooks.backward.values()):
            replaced = hook.function(self.module, grad_input, self.grad_output)
            if replaced is not None:
                grad_input = _as_many(replaced, self.n_inputs, "hook", "grad_input")
        self.grad_output = None
        return tuple(grad_input[i] for i in self.inputs)


def _requiring_grad(values: tuple[Any, ...]) -> list[int]:
    return [i for i, v in enumerate(values) if isinstance(v, Value) and v._node is not None]


def _through(
    identity: type[Function], passage: _Passage, values: tuple[Any, ...], chosen: list[int]
) -> tuple[Any, ...]:
    if not chosen:
        return values
    passed = iter(identity.apply(passage, *(values[i] for i in chosen)))
    return tuple(next(passed) if i in chosen else v for i, v in enumerate(values))


def _spread(gradients: tuple[Any, ...], chosen: list[int], n: int) -> tuple[Any, ...]:
    spread: list[Any] = [None] * n
    for i, g in zip(chosen, gradients, strict=True):
        spread[i] = g
    return tuple(spread)


def _as_many(replaced: Any, n: int, kind: str, what: str) -> tuple[Any, ...]:
    values = tuple(replaced) if isinstance(replaced, tuple | list) else (replaced,)
    if len(values) != n:
        raise ArgumentError(
            f"a full backward {kind} returned {len(values)} gradient(s) in place of {what}, which "
            f"has {n}; return None or a tuple of {n}."
        )
    return values


class _Entrance(Function):
    """The identity, before a module: shows its hooks the gradients of the inputs."""

    @staticmethod
    def forward(ctx: Any, passage: _Passage, *inputs: Any) -> Any:
        ctx.passage = passage
        return inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return (None, *ctx.passage.at_entrance(gradients))


class _Exit(Function):
    """The identity, after a module: shows its hooks the gradients of the outputs."""

    @staticmethod
    def forward(ctx: Any, passage: _Passage, *outputs: Any) -> Any:
        ctx.passage = passage
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return (None, *ctx.passage.at_exit(gradients))
