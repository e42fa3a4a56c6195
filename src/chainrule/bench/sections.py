"""The parts of the page: what each measures, says, and how it is made into tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from chainrule.bench import losses, products, race, report, start, studies
from chainrule.bench.run import Say, Settings, measure, quiet
from chainrule.bench.workloads import Workload, chosen

Records = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Table:
    """Rows under their columns, and what stands above them."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""


@dataclass(frozen=True)
class Section:
    """One part.

    Attributes:
        name: for `--study`; "rows" is what runs without it.
        title, text: its heading, and what a reader must know.
        minutes: how long it takes, about, on two processors with all peers.
        rounds, seconds: of its settings, unless others are asked for.
        run: measures it.
        tables: tables and paragraphs of what was measured.
    """

    name: str
    title: str
    text: str
    minutes: float
    rounds: int
    seconds: float
    run: Callable[[Settings, Say], list[dict[str, Any]]]
    tables: Callable[[Records], list[Table | str]]


def key(record: dict[str, Any]) -> str:
    """What a record is of; a newer one of the same takes its place."""
    return record.get("label") or record["workload"]


# --- the rows -------------------------------------------------------------------------------------


def run_rows(names: list[str], settings: Settings, say: Say = quiet) -> list[dict[str, Any]]:
    """The workloads of some names or groups; all for an empty list."""
    return [measure(workload, settings, say) for workload in chosen(names)]


def rows_minutes(workloads: Sequence[Workload]) -> float:
    return sum(0.12 if workload.model == "gemm" else 0.42 for workload in workloads)


def _rows_tables(records: Records) -> list[Table | str]:
    means = [(k, f"{v:.2f}") for k, v in report.summary(records).items()]
    failed = [(r["workload"], k, why) for r in records for k, why in r["failed"].items()]
    parts: list[Table | str] = [
        Table(report.COLUMNS, report.rows(records)),
        Table(("rows", "ratio"), means, "Geometric means"),
    ]
    peers = report.peer_rows(records)
    if peers:
        parts += [
            Table(report.PEER_COLUMNS, peers, "Peers beside what is expected of them"),
            "Expected is what the peer took when the targets were set, on the same kind of "
            "processor. A peer that is more than 25 % slower than that means a set-up that does "
            "not do it justice, or a disturbed machine, and not a win.",
        ]
    parts.append(
        Table(report.CONTESTANT_COLUMNS, report.contestant_rows(records), "Every contestant")
    )
    if failed:
        parts.append(Table(("workload", "contestant", "why"), failed, "Did not run"))
    return parts


def _growth_tables(records: Records) -> list[Table | str]:
    return [Table(studies.COLUMNS, studies.study_rows(records))]


def _threads_tables(records: Records) -> list[Table | str]:
    return [
        Table(studies.SPEEDUP_COLUMNS, studies.speedups(records)),
        Table(studies.COLUMNS, studies.study_rows(records), "Beside the fastest peer"),
    ]


def _contention_tables(records: Records) -> list[Table | str]:
    return [
        Table(studies.CONTENTION_COLUMNS, studies.contention_rows(records)),
        Table(studies.SLOWDOWN_COLUMNS, studies.slowdowns(records), "Every contestant"),
    ]


def _start_tables(records: Records) -> list[Table | str]:
    said = start.sentences(records)
    return [Table(start.COLUMNS, start.rows(records)), *(["\n".join(f"- {x}" for x in said)])]


_ROWS = """\
Every contestant starts from the same weights, takes the same batch, and lives in a process of its
own, pinned to the same processors; they run in turn, round after round. Ratio = median time of the
fastest peer over ours; above 1 chainrule is faster. A first call begins with an empty cache, makes
the model, compiles, and takes a step. Losses are compared over 20 steps with a float64 run of the
same start; an inference and a product have none."""
_PRODUCTS = """\
Matrix products on one thread, as a share of what multiply-adds that need no memory reach on the
same core right before each timing. The time is the thread's own; the call of the program, about a
microsecond, is in it."""
_START = """\
The call alone, without imports and without making the model: with an empty cache, and in a second
process after it, which finds the program on disk. The shortest of all rounds."""
_BATCH = """\
Time is to grow no faster than the batch does, four times from row to row, and nothing is to fall
off a cliff. `torch.compile`, which takes seconds to compile at every point, is left out of the
studies of growth and of threads; the rows above show where it stands."""
_DEPTH = "Dense layers of 128 units with ReLU, batch 64, SGD: twice the depth, twice the time."
_LENGTH = """\
Causal attention, 4 heads of 32, forward and backward: twice the length is to take four times as
long (time is quadratic) and at most twice the memory (memory is linear, beside what the libraries
themselves take)."""
_THREADS = "The same rows on one thread and on two."
_CONTENTION = """\
Beside a process that keeps one of the two processors busy and never sleeps. Steps are compared by
their mean, as a step that waits for a processor takes long, and most do not. A slowdown of 2 is
what half of the machine costs."""
_LOSSES = """\
The largest distance of the losses over 20 steps from a float64 run with the same start (PyTorch's,
where it is installed), over several starts. Rounding alone gives distances about 1e-6. A distance
far above that, from some starts and in every contestant, is a unit of ReLU whose input lies within
rounding of 0: it is on in one run and off in the other, and from that step on two different
trainings are compared. Batch norm over a long chain of layers (ResNet-20) magnifies rounding
without any such unit. A contestant is at fault if it is above the limit markedly more often than
the others."""
_MNIST = """\
LeNet on MNIST, 5 epochs of batches of 64, SGD with momentum: the same start and the same batches in
the same order; training counts from before the first call, so that compiling is in it."""

SECTIONS: dict[str, Section] = {
    s.name: s
    for s in (
        Section(
            "rows", "Training steps and products", _ROWS, 7, 5, 0.2, partial(run_rows, []),
            _rows_tables,
        ),
        Section(
            "products", "Share of the ceiling", _PRODUCTS, 0.6, 6, 0.1, products.measure,
            lambda records: [Table(products.COLUMNS, products.rows(records))],
        ),
        Section(
            "start", "First calls and the cost of a call", _START, 0.7, 3, 0.1, start.measure,
            _start_tables,
        ),
        Section(
            "batch", "Cost by batch", _BATCH, 1.7, 3, 0.2, partial(studies.run_study, "batch"),
            _growth_tables,
        ),
        Section(
            "depth", "Cost by depth", _DEPTH, 1.2, 3, 0.2, partial(studies.run_study, "depth"),
            _growth_tables,
        ),
        Section(
            "length", "Attention by length", _LENGTH, 2, 3, 0.2,
            partial(studies.run_study, "length"), _growth_tables,
        ),
        Section(
            "threads", "One thread and two", _THREADS, 2.5, 2, 0.25,
            partial(studies.run_study, "threads"), _threads_tables,
        ),
        Section(
            "contention", "Contention", _CONTENTION, 3.5, 3, 0.25, studies.contention,
            _contention_tables,
        ),
        Section(
            "losses", "Losses against float64", _LOSSES, 4, 1, 0.1, losses.measure,
            lambda records: [Table(losses.COLUMNS, losses.rows(records))],
        ),
        Section(
            "mnist", "A whole training run", _MNIST, 1.5, 1, 0.1, race.race,
            lambda records: [Table(race.COLUMNS, race.race_rows(records))],
        ),
    )
}  # fmt: skip
