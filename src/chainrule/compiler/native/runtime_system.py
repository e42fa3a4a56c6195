"""What the runtime asks of the operating system, as IR: the time, to yield, to park and to wake.

Linux parks on a futex, Windows on an address, other systems on a condition variable of POSIX
threads. All three wait only if the bell still has the value that the thread has seen.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from dataclasses import dataclass, field

from chainrule.compiler.native.text import Function, Module

_FUTEX = {
    "x86_64": 202,
    "aarch64": 98,
    "riscv64": 98,
    "loongarch64": 98,
    "ppc64le": 221,
    "s390x": 238,
}
"""Linux's number of the system call `futex` (asm/unistd.h)."""

BELL, LOCK, CONDITION = 128, 448, 576  # offsets in the pool; runtime_ir.POOL holds them too


@dataclass(frozen=True)
class System:
    """How this machine's system does it.

    Attributes:
        parking: `futex`, `pthread` or `address`.
        machine: the processor's family, as `platform.machine` says it.
        monotonic: the number of POSIX's monotonic clock.
        imports: addresses of functions that the linker would not find by itself.
    """

    parking: str
    machine: str
    monotonic: int = 1
    imports: dict[str, int] = field(default_factory=dict)

    def pause(self, f: Function) -> None:
        """Tell the processor that this is a waiting loop."""
        if self.machine in ("x86_64", "AMD64"):
            f.module.declare("llvm.x86.sse2.pause", "void", [])
            f.do("call void @llvm.x86.sse2.pause()")
        elif self.machine in ("aarch64", "arm64", "ARM64"):
            f.module.declare("llvm.aarch64.hint", "void", ["i32"])
            f.do("call void @llvm.aarch64.hint(i32 1)")
        else:
            f.do('call void asm sideeffect "", "~{memory}"()')

    def emit(self, module: Module) -> None:
        """Write `now`, `yield`, `park(pool, bell)` and `wake(pool)` into the module."""
        if self.parking == "address":
            module.functions.append(_WINDOWS)
            return
        module.functions.append(_POSIX.format(clock=self.monotonic))
        if self.parking == "futex":
            module.functions.append(_FUTEXES.format(number=_FUTEX[self.machine], bell=BELL))
        else:
            module.functions.append(_CONDITION.format(bell=BELL, lock=LOCK, condition=CONDITION))


def this_system(parking: str | None = None) -> System:
    """The system that this process runs on. (`parking` is for tests.)"""
    machine = platform.machine()
    if sys.platform == "win32":
        return System("address", machine, imports=_windows_functions())
    if parking is None:
        parking = "futex" if sys.platform == "linux" and machine in _FUTEX else "pthread"
    return System(parking, machine, monotonic=6 if sys.platform == "darwin" else 1)


def _windows_functions() -> dict[str, int]:
    names = {
        "WaitOnAddress": "kernelbase",
        "WakeByAddressAll": "kernelbase",
        "SwitchToThread": "kernel32",
        "QueryPerformanceCounter": "kernel32",
        "QueryPerformanceFrequency": "kernel32",
    }
    found = {}
    for name, library in names.items():
        function = getattr(ctypes.WinDLL(library), name)  # type: ignore[attr-defined]
        found[name] = ctypes.cast(function, ctypes.c_void_p).value
    return found


_POSIX = """\
declare i32 @clock_gettime(i32, ptr)
declare i32 @sched_yield()

define internal i64 @now() noinline nounwind {{
 %time = alloca {{i64, i64}}
 call i32 @clock_gettime(i32 {clock}, ptr %time)
 %seconds = load i64, ptr %time
 %rest = getelementptr i64, ptr %time, i64 1
 %nanoseconds = load i64, ptr %rest
 %whole = mul i64 %seconds, 1000000000
 %result = add i64 %whole, %nanoseconds
 ret i64 %result
}}

define internal void @yield() noinline nounwind {{
 call i32 @sched_yield()
 ret void
}}
"""

# FUTEX_WAIT and FUTEX_WAKE, private to the process.
_FUTEXES = """\
declare i64 @syscall(i64, ...)

define internal void @park(ptr %pool, i32 %seen) noinline nounwind {{
 %bell = getelementptr i8, ptr %pool, i64 {bell}
 call i64 (i64, ...) @syscall(i64 {number}, ptr %bell, i32 128, i32 %seen, ptr null)
 ret void
}}

define internal void @wake(ptr %pool) noinline nounwind {{
 %bell = getelementptr i8, ptr %pool, i64 {bell}
 call i64 (i64, ...) @syscall(i64 {number}, ptr %bell, i32 129, i32 1, ptr null)
 ret void
}}
"""

# The bell is rung before the lock is taken, and looked at under it: no ring is lost.
_CONDITION = """\
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_signal(ptr)

define internal void @park(ptr %pool, i32 %seen) noinline nounwind {{
 %bell = getelementptr i8, ptr %pool, i64 {bell}
 %lock = getelementptr i8, ptr %pool, i64 {lock}
 %condition = getelementptr i8, ptr %pool, i64 {condition}
 call i32 @pthread_mutex_lock(ptr %lock)
 %now = load atomic i32, ptr %bell seq_cst, align 4
 %same = icmp eq i32 %now, %seen
 br i1 %same, label %wait, label %done
wait:
 call i32 @pthread_cond_wait(ptr %condition, ptr %lock)
 br label %done
done:
 call i32 @pthread_mutex_unlock(ptr %lock)
 ret void
}}

define internal void @wake(ptr %pool) noinline nounwind {{
 %lock = getelementptr i8, ptr %pool, i64 {lock}
 %condition = getelementptr i8, ptr %pool, i64 {condition}
 call i32 @pthread_mutex_lock(ptr %lock)
 call i32 @pthread_cond_signal(ptr %condition)
 call i32 @pthread_mutex_unlock(ptr %lock)
 ret void
}}
"""

_WINDOWS = f"""\
declare i32 @WaitOnAddress(ptr, ptr, i64, i32)
declare void @WakeByAddressAll(ptr)
declare i32 @SwitchToThread()
declare i32 @QueryPerformanceCounter(ptr)
declare i32 @QueryPerformanceFrequency(ptr)

define internal i64 @now() noinline nounwind {{
 %count = alloca i64
 %frequency = alloca i64
 call i32 @QueryPerformanceCounter(ptr %count)
 call i32 @QueryPerformanceFrequency(ptr %frequency)
 %ticks = load i64, ptr %count
 %rate = load i64, ptr %frequency
 %seconds = udiv i64 %ticks, %rate
 %over = urem i64 %ticks, %rate
 %scaled = mul i64 %over, 1000000000
 %nanoseconds = udiv i64 %scaled, %rate
 %whole = mul i64 %seconds, 1000000000
 %result = add i64 %whole, %nanoseconds
 ret i64 %result
}}

define internal void @yield() noinline nounwind {{
 call i32 @SwitchToThread()
 ret void
}}

define internal void @park(ptr %pool, i32 %seen) noinline nounwind {{
 %bell = getelementptr i8, ptr %pool, i64 {BELL}
 %compare = alloca i32
 store i32 %seen, ptr %compare
 call i32 @WaitOnAddress(ptr %bell, ptr %compare, i64 4, i32 -1)
 ret void
}}

define internal void @wake(ptr %pool) noinline nounwind {{
 %bell = getelementptr i8, ptr %pool, i64 {BELL}
 call void @WakeByAddressAll(ptr %bell)
 ret void
}}
"""
