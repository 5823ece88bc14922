"""Every family is tested with a small model of its own."""

import pytest

from harness.models import small_model
from harness.small import small_models
from masklora.host.families import families
from masklora.host.model.trainable import TrainableModel


def test_every_family_has_a_small_model_of_its_name():
    assert {family.name for family in families()} <= set(small_models())


@pytest.mark.parametrize("name", list(small_models()))
def test_a_small_model_is_of_the_family_that_it_stands_for(name):
    assert TrainableModel(small_model(name)).family.name == small_models()[name].family
