"""A program to disk and back.

Object code, tables and constants are kept as they are. What runs in Python is written down: a host
call as the name of its primitive, its parameters and buffers; a check by its place in the traced
graph, which says what to raise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.compiler.ir import Graph, Op
from chainrule.compiler.native import cache
from chainrule.compiler.native.cache_keys import NotKept, decode, encode, primitives
from chainrule.compiler.native.host import calling, view_of
from chainrule.compiler.native.kernel import Buffer, Kernel
from chainrule.compiler.native.program import Program
from chainrule.compiler.native.runtime_tables import Tables
from chainrule.compiler.native.target import Target
from chainrule.errors import ChainruleError

if TYPE_CHECKING:
    from chainrule.compiler.plan import Plan


def keep(key: str, program: Program, planned: Plan, graph: Graph) -> None:
    """Keep a program; one that holds what cannot be written down is let be.

    Arguments:
        key: the digest of the traced graph.
        planned: what the program was made from.
        graph: the traced graph.
    """
    try:
        notes = {
            "hosts": [_host(planned.schedule.kernels[i], planned) for i in planned.hosts],
            "checks": _checks(planned, graph),
        }
    except NotKept:
        return
    tables = program.tables
    tables.notes |= notes
    entry = cache.Entry(
        tables.to_json().encode(), program.code or b"", program.constants_given.tobytes()
    )
    cache.store(key, entry, title(graph))


def title(graph: Graph) -> str:
    """What `chainrule cache` calls a program."""
    shapes = [f"{x.dtype.name}{list(x.shape)}" for x in graph.inputs[:2]]
    return f"{graph.name}: {len(graph.ops)} operations on {', '.join(shapes) or 'nothing'}"


def find(key: str, graph: Graph, target: Target) -> Program | None:
    """The program of a traced graph, if it was kept."""
    entry = cache.load(key)
    if entry is None:
        return None
    tables = Tables.from_json(entry.tables)
    hosts = [_call(record) for record in tables.notes["hosts"]]
    traced = list(_check_ops(graph))

    def failed(program: Program, number: int) -> Exception:
        position, buffer = tables.notes["checks"][number - 1]
        error = traced[position].params["refuse"](program.view(_buffer(buffer)))
        if isinstance(error, ChainruleError) and error.line is None:
            error.line = traced[position].line
        return error

    return Program(entry.code or None, tables, entry.constants, hosts, failed, target)


# --- checks ---------------------------------------------------------------------------------------


def _check_ops(graph: Graph) -> Iterator[Op]:
    """The checks of a graph and of the graphs in it, in order."""
    for op in graph.ops:
        if op.name == "check":
            yield op
        for value in op.params.values():
            if isinstance(value, Graph):
                yield from _check_ops(value)


def _checks(planned: Plan, graph: Graph) -> list[list[Any]]:
    """For each check of a program its place in the traced graph and the values that it looks at."""
    place = {id(op.params["refuse"]): n for n, op in enumerate(_check_ops(graph))}
    found = []
    for check in planned.checks:
        refuse = id(check.op.params["refuse"])
        if refuse not in place:
            raise NotKept("a check that is not in the graph")
        found.append([place[refuse], _record(view_of(check.reads[0], planned.buffers_of(check)))])
    return found


# --- host calls -----------------------------------------------------------------------------------


def _record(buffer: Buffer) -> list[Any]:
    dtype = np.dtype(buffer.dtype)  # type: ignore[arg-type]
    return [buffer.slot, buffer.offset, list(buffer.shape), list(buffer.strides), dtype.str]


def _buffer(record: Sequence[Any]) -> Buffer:
    slot, offset, shape, strides, dtype = record
    return Buffer(slot, offset, tuple(shape), tuple(strides), np.dtype(dtype))


def _host(kernel: Kernel, planned: Plan) -> dict[str, Any]:
    (op,) = kernel.ops
    if primitives().get(op.name) is not op.primitive:
        raise NotKept(f"the operation {op.name!r}")
    buffers = planned.buffers_of(kernel)
    params = {name: encode(x) for name, x in op.params.items()}
    for record in params.values():
        decode(record)  # a graph cannot be had back
    return {
        "primitive": op.name,
        "params": params,
        "inputs": [_record(view_of(x, buffers)) for x in op.inputs],
        "outputs": [_record(buffers[z]) for z in op.outputs],
        "line": op.line,
    }


def _call(record: dict[str, Any]) -> Callable[[Program], None]:
    return calling(
        primitives()[record["primitive"]],
        {name: decode(x) for name, x in record["params"].items()},
        [_buffer(x) for x in record["inputs"]],
        [_buffer(x) for x in record["outputs"]],
        record["line"],
    )
