"""Python's numbers while a function is traced: where they come from, and what becomes of them.

Learning rates, momenta and step counters are Python numbers in an optimiser's dictionaries, and may
be other numbers at the next call. While a function is traced, reading one gives a `Number`: it
remembers its source, and arithmetic on it is written down as steps of a small program that is run
by Python, with Python's own arithmetic, before each call. Where a number meets a tensor it becomes
an input of the graph. Where Python has to know it (an `if`, a shape), it is told the number of now,
and the program holds for as long as the answer stays the same: that is a guard.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.dtypes import DType
from chainrule.graph import Symbol, program_tracer, state, structure, told

Place = tuple[Any, Any]  # a dictionary and a key


class Source:
    """Where a number is found at a call.

    Attributes:
        read: `(arguments) -> number`; arguments are the numbers among the call's arguments.
        places: the dictionaries' entries that must all be that number (none for an argument).
        argument: its position among the arguments, or None.
        name: for messages.
    """

    __slots__ = ("_known", "argument", "item", "name", "places")

    def __init__(self, name: str, argument: int | None = None, item: int | None = None):
        self.name = name
        self.argument = argument
        self.item = item  # of a tuple, such as betas
        self.places: list[Place] = []
        self._known: set[tuple[int, Any]] = set()

    def add_place(self, numbers: Any, key: Any) -> None:
        if not self.has_place(numbers, key):
            self._known.add((id(numbers), key))
            self.places.append((numbers, key))

    def has_place(self, numbers: Any, key: Any) -> bool:
        return (id(numbers), key) in self._known


class Table:
    """All numbers of one trace: constants, sources and the steps between them.

    Attributes:
        values: what each is while the function is traced.
        steps: (function, operands, result) in order; operands and result are positions in `values`.
        sources: position -> Source.
        guards: position -> the value that must come out again, for the trace to hold.
    """

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.steps: list[tuple[Callable[..., Any], tuple[int, ...], int]] = []
        self.sources: dict[int, Source] = {}
        self.guards: dict[int, Any] = {}
        self._known: dict[Any, int] = {}

    def _new(self, value: Any) -> int:
        self.values.append(value)
        return len(self.values) - 1

    def constant(self, value: Any) -> int:
        """The position of a number that stays what it is."""
        key = ("constant", type(value), value)
        if key not in self._known:
            self._known[key] = self._new(value)
        return self._known[key]

    def source(self, source: Source, value: Any) -> int:
        """A number that is read at each call."""
        position = self._new(value)
        self.sources[position] = source
        return position

    def step(self, function: Callable[..., Any], operands: tuple[int, ...]) -> int:
        """The result of a function of numbers, at a call and now."""
        key = (function, operands)
        if key not in self._known:
            value = function(*[self.values[i] for i in operands])
            self._known[key] = self._new(value)
            self.steps.append((function, operands, self._known[key]))
        return self._known[key]

    def needed(self, wanted: set[int]) -> list[tuple[Callable[..., Any], tuple[int, ...], int]]:
        """The steps that lead to some positions, in order."""
        kept, seen = [], set(wanted)
        for step in reversed(self.steps):
            if step[2] in seen:
                seen.update(step[1])
                kept.append(step)
        return kept[::-1]


class Number(Symbol):
    """A number of a table, in the place of the Python number. See the head of this file."""

    __slots__ = ("_position", "_tracer")

    def __init__(self, tracer: Any, position: int):
        self._tracer = tracer
        self._position = position

    @property
    def value(self) -> Any:
        """The number now, which the trace then depends on."""
        numbers: Table = self._tracer.numbers
        value = numbers.values[self._position]
        self._tracer.depend(self._position)
        return value

    def tensor(self, dtype: DType) -> Any:
        return self._tracer.scalar(self._position, dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self.value, dtype=dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """NumPy's functions are told the number."""
        kwargs = {name: told(x) for name, x in kwargs.items()}
        return getattr(ufunc, method)(*[told(x) for x in inputs], **kwargs)

    def __float__(self) -> float:
        return float(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __bool__(self) -> bool:
        return bool(_result(self._tracer, operator.ne, self, 0))

    def __complex__(self) -> complex:
        return complex(self.value)

    def __hash__(self) -> int:
        return hash(self.value)

    def __repr__(self) -> str:
        return repr(self._tracer.numbers.values[self._position])

    def __format__(self, form: str) -> str:
        return format(self.value, form)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.value, name)  # is_integer(), bit_length(), real, ...


class IntNumber(Number):
    """A `Number` that is an integer."""

    __slots__ = ()
    kind = int

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        # isinstance(n, int) is what it would be eagerly.
        return int

    def __index__(self) -> int:
        return operator.index(self.value)


class FloatNumber(Number):
    """A `Number` that is a float."""

    __slots__ = ()
    kind = float

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        return float


def wrapped(tracer: Any, position: int) -> Any:
    """The number at a position of a tracer's table; what is no int or float, as it is."""
    value = tracer.numbers.values[position]
    if type(value) is int:
        return IntNumber(tracer, position)
    if type(value) is float:
        return FloatNumber(tracer, position)
    tracer.depend(position)  # a bool, a complex number: Python is told
    return value


def _result(tracer: Any, function: Callable[..., Any], *operands: Any) -> Any:
    table: Table = tracer.numbers
    positions = tuple(x._position if isinstance(x, Number) else table.constant(x) for x in operands)
    return wrapped(tracer, table.step(function, positions))


_PLAIN = (bool, int, float, Number)


def _binary(function: Callable[..., Any], reflected: bool = False) -> Callable[..., Any]:
    def method(self: Number, other: Any) -> Any:
        if not isinstance(other, _PLAIN):
            return NotImplemented  # a tensor takes the number as its operand
        operands = (other, self) if reflected else (self, other)
        return _result(self._tracer, function, *operands)

    return method


def _unary(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, *rest: _result(self._tracer, function, self, *rest)


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    _function = getattr(operator, _name)
    setattr(Number, f"__{_name}__", _binary(_function))
    setattr(Number, f"__r{_name}__", _binary(_function, reflected=True))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Number, f"__{_name}__", _binary(getattr(operator, _name)))
for _name in ("neg", "pos", "abs"):
    setattr(Number, f"__{_name}__", _unary(getattr(operator, _name)))
for _name, _function in (
    ("round", round), ("trunc", math.trunc), ("floor", math.floor), ("ceil", math.ceil),
):  # fmt: skip
    setattr(Number, f"__{_name}__", _unary(_function))


class NumberProgram:
    """The numbers of a trace, computed anew before each call where their sources have changed."""

    def __init__(self, table: Table, wanted: set[int]):
        self.guards = table.guards
        needed_here = wanted | set(table.guards)
        self.steps = table.needed(needed_here)
        used = {i for _, operands, _ in self.steps for i in operands} | needed_here
        self.sources = [(i, source) for i, source in table.sources.items() if i in used]
        self.values, self._first = list(table.values), list(table.values)
        self.now: list[Any] = []

    def holds(self, leaves: Sequence[Any]) -> bool:
        """Read the sources; whether what Python was told while tracing is still true."""
        now = []
        for position, source in self.sources:
            if source.argument is not None:
                value = leaves[source.argument]
            else:
                numbers, key = source.places[0]
                value = numbers[key]
                if len(source.places) > 1:
                    found = [numbers[key] for numbers, key in source.places]
                    if found.count(value) != len(found):
                        return False
                if source.item is not None:
                    value = value[source.item]
            if type(value) is not type(self.values[position]):
                return False
            now.append(value)
        return now == self.now or self._compute(now)

    def reason(self, leaves: Sequence[Any]) -> str | None:
        """Which number keeps the version from holding."""
        if self.holds(leaves):
            return None
        behind = {i for i, told in self.guards.items() if self.values[i] != told}
        for _, operands, result in reversed(self.steps):
            if result in behind:
                behind.update(operands)
        for position, source in self.sources:
            was, now = self._first[position], self.values[position]
            if position in behind and was != now:
                return f"{source.name} was {was!r} and is {now!r}, and Python asks what it is"
        return "equal numbers of an optimiser are no longer equal"

    def _compute(self, now: list[Any]) -> bool:
        values = self.values
        for (position, _), value in zip(self.sources, now, strict=True):
            values[position] = value
        for function, operands, position in self.steps:
            values[position] = function(*[values[i] for i in operands])
        holds = all([values[i] == told for i, told in self.guards.items()])
        self.now = now if holds else []
        return holds


# --- the dictionaries that numbers stand in -------------------------------------------------------


class NumberDict(dict[Any, Any]):
    """A dictionary whose numbers are inputs of compiled functions, never constants of them.

    An optimiser keeps its hyperparameters and its state in such. Other values in it (tensors,
    flags, names), and which keys there are, belong to its structure: a change counts
    `graph.structure.epoch` up.
    """

    __slots__ = ("made_by",)

    def __init__(self, *args: Any, **kwargs: Any):
        self.made_by = None if state.tracer is None else _token()
        super().__init__(*args, **kwargs)
        structure.epoch += 1

    def __setitem__(self, key: Any, value: Any) -> None:
        if state.tracer is not None and (tracer := _watcher(self)) is not None:
            tracer.write_item(self, key, value)
            return
        if (type(value) is not int and type(value) is not float) or not dict.__contains__(
            self, key
        ):
            structure.epoch += 1
        super().__setitem__(key, value)

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def __ior__(self, other: Any) -> NumberDict:
        self.update(other)
        return self

    def __delitem__(self, key: Any) -> None:
        self._refuse_removal()
        super().__delitem__(key)

    def pop(self, *args: Any) -> Any:
        self._refuse_removal()
        return super().pop(*args)

    def popitem(self) -> Any:
        self._refuse_removal()
        return super().popitem()

    def clear(self) -> None:
        self._refuse_removal()
        super().clear()

    def _refuse_removal(self) -> None:
        structure.epoch += 1
        if state.tracer is not None and (tracer := _watcher(self)) is not None:
            tracer.refuse("removing entries of an optimiser's dictionaries")

    def __copy__(self) -> NumberDict:
        return NumberDict(self)

    def __deepcopy__(self, memo: Any) -> NumberDict:
        import copy

        return NumberDict({copy.deepcopy(k, memo): copy.deepcopy(v, memo) for k, v in self.items()})


def _watcher(numbers: NumberDict) -> Any:
    """The tracer that has to know of an access to a dictionary, or None."""
    tracer = program_tracer()
    return tracer if tracer is not None and tracer.watches(numbers) else None


def _token() -> Any:
    """What tells dictionaries that are made in a trace from those that were there before."""
    return getattr(program_tracer(), "token", None)


def _reading(name: str) -> Callable[..., Any]:
    """A method of dict that asks the thread's tracer what the entries are."""
    plain = getattr(dict, name)

    def method(self: NumberDict, *args: Any) -> Any:
        if state.tracer is not None and (tracer := _watcher(self)) is not None:
            return getattr(tracer.items_of(self), name)(*args)
        return plain(self, *args)

    return method


def _read_item(self: NumberDict, key: Any) -> Any:
    if state.tracer is not None and (tracer := _watcher(self)) is not None:
        return tracer.read_item(self, key)
    return dict.__getitem__(self, key)


def _get(self: NumberDict, key: Any, default: Any = None) -> Any:
    return self[key] if key in self else default  # noqa: SIM401


# Put in place of dict's own while a function is traced: reading stays as fast as a dict's.
reading_methods: dict[str, Callable[..., Any]] = {
    name: _reading(name)
    for name in ("__contains__", "__iter__", "__len__", "items", "keys", "values", "copy")
}
reading_methods |= {"__getitem__": _read_item, "get": _get}


class StateDict(dict[Any, NumberDict]):
    """An optimiser's state: a `NumberDict` for each parameter, made when it is first asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.made_by = None if state.tracer is None else _token()

    def __missing__(self, key: Any) -> NumberDict:
        made = NumberDict()
        made.made_by = self.made_by  # an optimiser that was there before the trace keeps it
        dict.__setitem__(self, key, made)
        return made

    def __setitem__(self, key: Any, value: Any) -> None:
        structure.epoch += 1
        super().__setitem__(key, value if isinstance(value, NumberDict) else NumberDict(value))

    def __delitem__(self, key: Any) -> None:
        structure.epoch += 1
        super().__delitem__(key)

    def pop(self, *args: Any) -> Any:
        structure.epoch += 1
        return super().pop(*args)

    def clear(self) -> None:
        structure.epoch += 1
        super().clear()


def is_symbolic(value: Any) -> bool:
    """Whether a value of a dictionary is read as a `Number`."""
    return type(value) is int or type(value) is float


__all__ = [
    "Number", "NumberDict", "NumberProgram", "Source", "StateDict", "Table", "is_symbolic",
    "reading_methods", "wrapped",
]  # fmt: skip
