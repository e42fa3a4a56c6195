import pytest


@pytest.fixture(scope="session", autouse=True)
def nothing_on_disk():
    """What tests compile is not kept; the tests of the cache choose a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHAINRULE_CACHE", "0")
        yield
