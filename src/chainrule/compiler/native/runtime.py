"""Threads: how many there are, and the pool that they wait in.

The threads are made natively and run nothing but the code of `runtime_ir`: they never hold or want
Python's lock, so neither a busy interpreter nor its end concerns them. They are made when a program
first wants them, and made anew in the child of a `fork`, where only the caller has survived.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import math
import os
import signal
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from chainrule.compiler.native import cache, cache_keys
from chainrule.compiler.native.jit import Library, assemble, immortal
from chainrule.compiler.native.runtime_ir import runtime
from chainrule.compiler.native.runtime_records import LINE, POOL
from chainrule.compiler.native.runtime_system import System, this_system
from chainrule.compiler.native.target import host
from chainrule.errors import ArgumentError, ChainruleWarning

SPIN = 30e-6
"""Seconds that a thread waits awake for the end of a phase before it offers its processor."""
PATIENCE = 2000
"""How often a thread then yields, in a phase that others work on, before it parks within a step."""
LINGER = 100e-6
"""Seconds that a thread waits awake for another step before it parks."""
STACK = 4 << 20


# --- how many -------------------------------------------------------------------------------------


def available_threads() -> int:
    """The processors that this process may use: its affinity, one for each core, and its quota."""
    try:
        allowed = getattr(os, "sched_getaffinity")(0)  # noqa: B009 (Linux alone has it)
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1
    return max(1, min(_cores(allowed), _quota(Path("/sys/fs/cgroup"), _own_group())))


def _cores(allowed: set[int]) -> int:
    """How many cores the processors belong to: two that share one share its arithmetic units."""
    siblings = set()
    for number in allowed:
        path = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
        try:
            siblings.add(path.read_text(encoding="ascii"))
        except OSError:
            return len(allowed)
    return len(siblings)


def _own_group() -> str:
    """This process's control group, below the root of the second version's tree."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((x.split(":", 2)[2].lstrip("/") for x in lines if x.startswith("0:")), "")


def _quota(root: Path, group: str) -> int:
    """The processors' worth of time that control groups allow, rounded up; large if any."""
    least = math.inf
    folder = root / group
    for place in (folder, *folder.parents):  # a limit binds all groups below it
        with contextlib.suppress(OSError, ValueError):
            quota, period = (place / "cpu.max").read_text(encoding="ascii").split()
            least = min(least, int(quota) / int(period))
        if place == root:
            break
    with contextlib.suppress(OSError, ValueError):  # the first version's
        quota = int((root / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        period = int((root / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii"))
        if quota > 0:
            least = min(least, quota / period)
    return sys.maxsize if least == math.inf else max(1, math.ceil(least))


def _wanted_threads() -> int:
    text = os.environ.get("CHAINRULE_NUM_THREADS", "").strip()
    if not text:
        return available_threads()
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ArgumentError(
            f"CHAINRULE_NUM_THREADS={text!r} must be a whole number of threads, 1 or more."
        )
    return int(text)


# --- the native side ------------------------------------------------------------------------------


class Native:
    """The runtime's functions in this process."""

    def __init__(self, system: System | None = None):
        self.system = system or this_system()
        code = self._code()
        names = ("enter", "worker", "look", "quit")
        self._library = Library(code, names, host(), self.system.imports)
        # Threads run this code to the very end of the process: it must never be unloaded.
        immortal(self._library)
        addresses = self._library.addresses
        kinds = ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64
        self.enter: Callable[..., int] = ctypes.CFUNCTYPE(*kinds)(addresses["enter"])
        self.enter_keeping_lock: Callable[..., int] = ctypes.PYFUNCTYPE(*kinds)(addresses["enter"])
        self.look = ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(addresses["look"])
        self.quit = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(addresses["quit"])
        self.worker, self.address = addresses["worker"], addresses["enter"]

    def _code(self) -> bytes:
        """The runtime's object code, from disk if it is there."""
        key = cache_keys.key(host(), "runtime", self.system.parking)
        if (entry := cache.load(key)) is not None:
            return entry.code
        code = assemble(runtime(host(), self.system), host())
        cache.store(key, cache.Entry(b"", code, b""), "the runtime")
        return code


class Pool:
    """A number of threads that run jobs together: the caller of each job, and workers.

    Arguments:
        native: the runtime's functions.
        threads: how many threads, the caller being one of them.
    """

    def __init__(self, native: Native, threads: int):
        self.native, self.threads = native, threads
        nbytes = POOL["words"] + LINE * threads + 16 * threads
        self._memory = np.zeros(nbytes + LINE, np.uint8)
        immortal(self._memory)  # threads look at it to the very end
        self.address = self._memory.ctypes.data + -self._memory.ctypes.data % LINE
        self._handles: list[Any] = []
        self._set("threads", threads)
        if threads > 1:
            look = self._time_of_a_look()
            self._set("spin", int(SPIN / look))
            self._set("linger", int(LINGER / look))
            self._set("patience", int(SPIN / look) + PATIENCE)
        if native.system.parking == "pthread":
            libc = ctypes.CDLL(None)
            libc.pthread_mutex_init(ctypes.c_void_p(self.address + POOL["lock"]), None)
            libc.pthread_cond_init(ctypes.c_void_p(self.address + POOL["condition"]), None)
        for number in range(1, threads):
            self._start(number)

    def _set(self, name: str, value: int) -> None:
        ctypes.c_int64.from_address(self.address + POOL[name]).value = value

    def get(self, name: str) -> int:
        """A field of the pool."""
        return ctypes.c_int64.from_address(self.address + POOL[name]).value

    def _time_of_a_look(self) -> float:
        """Seconds that one round of a waiting loop takes; processors differ by a factor of 20."""
        times = []
        for _ in range(5):
            start = time.perf_counter()
            self.native.look(self.address, 1000)
            times.append((time.perf_counter() - start) / 1000)
        return max(min(times), 1e-10)

    def _start(self, number: int) -> None:
        record = self.address + POOL["words"] + LINE * self.threads + 16 * number
        ctypes.c_uint64.from_address(record).value = self.address
        ctypes.c_int64.from_address(record + 8).value = number
        if sys.platform == "win32":
            handle = ctypes.WinDLL("kernel32").CreateThread(  # type: ignore[attr-defined]
                None, STACK, ctypes.c_void_p(self.native.worker), ctypes.c_void_p(record), 0, None
            )
            failed = not handle
        else:
            handle, failed = _posix_thread(self.native.worker, record)
        if failed:
            warnings.warn(
                f"the system made only {number} of {self.threads} threads; steps run on those. Ask "
                "for fewer with CHAINRULE_NUM_THREADS or chainrule.set_num_threads.",
                ChainruleWarning,
                stacklevel=2,
            )
        else:
            self._handles.append(handle)

    def quit(self) -> None:
        """Send the workers home, each after what it is at."""
        self.native.quit(self.address)


def _posix_thread(function: int, argument: int) -> tuple[Any, bool]:
    """A detached thread that leaves all signals to the others."""
    libc = ctypes.CDLL(None)
    handle, attributes = ctypes.c_void_p(), ctypes.create_string_buffer(256)
    libc.pthread_attr_init(attributes)
    libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(STACK))
    libc.pthread_attr_setdetachstate(attributes, 2 if sys.platform == "darwin" else 1)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        failed = libc.pthread_create(
            ctypes.byref(handle), attributes, ctypes.c_void_p(function), ctypes.c_void_p(argument)
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        libc.pthread_attr_destroy(attributes)
    return handle, bool(failed)


# --- this process's -------------------------------------------------------------------------------

_lock = threading.RLock()
_native: Native | None = None
_pool: Pool | None = None
_threads: int | None = None
changes = np.zeros(1, np.int64)
"""How often the pool has become another one. (Native code looks at it where it lies.)"""
programs: weakref.WeakSet[Any] = weakref.WeakSet()
"""All that have an `after_fork()` to be called in the child of a fork."""


def native() -> Native:
    """The runtime's functions, loaded once."""
    global _native
    found = _native
    if found is None:
        with _lock:
            found = _native = _native or Native()
    return found


def pool() -> Pool:
    """The pool, made when it is first asked for."""
    global _pool
    found = _pool  # another thread may let go of it at any time
    if found is None:
        with _lock:
            found = _pool = _pool or Pool(native(), get_num_threads())
            changes[0] += 1
    return found


def current() -> Pool | None:
    """The pool, if there is one."""
    return _pool


def get_num_threads() -> int:
    """How many threads compiled functions may use.

    `CHAINRULE_NUM_THREADS`, or else as many as this process may use cores: those that its affinity
    allows, or fewer if its control group grants it less time. Small steps use fewer by themselves.
    """
    global _threads
    found = _threads
    if found is None:
        found = _threads = _wanted_threads()
    return found


def set_num_threads(threads: int) -> None:
    """Let compiled functions use that many threads; their results are the same for any number.

    Raises:
        ArgumentError: if it is not a whole number, 1 or more.
    """
    global _threads, _pool
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or threads < 1:
        raise ArgumentError(
            f"set_num_threads takes a whole number of threads, 1 or more; got {threads!r}."
        )
    with _lock:
        old, _pool, _threads = _pool, None, int(threads)
        changes[0] += 1
        if old is not None:
            old.quit()


def _after_fork() -> None:
    """In the child there is one thread; the pool's memory is as the others left it."""
    global _lock, _pool
    _lock, _pool = threading.RLock(), None
    changes[0] += 1
    for program in list(programs):
        program.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _at_exit() -> None:
    if _pool is not None:
        _pool.quit()
