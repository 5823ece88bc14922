"""What we train is what ComfyUI samples: our raw output and our schedule against its own `apply_model`."""

import pytest

from benchmarks.against_core import LEVELS, AtLevel
from harness.small import tried

NAMES = tried()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_the_clean_latent_of_our_raw_output_is_the_one_that_core_samples_with(name, level):
    assert AtLevel(name, level).prediction_apart() <= 1e-6


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_where_the_network_answers_with_our_target_core_gets_the_clean_latent(name, level):
    assert AtLevel(name, level).target_apart() <= 1e-6
