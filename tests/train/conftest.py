from __future__ import annotations

import pytest
from small_problem import Problem


@pytest.fixture
def problem():
    return Problem()
