"""What the inputs of a graph are called, for people who read it: "images", "0.weight", "lr"."""

from __future__ import annotations

from collections.abc import Sequence

from chainrule.compiler.trace import Outside, Tracer


def name_inputs(tracer: Tracer, labels: Sequence[str]) -> None:
    """Name the tensors among the inputs of a trace.

    Arguments:
        labels: what the arguments' leaves are called.
    """
    names: dict[int, str] = {}
    things = [known.object for known in tracer.touched.values()]
    for thing in things:
        if hasattr(thing, "named_parameters"):
            for path, tensor in (*thing.named_parameters(), *thing.named_buffers()):
                names.setdefault(id(tensor), path)
    for thing in things:
        for tensor, entries in getattr(thing, "state", {}).items():
            known = tracer.items.get(id(entries))  # with the entries that were made just now
            for key, value in dict.items(entries if known is None else known[1]):
                names[id(value)] = f"{names.get(id(tensor), '')} {key}".strip()
    for books in tracer.inputs:
        if isinstance(books, Outside) and books.input is not None:
            books.input.value.name = _name(books, names, labels)


def _name(books: Outside, names: dict[int, str], labels: Sequence[str]) -> str:
    if books.place is None:
        return names.get(id(books.tensor), "")
    kind, what = books.place
    if kind == "argument":
        return str(labels[what])
    if kind == "random":
        return "random state"
    if kind == "grad":
        return f"gradient of {names.get(id(what.tensor), 'a tensor')}"
    return names.get(id(books.tensor), str(what))
