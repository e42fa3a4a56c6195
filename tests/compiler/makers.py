"""For each primitive a function that adds one application of it to a graph being made."""

import makers_elements  # noqa: F401 - registers its makers
import makers_structures  # noqa: F401
from making import MAKERS

__all__ = ["MAKERS"]
