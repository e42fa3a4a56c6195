"""The runtime in LLVM IR: how threads share the phases of a program.

One word for each thread holds the chunks of the current phase that are dealt to it, `tag | first |
end`. A thread takes chunks from the front of its own word and, when that is empty, from the back of
the others'. A phase is over when as many chunks are *done* as it has: chunks are counted, never
threads, so nobody waits for a thread that the operating system has not woken, or has taken off its
processor between two chunks. Whoever finishes the last chunk deals out the next phase.

Why this is free of races:

1. A word with chunks left belongs to the current phase: a phase ends only when all its chunks are
   done, hence taken, hence all words empty. So whoever takes a chunk by compare-and-swap (which
   fails if the word has changed: each phase has a tag of its own) may then read the phase and the
   job, and they stay as they are until that chunk has been counted as done.
2. Before that compare-and-swap, and after that count, only the pool's memory is touched, which is
   never freed. A thread may therefore sleep anywhere, for as long as it likes, and wake up in a
   later phase, or after the program is gone.
3. Chunks are counted by acquire-release additions, so the last one sees all that the others wrote;
   it stores the next words with release, and taking a chunk acquires: what a phase writes is seen
   by the next.
4. A word that gets no chunks of a phase is not written, or a slow thread could put it over the word
   of the phase after that. `current` is raised by an atomic maximum, for the same reason.
5. Whoever parks first counts itself as a sleeper, then looks at `current` once more; whoever starts
   a job or a phase first raises `current`, then looks for sleepers (all four sequentially
   consistent): one of the two sees the other. The bell is read before that second look and compared
   by the kernel, so that a wake-up in between is not lost. (Were one lost, the caller, which never
   parks, would do the work alone.)
"""

from __future__ import annotations

from chainrule.compiler.native.kernel import PARAMETERS
from chainrule.compiler.native.runtime_records import (
    BITS,
    CHUNK,
    CHUNK_BYTES,
    DONE,
    IDLE,
    JOB,
    LATER,
    LINE,
    MOST_CHUNKS,
    PARALLEL,
    PHASE,
    PHASE_BYTES,
    POOL,
    ROW,
    ROW_BYTES,
    SELDOM,
    SERIAL,
    TASK,
    TASK_BYTES,
    Runtime,
)
from chainrule.compiler.native.runtime_system import System
from chainrule.compiler.native.target import Target
from chainrule.compiler.native.text import Module, Reg


def runtime(target: Target, system: System) -> str:
    """The text of the runtime's module: it exports `enter`, `worker`, `look` and `quit`."""
    module = Module(target)
    system.emit(module)
    _execute(module)
    _advance(module)
    _chunk(module)
    _work(module, system)
    _serial(module)
    _enter(module)
    _worker(module, system)
    _look(module, system)
    _quit(module)
    return module.text()


def _execute(module: Module) -> None:
    """Run units lo..hi-1 of a task as thread `id`; timed if the job has a profile."""
    f = Runtime(module, "execute", "ptr %job, ptr %task, i64 %lo, i64 %hi, i64 %id")
    job, task, thread = f.arg("job"), f.arg("task"), f.arg("id")
    table, kernel = f.get(job, JOB["table"], "ptr"), f.get(task, TASK["kernel"], "ptr")
    offset = f.mul(thread, f.get(job, JOB["stride"]))
    scratch = f.at(f.get(job, JOB["scratch"], "ptr"), offset, "i8")
    profile = f.get(job, JOB["profile"], "ptr")
    kinds = ", ".join(p.split()[0] for p in PARAMETERS.split(","))
    arguments = f"{table}, {f.arg('lo')}, {f.arg('hi')}, {scratch}"
    timed, plain = f.label("timed"), f.label("plain")
    f.branch(f.value("i1", f"icmp ne {profile}, null"), timed, plain)
    f.start(plain)
    f.do(f"call void ({kinds}) {kernel.text}({arguments})")
    f.leave()
    f.start(timed)
    row = f.add(f.mul(thread, f.get(job, JOB["tasks"])), f.get(task, TASK["number"]))
    row = f.at(profile, f.mul(row, ROW_BYTES), "i8")
    begun = f.value("i64", "call i64 @now()")
    f.do(f"call void ({kinds}) {kernel.text}({arguments})")
    ended = f.value("i64", "call i64 @now()")
    first = f.get(row, ROW["first"])
    f.put(f.select(f.icmp("eq", first, 0), begun, first), row, ROW["first"])
    f.put(ended, row, ROW["last"])
    f.put(f.add(f.get(row, ROW["time"]), f.sub(ended, begun)), row, ROW["time"])
    f.put(f.add(f.get(row, ROW["calls"]), 1), row, ROW["calls"])
    f.leave()
    f.end()


def _halted(f: Runtime, job: Reg) -> Reg:
    """Whether a check has failed or the caller wants no more of the job."""
    status = f.see(f.get(job, JOB["status"], "ptr"), 0, "monotonic")
    return f.icmp("ne", f.op("or", status, f.see(job, JOB["stop"], "monotonic")), 0)


def _advance(module: Module) -> None:
    """Deal out phase `index`, all before it being done; phases for one thread are run at once."""
    f = Runtime(module, "advance", "ptr %pool, i64 %id, i64 %index")
    pool = f.arg("pool")
    index = f.variable(f.arg("index"))
    job = f.get(pool, POOL["job"], "ptr")
    again, over, go, deal = (f.label(x) for x in ("again", "over", "go", "deal"))
    f.jump(again)
    f.start(again)
    f.test(_halted(f, job), over)
    f.test(f.icmp("slt", f.read(index), f.get(job, JOB["count"])), go, over)
    f.start(go)
    place = f.mul(f.read(index), PHASE_BYTES)
    phase = f.at(f.get(job, JOB["phases"], "ptr"), place, "i8")
    f.test(f.icmp("eq", f.get(phase, PHASE["serial"]), 0), deal)
    with f.loop(0, f.get(phase, PHASE["count"])) as i:
        task = f.at(f.get(phase, PHASE["tasks"], "ptr"), f.mul(i.index, TASK_BYTES), "i8")
        f.run("execute", job, task, Reg("0", "i64"), f.get(task, TASK["units"]), f.arg("id"))
    f.bump(index)
    f.jump(again)
    f.start(deal)
    threads = f.get(job, JOB["threads"])
    f.put(phase, pool, POOL["phase"])
    f.put(f.read(index), pool, POOL["index"])
    f.show(0, pool, POOL["done"], "monotonic")
    tag = _next_tag(f, pool)
    bounds_of = f.get(phase, PHASE["bounds"], "ptr")
    with f.loop(0, threads) as r:
        place = f.at(bounds_of, f.mul(r.index, 8), "i8")
        lo, hi = f.get(place, 0), f.get(place, 8)
        with f.when(f.icmp("ult", lo, hi)):
            bounds = f.op("or", f.op("shl", lo, Reg(str(BITS), "i64")), hi)
            word = f.op("or", f.op("shl", tag, Reg(str(2 * BITS), "i64")), bounds)
            f.show(word, f.at(pool, f.mul(r.index, LINE), "i8"), POOL["words"])
    _raise_current(f, pool, tag, running=True)
    _wake_wanted(f, pool)
    f.leave()
    f.start(over)
    _raise_current(f, pool, _next_tag(f, pool), running=False)
    f.leave()
    f.end()


def _next_tag(f: Runtime, pool: Reg) -> Reg:
    tag = f.add(f.get(pool, POOL["tag"]), 1)
    f.put(tag, pool, POOL["tag"])
    return tag


def _raise_current(f: Runtime, pool: Reg, tag: Reg, running: bool) -> None:
    word = f.op("or", f.op("shl", tag, Reg("1", "i64")), Reg(str(int(running)), "i64"))
    f.change("umax", pool, POOL["current"], word, "seq_cst")


def _chunk(module: Module) -> None:
    """Run a chunk that has been taken, and go on to the next phase if it was the last to finish."""
    f = Runtime(module, "chunk", "ptr %pool, i64 %id, i64 %chunk")
    pool, number = f.arg("pool"), f.arg("chunk")
    job, phase = f.get(pool, POOL["job"], "ptr"), f.get(pool, POOL["phase"], "ptr")
    index, chunks = f.get(pool, POOL["index"]), f.get(phase, PHASE["chunks"])
    record = f.at(f.get(phase, PHASE["table"], "ptr"), f.mul(number, CHUNK_BYTES), "i8")
    task, lo = f.get(record, CHUNK["task"], "ptr"), f.get(record, CHUNK["lo"])
    size = f.get(task, TASK["size"])
    hi = f.smin(f.add(lo, size), f.get(task, TASK["units"]))
    with f.when(f.icmp("eq", f.see(job, JOB["stop"], "monotonic"), 0)):
        f.run("execute", job, task, lo, hi, f.arg("id"))
    before = f.change("add", pool, POOL["done"], Reg("1", "i64"), "acq_rel")
    with f.when(f.icmp("eq", f.add(before, 1), chunks)):
        f.run("advance", pool, f.arg("id"), f.add(index, 1))
    f.leave()
    f.end()


def _work(module: Module, system: System) -> None:
    """Take chunks until the job is over (DONE), or the clock has passed `deadline` (LATER)."""
    f = Runtime(module, "work", "ptr %pool, i64 %id, i64 %deadline", "i64")
    pool, thread, deadline = f.arg("pool"), f.arg("id"), f.arg("deadline")
    step, looks = f.variable(0), f.variable(0)
    threads = f.get(pool, POOL["threads"])
    again, scan, retry, take, taken, empty = map(
        f.label, ("again", "scan", "retry", "take", "taken", "empty")
    )
    idle, yields, nap, over, late = map(f.label, ("idle", "yields", "nap", "over", "late"))
    f.jump(again)
    f.start(again)
    seen = f.see(pool, POOL["current"])
    f.test(f.icmp("eq", f.op("and", seen, Reg("1", "i64")), 0), over)
    f.store(Reg("0", "i64"), step)
    f.store(Reg("0", "i64"), looks)
    f.jump(scan)
    f.start(scan)
    f.test(f.icmp("sge", f.read(step), threads), idle)
    whose = f.add(thread, f.read(step))
    whose = f.select(f.icmp("sge", whose, threads), f.sub(whose, threads), whose)
    line = f.at(pool, f.mul(whose, LINE), "i8")
    f.jump(retry)
    f.start(retry)
    word = f.see(line, POOL["words"])
    mask = Reg(str(MOST_CHUNKS), "i64")
    hi = f.op("and", word, mask)
    lo = f.op("and", f.op("lshr", word, Reg(str(BITS), "i64")), mask)
    f.test(f.icmp("ult", lo, hi), take, empty)
    f.start(empty)
    f.bump(step)
    f.jump(scan)
    f.start(take)  # the front of one's own, the back of another's
    own = f.icmp("eq", f.read(step), 0)
    left = f.select(own, f.add(word, 1 << BITS), f.sub(word, 1))
    number = f.select(own, lo, f.sub(hi, 1))
    address = f.field(line, POOL["words"])
    pair = f.value("{i64, i1}", f"cmpxchg {address}, {word}, {left} acq_rel acquire, align 8")
    f.test(f.value("i1", f"extractvalue {pair}, 1"), taken, retry)
    f.start(taken)
    f.run("chunk", pool, thread, number)
    _test_deadline(f, deadline, late)
    f.jump(again)
    f.start(idle)
    changed = f.icmp("ne", f.see(pool, POOL["current"]), seen)
    f.test(changed, again)
    f.bump(looks)
    f.test(f.icmp("sgt", f.read(looks), f.get(pool, POOL["spin"])), yields)
    system.pause(f)
    f.jump(idle)
    f.start(yields)
    f.do("call void @yield()")
    _test_deadline(f, deadline, late)
    tired = f.icmp("sgt", f.read(looks), f.get(pool, POOL["patience"]))
    f.test(f.op("and", tired, f.icmp("ne", thread, 0)), nap, idle)  # the caller stays awake
    f.start(nap)
    _sleep(f, pool, seen)
    f.jump(again)
    f.start(over)
    f.leave(DONE)
    f.start(late)
    f.leave(LATER)
    f.end()


def _test_deadline(f: Runtime, deadline: Reg, late: str) -> None:
    """Go to `late` if there is a deadline (not 0) and it is past."""
    look, on = f.label("look"), f.label("on")
    f.branch(f.icmp("ne", deadline, 0), look, on)
    f.start(look)
    f.branch(f.icmp("sge", f.value("i64", "call i64 @now()"), deadline), late, on)
    f.start(on)


def _serial(module: Module) -> None:
    """Run a job on the calling thread alone; with a deadline, chunk by chunk, to be resumed."""
    f = Runtime(module, "serial", "ptr %job, i64 %deadline", "i64")
    job, deadline = f.arg("job"), f.arg("deadline")
    again, phases, tasks, units, next_task, next_phase, over, late = (
        f.label(x) for x in ("again", "phases", "tasks", "units", "task", "phase", "over", "late")
    )
    at_phase, at_task, at_unit = (
        f.variable(f.get(job, JOB[x])) for x in ("at_phase", "at_task", "at_unit")
    )
    f.jump(again)
    f.start(again)
    f.test(_halted(f, job), over)
    f.test(f.icmp("slt", f.read(at_phase), f.get(job, JOB["count"])), phases, over)
    f.start(phases)
    place = f.mul(f.read(at_phase), PHASE_BYTES)
    phase = f.at(f.get(job, JOB["phases"], "ptr"), place, "i8")
    count = f.get(phase, PHASE["count"])
    f.jump(tasks)
    f.start(tasks)
    f.test(f.icmp("sge", f.read(at_task), count), next_phase)
    place = f.mul(f.read(at_task), TASK_BYTES)
    task = f.at(f.get(phase, PHASE["tasks"], "ptr"), place, "i8")
    all_units, size = f.get(task, TASK["units"]), f.get(task, TASK["size"])
    f.jump(units)
    f.start(units)
    lo = f.read(at_unit)
    f.test(f.icmp("sge", lo, all_units), next_task)
    part = f.smin(f.add(lo, size), all_units)
    hi = f.select(f.icmp("eq", deadline, 0), all_units, part)
    f.run("execute", job, task, lo, hi, Reg("0", "i64"))
    f.store(hi, at_unit)
    _test_deadline(f, deadline, late)
    f.test(f.icmp("eq", f.see(job, JOB["stop"], "monotonic"), 0), units, over)
    f.start(next_task)
    f.bump(at_task)
    f.store(Reg("0", "i64"), at_unit)
    f.jump(tasks)
    f.start(next_phase)
    f.bump(at_phase)
    f.store(Reg("0", "i64"), at_task)
    f.jump(again)
    f.start(over)
    for name in ("at_phase", "at_task", "at_unit"):
        f.put(0, job, JOB[name])
    f.leave(DONE)
    f.start(late)
    for name, variable in (("at_phase", at_phase), ("at_task", at_task), ("at_unit", at_unit)):
        f.put(f.read(variable), job, JOB[name])
    f.leave(LATER)
    f.end()


def _enter(module: Module) -> None:
    """Run a job, or go on with it; for at most `slice` nanoseconds, unless that is 0.

    It runs on all threads if it wants several and no other job has the pool, else on this one.
    """
    f = Runtime(module, "enter", "ptr %pool, ptr %job, i64 %slice", "i64", internal=False)
    pool, job, some = f.arg("pool"), f.arg("job"), f.arg("slice")
    deadline = f.variable(0)
    with f.when(f.icmp("ne", some, 0)):
        f.store(f.add(f.value("i64", "call i64 @now()"), some), deadline)
    labels = ("fresh", "claim", "first", "on", "alone", "alone_again", "leave")
    fresh, claim, first, on, alone, alone_again, leave = map(f.label, labels)
    mode = f.get(job, JOB["mode"])
    f.test(f.icmp("eq", mode, IDLE), fresh)
    f.test(f.icmp("eq", mode, PARALLEL), on, alone_again)
    f.start(fresh)
    f.test(f.icmp("sgt", f.get(job, JOB["threads"]), 1), claim, alone)
    f.start(claim)
    f.test(f.icmp("ne", f.see(pool, POOL["busy"], "monotonic"), 0), alone)
    address = f.field(pool, POOL["busy"])
    pair = f.value("{i64, i1}", f"cmpxchg {address}, i64 0, i64 1 acq_rel monotonic, align 8")
    f.test(f.value("i1", f"extractvalue {pair}, 1"), first, alone)
    f.start(first)
    f.put(PARALLEL, job, JOB["mode"])
    f.put(job, pool, POOL["job"])
    # A job that is too short to wake anybody for its own sake does so now and then: if many follow
    # one another, who is woken stays awake from one to the next.
    jobs, threads = f.add(f.get(pool, POOL["jobs"]), 1), f.get(pool, POOL["threads"])
    f.put(jobs, pool, POOL["jobs"])
    often = f.icmp("eq", f.op("and", jobs, Reg(str(SELDOM - 1), "i64")), 0)
    wakes = f.op("or", often, f.icmp("ne", f.get(job, JOB["wake"]), 0))
    spare = f.select(wakes, f.sub(threads, f.get(job, JOB["threads"])), threads)
    f.show(spare, pool, POOL["spare"], "monotonic")
    _raise_current(f, pool, _next_tag(f, pool), running=True)
    _wake_wanted(f, pool)
    f.run("advance", pool, Reg("0", "i64"), Reg("0", "i64"))
    f.jump(on)
    f.start(on)
    result = f.value("i64", f"call i64 @work({pool}, i64 0, {f.read(deadline)})")
    f.test(f.icmp("eq", result, LATER), leave)
    f.put(IDLE, job, JOB["mode"])
    f.show(0, pool, POOL["busy"])
    f.leave(DONE)
    f.start(leave)
    f.leave(LATER)
    f.start(alone)
    f.put(SERIAL, job, JOB["mode"])
    f.jump(alone_again)
    f.start(alone_again)
    result = f.value("i64", f"call i64 @serial({job}, {f.read(deadline)})")
    f.test(f.icmp("eq", result, LATER), leave)
    f.put(IDLE, job, JOB["mode"])
    f.leave(DONE)
    f.end()


def _wake_wanted(f: Runtime, pool: Reg) -> None:
    """Ring if more threads sleep than can be spared."""
    sleepers = f.see(pool, POOL["sleepers"], "seq_cst")
    with f.when(f.icmp("sgt", sleepers, f.see(pool, POOL["spare"], "monotonic"))):
        _ring(f, pool)


def _ring(f: Runtime, pool: Reg) -> None:
    """Wake one sleeper; those that wake ring for the next."""
    f.change("add", pool, POOL["bell"], Reg("1", "i32"), "seq_cst")
    f.do(f"call void @wake({pool})")


def _worker(module: Module, system: System) -> None:
    """A thread's life: wait for a job (a while awake, then parked), help, until told to quit.

    Its argument points to the address of the pool and the number of the thread.
    """
    f = Runtime(module, "worker", "ptr %self", "ptr", internal=False)
    pool, thread = f.get(f.arg("self"), 0, "ptr"), f.get(f.arg("self"), 8)
    looks = f.variable(0)
    wait, look, park, go, quit = map(f.label, ("wait", "look", "park", "go", "quit"))
    f.jump(wait)
    f.start(wait)
    f.store(Reg("0", "i64"), looks)
    f.jump(look)
    f.start(look)
    f.test(_running(f, pool, "acquire"), go)
    f.test(f.icmp("ne", f.see(pool, POOL["quit"]), 0), quit)
    f.bump(looks)
    f.test(f.icmp("sgt", f.read(looks), f.get(pool, POOL["linger"])), park)
    system.pause(f)
    f.jump(look)
    f.start(park)
    none = f.op("and", f.see(pool, POOL["current"]), Reg("-2", "i64"))
    _sleep(f, pool, none)
    f.jump(wait)
    f.start(go)
    f.do(f"call i64 @work({pool}, {thread}, i64 0)")
    f.jump(wait)
    f.start(quit)
    f.do("ret ptr null")
    f.end()


def _sleep(f: Runtime, pool: Reg, seen: Reg) -> None:
    """Park, if `current` is still what was seen, until somebody rings."""
    park, up = f.label("park"), f.label("up")
    bell = f.see(pool, POOL["bell"], "seq_cst", "i32")
    f.change("add", pool, POOL["sleepers"], Reg("1", "i64"), "seq_cst")
    same = f.icmp("eq", f.see(pool, POOL["current"], "seq_cst"), seen)
    stays = f.icmp("eq", f.see(pool, POOL["quit"], "seq_cst"), 0)
    f.test(f.op("and", same, stays), park, up)
    f.start(park)
    f.do(f"call void @park({pool}, {bell})")
    f.jump(up)
    f.start(up)
    before = f.change("sub", pool, POOL["sleepers"], Reg("1", "i64"), "seq_cst")
    more = f.icmp("sgt", f.sub(before, 1), f.see(pool, POOL["spare"], "monotonic"))
    with f.when(f.op("and", more, _running(f, pool, "acquire"))):
        _ring(f, pool)


def _running(f: Runtime, pool: Reg, order: str) -> Reg:
    return f.icmp("ne", f.op("and", f.see(pool, POOL["current"], order), Reg("1", "i64")), 0)


def _look(module: Module, system: System) -> None:
    """Look at a word `n` times as a waiting thread does: to find out what a look takes."""
    f = Runtime(module, "look", "ptr %pool, i64 %n", internal=False)
    with f.loop(0, f.arg("n")):
        f.see(f.arg("pool"), POOL["current"])
        system.pause(f)
    f.leave()
    f.end()


def _quit(module: Module) -> None:
    """Tell the workers to end, and wake them all."""
    f = Runtime(module, "quit", "ptr %pool", internal=False)
    pool = f.arg("pool")
    f.change("xchg", pool, POOL["quit"], Reg("1", "i64"), "seq_cst")
    with f.loop(0, f.get(pool, POOL["threads"])):
        _ring(f, pool)
    f.leave()
    f.end()
