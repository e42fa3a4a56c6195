"""Matrix products' share of one core's ceiling: python tools/measure_products.py [MxKxN ...]

Each product is compiled as NN, TN and NT and timed between runs of a loop of multiply-adds that
needs no memory (chainrule.compiler.native.ceiling); of several rounds the shortest time counts.
With one thread the time is the thread's own, so that other processes disturb it only through the
caches; with more (--threads N) it is the clock's. The benchmark's own products on one thread:
`chainrule bench --study products`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import chainrule as cr
from chainrule.bench.products import product
from chainrule.compiler.native.ceiling import ceiling

SQUARES = [(n, n, n) for n in (256, 512, 1024, 2048)]
RECTANGLES = [
    (32, 784, 16), (128, 784, 512), (128, 512, 512), (2048, 128, 512), (2048, 512, 128),
]  # fmt: skip


def seconds(run: Callable[[], object], clock: Callable[[], float], calls: int) -> float:
    """The mean time of some calls."""
    start = clock()
    for _ in range(calls):
        run()
    return (clock() - start) / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shapes", nargs="*", help="MxKxN; those of the benchmark if none")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args()
    shapes = [tuple(map(int, s.split("x"))) for s in given.shapes] or [*SQUARES, *RECTANGLES]
    cr.set_num_threads(given.threads)
    clock = time.thread_time if given.threads == 1 else time.perf_counter
    peak = ceiling(None, given.dtype)
    print("product              layout        us   GFLOP/s   of the ceiling")
    for m, k, n in shapes:
        for layout in ("NN", "TN", "NT"):
            run, flops = product((m, k, n), layout, given.dtype), 2 * m * k * n
            calls = max(1, int(1e8 // flops))
            best = most = 0.0
            for _ in range(given.rounds):
                most = max(most, peak.flops(threads=given.threads))
                best = max(best, flops / seconds(run, clock, calls))
            name = f"{m}x{k}x{n}"
            print(
                f"{name:<20} {layout:<6} {flops / best * 1e6:>9.1f} {best / 1e9:>9.1f} "
                f"{best / most:>9.1%} of {most / 1e9:.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
