"""Defaults of the model families, and what a person's own value does to them."""

import pytest

from harness.models import small_model
from harness.small import small_models
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


@pytest.mark.parametrize(
    ("name", "told"), [("flux2", ["distilled"]), ("flux2_dev", []), ("flux", []), ("wan", ["0.875"])]
)
def test_a_note_is_for_the_models_that_it_is_about(name, told):
    network = small_model(name).model.diffusion_model
    (family,) = (f for f in families() if f.name == small_models()[name].family)
    notes = family.notes_for(network)
    assert len(notes) == len(told) and all(word in note for word, note in zip(told, notes, strict=True))
