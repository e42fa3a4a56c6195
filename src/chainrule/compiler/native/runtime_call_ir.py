"""The usual call in LLVM IR: see `runtime_call`, which has the layout of its record."""

from __future__ import annotations

from collections.abc import Callable

from chainrule.compiler.native.runtime_call import EQUAL, KINDS, LISTS, NUMBER, PYTHON, RECORD, ROWS
from chainrule.compiler.native.runtime_objects import CONTIGUOUS, Layout
from chainrule.compiler.native.runtime_records import Runtime
from chainrule.compiler.native.target import Target
from chainrule.compiler.native.text import Int, Module, Reg


class _Writer(Runtime):
    """A function that goes through the record."""

    def __init__(self, module: Module, layout: Layout, name: str, returns: str = "i64"):
        super().__init__(module, name, "ptr %record, ptr %args", returns)
        self.layout = layout
        self.record, self.no = self.arg("record"), self.label("no")

    def python(self, name: str, *arguments: Reg) -> Reg:
        """Call a function of CPython's."""
        returns, *kinds = PYTHON[name]
        self.module.declare(name, returns, kinds)
        text = f"call {returns} @{name}({', '.join(map(str, arguments))})"
        if returns == "void":
            self.do(text)
            return Reg("", returns)
        return self.value(returns, text)

    def of(self, name: str, type: str = "ptr") -> Reg:
        """A field of the record."""
        return self.get(self.record, RECORD[name], type)

    def need(self, condition: Reg) -> None:
        """Go on if it holds, else to `no`."""
        on = self.label("on")
        self.branch(condition, on, self.no)
        self.start(on)

    def same(self, x: Reg, y: Int | Reg) -> Reg:
        return self.icmp("eq", x, y)

    def is_null(self, x: Reg) -> Reg:
        return self.value("i1", f"icmp eq {x}, null")

    def rows(self, name: str) -> tuple[Reg, Reg]:
        """A list of the record: where it begins, and how many rows it has."""
        return self.get(self.record, LISTS[name], "ptr"), self.get(self.record, LISTS[name] + 8)

    def row(self, name: str, base: Reg, index: Reg) -> Callable[..., Reg]:
        """What reads the fields of one row."""
        fields = ROWS[name]
        at = self.at(base, self.mul(index, 8 * len(fields)), "i8")
        return lambda field, type="ptr": self.get(at, 8 * fields.index(field), type)

    def item(self, position: Reg) -> Reg:
        """A number of the numbers' list."""
        return self.python("PyList_GetItem", self.of("values"), position)

    def truth(self, clear: bool = False) -> str:
        """End a function that says 1, or 0 from wherever it went to `no`."""
        self.leave(1)
        self.start(self.no)
        if clear:  # what went wrong is met again, and said, on the way through Python
            self.python("PyErr_Clear")
        self.leave(0)
        return self.end()

    def passes(self, name: str) -> Reg:
        """Whether another such function says 1."""
        result = self.value("i64", f"call i64 @{name}({self.record}, {self.arg('args')})")
        return self.icmp("ne", result, 0)


def usual(target: Target, layout: Layout) -> str:
    """The text of the module: it exports `usual`."""
    module = Module(target)
    for write in (_checks, _modes, _arguments, _words, _entries, _contents, _numbers, _compute):
        write(module, layout)
    for write in (_outputs, _ready, _run, _hand_out, _usual, _export):
        write(module, layout)
    return module.text()


# --- what must be as it was -----------------------------------------------------------------------


def _checks(module: Module, layout: Layout) -> None:
    """Ask those checks that only Python can make; their errors are the call's."""
    f = _Writer(module, layout, "checks")
    base, count = f.rows("checks")
    with f.loop(0, count) as i:
        answer = f.python("PyObject_CallNoArgs", f.row("checks", base, i.index)("method"))
        f.need(f.icmp("ne", answer, Reg("null", "ptr")))
        f.python("Py_DecRef", answer)
        f.need(f.same(answer, f.of("true")))
    f.truth()


def _modes(module: Module, layout: Layout) -> None:
    """Attributes that differ from thread to thread."""
    f = _Writer(module, layout, "modes")
    base, count = f.rows("modes")
    with f.loop(0, count) as i:
        row = f.row("modes", base, i.index)
        found = f.python("PyObject_GetAttr", row("object"), row("name"))
        f.need(f.icmp("ne", found, Reg("null", "ptr")))
        f.python("Py_DecRef", found)
        f.need(f.same(found, row("expected")))
    f.truth()


def _arguments(module: Module, layout: Layout) -> None:
    """Tensors, or NumPy's arrays, of the right shapes; the program's table gets their addresses."""
    f = _Writer(module, layout, "arguments")
    base, count = f.rows("arguments")
    held = f.value("ptr", "alloca ptr")
    with f.loop(0, count) as i:
        row = f.row("arguments", base, i.index)
        x = f.load(f.at(f.arg("args"), i.index, "ptr"), "ptr")
        kind, needs = f.get(x, layout.kind, "ptr"), row("needs", "i64")
        tensor, other, plain, ready = map(f.label, ("tensor", "other", "plain", "ready"))
        number, array, done = map(f.label, ("number", "array", "done"))
        f.branch(f.same(row("ndim", "i64"), NUMBER - (1 << 64)), number, array)
        f.start(number)
        f.need(f.same(kind, row("dtype")))
        f.jump(done)
        f.start(array)
        f.branch(f.same(kind, f.of("tensor")), tensor, other)
        f.start(other)
        f.test(f.same(kind, f.of("ndarray")), plain)
        subtype = f.python("PyType_IsSubtype", kind, f.of("value"))
        f.branch(f.icmp("ne", subtype, Reg("0", "i32")), tensor, f.no)
        f.start(plain)
        f.need(f.same(needs, 0))
        f.store(x, held)
        f.jump(ready)
        f.start(tensor)
        has = f.icmp("ne", f.get(x, layout.node, "ptr"), f.of("none"))
        f.need(f.same(f.convert("zext", has, "i64"), needs))
        captured, known = f.rows("captured")
        with f.loop(0, known) as k:
            f.need(f.icmp("ne", f.load(f.at(captured, k.index, "ptr"), "ptr"), x))
        f.store(f.get(x, layout.array, "ptr"), held)
        f.jump(ready)
        f.start(ready)
        _array(f, f.load(held, "ptr"), row)
        f.jump(done)
        f.start(done)
    f.truth()


def _array(f: _Writer, array: Reg, row: Callable[..., Reg]) -> None:
    layout = f.layout
    f.need(f.same(f.get(array, layout.dtype, "ptr"), row("dtype")))
    ndim = row("ndim", "i64")
    f.need(f.same(f.convert("zext", f.get(array, layout.ndim, "i32"), "i64"), ndim))
    flags = f.op("and", f.get(array, layout.flags, "i32"), Reg(str(CONTIGUOUS), "i32"))
    f.need(f.same(flags, Reg(str(CONTIGUOUS), "i32")))
    sizes, wanted = f.get(array, layout.shape, "ptr"), row("shape")
    with f.loop(0, ndim) as axis:
        size = f.load(f.at(sizes, axis.index, "i64"), "i64")
        f.need(f.same(size, f.load(f.at(wanted, axis.index, "i64"), "i64")))
    entry = row("table")
    with f.when(f.icmp("ne", entry, Reg("null", "ptr"))):
        f.store(f.get(array, layout.data, "ptr"), entry)


def _words(module: Module, layout: Layout) -> None:
    """Words of memory."""
    f = _Writer(module, layout, "words")
    base, count = f.rows("words")
    with f.loop(0, count) as i:
        row = f.row("words", base, i.index)
        now = f.op("and", f.load(row("address"), "i64"), row("mask", "i64"))
        f.need(f.same(now, row("expected", "i64")))
    f.truth()


def _entries(module: Module, layout: Layout) -> None:
    """Entries of dictionaries, or that there is none."""
    f = _Writer(module, layout, "entries")
    base, count = f.rows("entries")
    with f.loop(0, count) as i:
        row = f.row("entries", base, i.index)
        found = f.python("PyDict_GetItemWithError", row("dict"), row("key"))
        f.need(f.same(found, row("expected")))
    f.truth()


def _contents(module: Module, layout: Layout) -> None:
    """What lists and dictionaries hold, in order; a dictionary's keys and values by turns."""
    f = _Writer(module, layout, "contents")
    base, count = f.rows("contents")
    at, key, value = (f.value("ptr", f"alloca {t}") for t in ("i64", "ptr", "ptr"))
    with f.loop(0, count) as i:
        row = f.row("contents", base, i.index)
        held, size, expected = row("object"), row("count", "i64"), row("expected")
        dictionary, listed, done = map(f.label, ("dictionary", "listed", "done"))
        f.test(f.icmp("ne", row("dict", "i64"), 0), dictionary, listed)
        f.start(listed)
        f.need(f.same(f.python("PyList_Size", held), size))
        with f.loop(0, size) as k:
            item = f.python("PyList_GetItem", held, k.index)
            f.need(f.same(item, f.load(f.at(expected, k.index, "ptr"), "ptr")))
        f.jump(done)
        f.start(dictionary)
        f.need(f.same(f.python("PyDict_Size", held), size))
        f.store(Reg("0", "i64"), at)
        with f.loop(0, size) as k:
            f.need(f.icmp("ne", f.python("PyDict_Next", held, at, key, value), Reg("0", "i32")))
            pair = f.at(expected, f.mul(k.index, 2), "ptr")
            f.need(f.same(f.load(key, "ptr"), f.load(pair, "ptr")))
            f.need(f.same(f.load(value, "ptr"), f.load(f.at(pair, 1, "ptr"), "ptr")))
        f.jump(done)
        f.start(done)
    f.truth()


# --- numbers --------------------------------------------------------------------------------------


def _numbers(module: Module, layout: Layout) -> None:
    """Read the numbers' sources. Where one has changed, `dirty` says so until all is computed."""
    f = _Writer(module, layout, "numbers")
    base, count = f.rows("given")
    with f.loop(0, count) as i:
        row = f.row("given", base, i.index)
        now = f.load(f.at(f.arg("args"), row("argument", "i64"), "ptr"), "ptr")
        position = row("position", "i64")
        with f.when(f.icmp("ne", now, f.item(position))):
            _set(f, position, now)
    base, count = f.rows("sources")
    with f.loop(0, count) as i:
        row = f.row("sources", base, i.index)
        now = f.python("PyDict_GetItemWithError", row("dict"), row("key"))
        f.need(f.icmp("ne", now, Reg("null", "ptr")))
        position = row("position", "i64")
        was = f.item(position)
        changed, done = f.label("changed"), f.label("done")
        f.branch(f.same(now, was), done, changed)
        f.start(changed)  # the first of several that are equal sets what the others must be
        f.need(f.icmp("ne", row("first", "i64"), 0))
        f.need(f.same(f.get(now, layout.kind, "ptr"), f.get(was, layout.kind, "ptr")))
        _set(f, position, now)
        f.jump(done)
        f.start(done)
    computed = f.label("computed")
    f.test(f.same(f.of("dirty", "i64"), 0), computed)
    f.need(f.passes("compute"))
    f.put(0, f.record, RECORD["dirty"])
    f.jump(computed)
    f.start(computed)
    f.truth()


def _set(f: _Writer, position: Reg, number: Reg) -> None:
    f.python("Py_IncRef", number)
    f.python("PyList_SetItem", f.of("values"), position, number)
    f.put(1, f.record, RECORD["dirty"])


def _compute(module: Module, layout: Layout) -> None:
    """Compute the numbers anew, with Python's own arithmetic, and fill the program's inputs."""
    f = _Writer(module, layout, "compute")
    operands = f.value("ptr", "alloca [3 x ptr]")
    base, count = f.rows("steps")
    with f.loop(0, count) as i:
        row = f.row("steps", base, i.index)
        for n, field in enumerate("xyz"):
            f.store(f.item(row(field, "i64")), f.at(operands, n, "ptr"))
        null = Reg("null", "ptr")
        result = f.python(
            "PyObject_Vectorcall", row("function"), operands, row("count", "i64"), null
        )
        f.need(f.icmp("ne", result, null))
        f.python("PyList_SetItem", f.of("values"), row("result", "i64"), result)
    base, count = f.rows("guards")
    with f.loop(0, count) as i:
        row = f.row("guards", base, i.index)
        now, equal = f.item(row("position", "i64")), Reg(str(EQUAL), "i32")
        answer = f.python("PyObject_RichCompareBool", now, row("told"), equal)
        f.need(f.same(answer, Reg("1", "i32")))
    base, count = f.rows("fills")
    with f.loop(0, count) as i:
        row = f.row("fills", base, i.index)
        now, kind, place = f.item(row("position", "i64")), row("kind", "i64"), row("address")
        whole, real, narrow, wide, done = map(f.label, ("whole", "real", "narrow", "wide", "done"))
        f.test(f.same(kind, KINDS["int64"]), whole, real)
        f.start(whole)
        f.store(f.python("PyLong_AsLongLong", now), place)
        f.jump(done)
        f.start(real)
        number = f.python("PyFloat_AsDouble", now)
        f.test(f.same(kind, KINDS["float32"]), narrow, wide)
        f.start(narrow)
        f.store(f.convert("fptrunc", number, "float"), place)
        f.jump(done)
        f.start(wide)
        f.store(number, place)
        f.jump(done)
        f.start(done)
    f.need(f.is_null(f.python("PyErr_Occurred")))
    f.truth(clear=True)


# --- memory, the program, what it leaves ----------------------------------------------------------


def _outputs(module: Module, layout: Layout) -> None:
    """Memory for each output that nobody else holds, as a tensor; all of them, or null."""
    f = _Writer(module, layout, "outputs", "ptr")
    base, count = f.rows("outputs")
    single = f.icmp("ne", f.of("single", "i64"), 0)
    result, array = f.value("ptr", "alloca ptr"), f.value("ptr", "alloca ptr")
    null = Reg("null", "ptr")
    f.store(null, result)
    several, begin = f.label("several"), f.label("begin")
    f.branch(single, begin, several)
    f.start(several)
    f.store(f.python("PyTuple_New", count), result)
    f.need(f.icmp("ne", f.load(result, "ptr"), null))
    f.jump(begin)
    f.start(begin)
    with f.loop(0, count) as i:
        row = f.row("outputs", base, i.index)
        pool, found, made = row("pool"), f.label("found"), f.label("made")
        with f.loop(0, f.python("PyList_Size", pool)) as k:
            kept = f.python("PyList_GetItem", pool, k.index)
            f.store(kept, array)
            f.test(f.same(f.get(kept, 0, "i32"), Reg("1", "i32")), found)
        f.store(f.python("PyObject_CallNoArgs", row("take")), array)
        f.need(f.icmp("ne", f.load(array, "ptr"), null))
        f.jump(made)
        f.start(found)
        f.python("Py_IncRef", f.load(array, "ptr"))
        f.jump(made)
        f.start(made)
        memory = f.load(array, "ptr")
        f.store(f.get(memory, layout.data, "ptr"), row("table"))
        tensor = f.python("PyType_GenericAlloc", f.of("tensor"), Reg("0", "i64"))
        f.need(f.icmp("ne", tensor, null))
        f.store(memory, f.field(tensor, layout.array))
        slots = {layout.node: row("node"), layout.index: f.of("zero"), layout.grad: f.of("none")}
        for place, held in slots.items():
            f.python("Py_IncRef", held)
            f.store(held, f.field(tensor, place))
        one, into, placed = f.label("one"), f.label("into"), f.label("placed")
        f.branch(single, one, into)
        f.start(one)
        f.store(tensor, result)
        f.jump(placed)
        f.start(into)
        f.python("PyTuple_SetItem", f.load(result, "ptr"), i.index, tensor)
        f.jump(placed)
        f.start(placed)
    f.do(f"ret {f.load(result, 'ptr')}")
    f.start(f.no)
    with f.when(f.icmp("ne", f.load(result, "ptr"), null)):
        f.python("Py_DecRef", f.load(result, "ptr"))
    f.do("ret ptr null")
    f.end()


def _gradient(f: _Writer, row: Callable[..., Reg], what: str = "") -> Reg:
    """The field of the set of gradients whose turn it is."""
    other = f.icmp("ne", f.load(f.of("turn"), "i64"), 0)
    return f.select(other, row(f"second{what}"), row(f"first{what}"))


def _ready(module: Module, layout: Layout) -> None:
    """Let the program write gradients where nobody looks at them; Python makes what is missing."""
    f = _Writer(module, layout, "ready")
    base, count = f.rows("gradients")
    renewed, point = f.label("renewed"), f.label("point")
    with f.loop(0, count) as i:
        kept = _gradient(f, f.row("gradients", base, i.index))
        taken = f.get(kept, layout.taken, "ptr")
        f.test(f.icmp("ne", taken, f.of("false")), renewed)
    f.jump(point)
    f.start(renewed)
    answer = f.python("PyObject_CallNoArgs", f.of("renew"))
    f.need(f.icmp("ne", answer, Reg("null", "ptr")))
    f.python("Py_DecRef", answer)
    f.jump(point)
    f.start(point)
    with f.loop(0, count) as i:
        row = f.row("gradients", base, i.index)
        f.store(_gradient(f, row, "_data"), row("table"))
    f.truth()


def _run(module: Module, layout: Layout) -> None:
    """Run the program: at once where it is short, else as Python does. 0 means an error."""
    f = _Writer(module, layout, "run")
    null = Reg("null", "ptr")
    direct, called, over, failed = map(f.label, ("direct", "called", "over", "failed"))
    job, status = f.of("job"), f.of("status")
    f.branch(f.is_null(job), called, direct)
    f.start(called)
    answer = f.python("PyObject_CallNoArgs", f.of("run"))
    f.need(f.icmp("ne", answer, null))
    f.python("Py_DecRef", answer)
    f.jump(over)
    f.start(direct)
    with f.when(f.icmp("ne", status, null)):
        f.store(Reg("0", "i64"), status)
    f.do(f"call i64 {f.of('enter').text}({f.of('pool')}, {job}, i64 0)")
    f.test(f.is_null(status), over)
    f.test(f.icmp("ne", f.load(status, "i64"), 0), failed, over)
    f.start(failed)  # this one raises
    answer = f.python("PyObject_CallNoArgs", f.of("failed"))
    f.test(f.is_null(answer), f.no)
    f.python("Py_DecRef", answer)
    f.jump(over)
    f.start(over)
    f.truth()


def _hand_out(module: Module, layout: Layout) -> None:
    """After the program: its gradients are the tensors', its counters the optimiser's."""
    f = _Writer(module, layout, "hand_out")
    base, count = f.rows("gradients")
    with f.loop(0, count) as i:
        row = f.row("gradients", base, i.index)
        kept, slot = _gradient(f, row), row("slot")
        before = f.load(slot, "ptr")
        f.python("Py_IncRef", kept)
        f.store(kept, slot)
        with f.when(f.icmp("ne", before, Reg("null", "ptr"))):
            f.python("Py_DecRef", before)
    turn = f.of("turn")
    f.store(f.op("xor", f.load(turn, "i64"), Reg("1", "i64")), turn)
    base, count = f.rows("counters")
    with f.loop(0, count) as i:
        row = f.row("counters", base, i.index)
        number = f.item(row("position", "i64"))
        answer = f.python("PyDict_SetItem", row("dict"), row("key"), number)
        f.need(f.same(answer, Reg("0", "i32")))
    f.put(f.add(f.of("calls", "i64"), 1), f.record, RECORD["calls"])
    late = f.of("late")
    ended = f.label("ended")
    f.test(f.icmp("ne", f.of("job"), Reg("null", "ptr")), ended)
    answer = f.python("PyObject_CallNoArgs", late)
    f.need(f.icmp("ne", answer, Reg("null", "ptr")))
    f.python("Py_DecRef", answer)
    f.jump(ended)
    f.start(ended)
    f.truth()


def _usual(module: Module, layout: Layout) -> None:
    """The call, step by step; null with an error, or `unusual` if something is not as it was."""
    f = _Writer(module, layout, "call", "ptr")
    null, unusual, error, drop = Reg("null", "ptr"), f.no, f.label("error"), f.label("drop")
    for name in ("arguments", "checks"):
        f.need(f.passes(name))
    result = f.value("ptr", f"call ptr @outputs({f.record}, {f.arg('args')})")
    f.test(f.is_null(result), error)
    f.no = drop
    for name in ("ready", "modes", "words", "entries", "contents", "numbers", "run", "hand_out"):
        f.need(f.passes(name))
    f.do(f"ret {result}")
    f.start(drop)
    f.python("Py_DecRef", result)
    f.jump(unusual)
    f.start(unusual)
    f.test(f.icmp("ne", f.python("PyErr_Occurred"), null), error)
    f.python("Py_IncRef", f.of("unusual"))
    f.do(f"ret {f.of('unusual')}")
    f.start(error)
    f.do("ret ptr null")
    f.end()


def _export(module: Module, layout: Layout) -> None:
    """What Python calls: `(self, arguments, how many)`, where `self` is an array, the record."""
    f = Runtime(module, "usual", "ptr %self, ptr %args, i64 %count", "ptr", internal=False)
    record, go, unusual = f.get(f.arg("self"), layout.data, "ptr"), f.label("go"), f.label("not")
    wanted = f.get(record, LISTS["arguments"] + 8)
    f.branch(f.icmp("eq", wanted, f.arg("count")), go, unusual)
    f.start(unusual)
    nothing = f.get(record, RECORD["unusual"], "ptr")
    module.declare("Py_IncRef", "void", ["ptr"])
    f.do(f"call void @Py_IncRef({nothing})")
    f.do(f"ret {nothing}")
    f.start(go)
    result = f.value("ptr", f"call ptr @call({record}, {f.arg('args')})")
    f.do(f"ret {result}")
    f.end()
