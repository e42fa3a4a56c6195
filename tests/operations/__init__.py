"""The table of operations: one row for each, which drives every test of it.

To add an operation add its row to the file of its kind; test_operations.py does the rest.
"""

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update(
    "jax_disable_most_optimizations", True
)  # its programs run once: compile them soon

from . import (  # noqa: E402
    bits,
    control,
    elementwise,
    indexing,
    linear,
    movement,
    reductions,
    windows,
)
from .table import Array, Case, Operation  # noqa: E402

OPERATIONS: tuple[Operation, ...] = (
    *elementwise.ROWS,
    *reductions.ROWS,
    *movement.ROWS,
    *indexing.ROWS,
    *linear.ROWS,
    *windows.ROWS,
    *bits.ROWS,
    *control.ROWS,
)

__all__ = ["OPERATIONS", "Array", "Case", "Operation"]
