"""Fixtures of the tests of files."""

import pytest


@pytest.fixture(scope="session")
def scratch(tmp_path_factory):
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("serialize")
