"""The ids of opened data sets."""

import pytest

from masklora.host.page import opened
from masklora.host.paths import own_folder


@pytest.fixture
def restart():
    """Forgets what this process knows, as a new one would begin."""
    opened._salt.cache_clear()
    yield opened._salt.cache_clear
    opened._salt.cache_clear()


def test_ids_outlast_a_restart_and_a_broken_file_gives_new_ones(restart):
    first = opened._salt()
    restart()
    assert opened._salt() == first and len(first) == 32
    restart()
    (own_folder() / "data_set_ids").write_bytes(b"\xff not hexadecimal")
    second = opened._salt()
    assert second != first
    restart()
    assert opened._salt() == second
