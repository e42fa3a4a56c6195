"""`chainrule bench`: the same training steps in chainrule and in its peers, measured in one run.

Each contestant lives in a process of its own, pinned to the same processors and given the same
weights and batches (`worker`); the parent lets them run in turn, round after round, so that a
machine that slows down slows all of them (`run`); what comes out is a table, JSON, and a page
(`report`). Peers are optional: those that are not installed are left out and named.
"""

from chainrule.bench.report import page, rows, summary
from chainrule.bench.run import Settings, measure
from chainrule.bench.workloads import WORKLOADS, Workload

__all__ = ["WORKLOADS", "Settings", "Workload", "measure", "page", "rows", "summary"]
