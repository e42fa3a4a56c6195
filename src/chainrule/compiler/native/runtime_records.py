"""The records that Python writes and the native runtime reads, and how IR gets at their fields."""

from __future__ import annotations

from chainrule.compiler.native.text import Function, Int, Reg

LINE = 64  # bytes of a cache line: what threads write apart lies apart

POOL = {
    "current": 0,  # tag << 1 | whether a job is running
    "done": LINE,  # chunks of the current phase that are done
    "bell": 2 * LINE,  # rung to wake sleepers
    "sleepers": 3 * LINE,
    "busy": 4 * LINE,  # 1 while a job has the pool
    "job": 5 * LINE,  # written by whoever starts a job or a phase, read by those who took a chunk
    "phase": 5 * LINE + 8,
    "index": 5 * LINE + 16,
    "tag": 5 * LINE + 24,
    "threads": 6 * LINE,  # hardly ever written from here on
    "spin": 6 * LINE + 8,  # looks before a waiting thread yields, within a job
    "linger": 6 * LINE + 16,  # looks before it parks, between jobs
    "quit": 6 * LINE + 24,
    "patience": 6 * LINE + 32,  # looks before it parks within a job
    "spare": 6 * LINE + 40,  # threads that the job at hand does not want
    "jobs": 6 * LINE + 48,  # how many there have been
    "lock": 7 * LINE,  # a pthread mutex, where that is how threads park, and a condition
    "condition": 9 * LINE,
    "words": 11 * LINE,  # a line for each thread
}
_JOB = """table phases count scratch stride threads status stop wake mode at_phase at_task at_unit
profile tasks"""
JOB = {name: 8 * i for i, name in enumerate(_JOB.split())}
PHASE = {"tasks": 0, "count": 8, "chunks": 16, "serial": 24, "bounds": 32, "table": 40}
PHASE_BYTES = 48
TASK = {"kernel": 0, "units": 8, "size": 16, "number": 24}
TASK_BYTES = 32
CHUNK = {"task": 0, "lo": 8}  # of a phase's table of chunks: whose, and from which unit on
CHUNK_BYTES = 16
ROW = {"time": 0, "calls": 8, "first": 16, "last": 24}  # of the profile
ROW_BYTES = 32

BITS = 14
MOST_CHUNKS = (1 << BITS) - 1
IDLE, PARALLEL, SERIAL = 0, 1, 2  # a job's mode
SELDOM = 16  # a short job in so many wakes threads; a power of 2
DONE, LATER = 0, 1  # what `enter` says: the job is done, or the slice of time is over


class Runtime(Function):
    """A function of the runtime: fields of records, atomic access, mutable local variables."""

    def field(self, base: Reg, offset: int) -> Reg:
        return self.at(base, offset, "i8")

    def get(self, base: Reg, offset: int, type: str = "i64") -> Reg:
        return self.load(self.field(base, offset), type)

    def put(self, x: Int | Reg, base: Reg, offset: int) -> None:
        self.store(self._int(x), self.field(base, offset))

    def see(self, base: Reg, offset: int, order: str = "acquire", type: str = "i64") -> Reg:
        """An atomic load."""
        size = 8 if type == "i64" else 4
        address = self.field(base, offset)
        return self.value(type, f"load atomic {type}, {address} {order}, align {size}")

    def show(self, x: Int | Reg, base: Reg, offset: int, order: str = "release") -> None:
        """An atomic store."""
        address = self.field(base, offset)
        self.do(f"store atomic {self._int(x)}, {address} {order}, align 8")

    def change(self, how: str, base: Reg, offset: int, x: Reg, order: str) -> Reg:
        """An atomic read-modify-write; what was there before."""
        return self.value(x.type, f"atomicrmw {how} {self.field(base, offset)}, {x} {order}")

    def variable(self, start: Int | Reg) -> Reg:
        """A local variable. (Waiting and dealing out are not where the time goes.)"""
        place = self.value("ptr", "alloca i64")
        self.store(self._int(start), place)
        return place

    def read(self, variable: Reg) -> Reg:
        return self.load(variable, "i64")

    def bump(self, variable: Reg, by: Int = 1) -> None:
        self.store(self.add(self.read(variable), by), variable)

    def test(self, condition: Reg, yes: str, no: str | None = None) -> None:
        """Go to `yes` if the condition holds, else to `no`, or on."""
        on = no or self.label("on")
        self.branch(condition, yes, on)
        if no is None:
            self.start(on)

    def leave(self, result: Int | None = None) -> None:
        self.do("ret void" if result is None else f"ret {self._int(result)}")

    def end(self) -> str:
        """Hand over the text of a function whose returns are all written."""
        self.module.functions.append("\n".join([self.head, *self.lines, "}"]))
        return self.name
