"""Defaults of the model families, and what a person's own value does to them."""

import pytest

from masklora.host.families import families, with_defaults
from masklora.settings import AdapterSettings, LossSettings, OptimizerSettings, TrainSettings


def resolved(family, *, loss=None, optimizer=None):
    return with_defaults(
        family,
        loss=loss or LossSettings(),
        adapter=AdapterSettings(),
        optimizer=optimizer or OptimizerSettings(),
        train=TrainSettings(),
    )


@pytest.mark.parametrize("family", families(), ids=lambda f: f.name)
def test_prodigy_starts_from_one_and_every_other_optimizer_from_the_familys_rate(family):
    assert resolved(family, optimizer=OptimizerSettings(optimizer="prodigy")).optimizer.learning_rate == 1.0
    assert resolved(family).optimizer.learning_rate == family.defaults.learning_rate
    asked = OptimizerSettings(optimizer="prodigy", learning_rate=0.5)
    assert resolved(family, optimizer=asked).optimizer.learning_rate == 0.5


@pytest.mark.parametrize("family", families(), ids=lambda f: f.name)
def test_default_sampling_keeps_a_mean_and_spread_that_were_set(family):
    loss = resolved(family, loss=LossSettings(timestep_mean=0.7, timestep_std=1.5)).loss
    assert loss.timestep_sampling == family.defaults.timestep_sampling
    assert (loss.timestep_mean, loss.timestep_std) == (0.7, 1.5)
