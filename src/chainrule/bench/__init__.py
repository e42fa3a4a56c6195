"""`chainrule bench`: the same training steps in chainrule and in its peers, measured in one run.

Each contestant lives in a process of its own, pinned to the same processors and given the same
weights and batches (`worker`); the parent lets them run in turn, round after round, so that a
machine that slows down slows all of them (`run`). The rows and the studies (`sections`) become
tables, JSON, and a page (`page`). Peers are optional: those that are not installed are left out.
"""

from chainrule.bench.run import Settings, measure
from chainrule.bench.sections import SECTIONS
from chainrule.bench.workloads import WORKLOADS, Workload

__all__ = ["SECTIONS", "WORKLOADS", "Settings", "Workload", "measure"]
