"""A model and its adapters together are what the training loop asks for, and so is the toy that stands for it."""

import inspect

import pytest
import torch

from harness.models import small_model
from harness.toy import ToyNet
from masklora.host.model.adapted import AdaptedModel
from masklora.host.model.trainable import TrainableModel
from masklora.settings import AdapterSettings
from masklora.training.job import Trainable

MEMBERS = {name: member for name, member in vars(Trainable).items() if not name.startswith("_")}


def adapted(family):
    model = TrainableModel(small_model(family))
    return AdaptedModel(model, model.make_adapters(AdapterSettings(rank=2, alpha=2.0, dropout=0.5), seed=0))


@pytest.mark.parametrize("make", [lambda: adapted("sd15"), ToyNet], ids=["model with adapters", "toy"])
def test_everything_that_training_asks_for_is_there_with_the_same_arguments(make):
    model = make()
    assert len(MEMBERS) > 10
    for name, member in MEMBERS.items():
        found = getattr(model, name)
        if not isinstance(member, property):
            wanted = [p for p in inspect.signature(member).parameters.values() if p.name != "self"]
            given = inspect.signature(found).parameters.values()
            assert [(p.name, p.kind) for p in given] == [(p.name, p.kind) for p in wanted], name


@pytest.mark.parametrize(("family", "has_tokens"), [("sd15", False), ("flux", True)])
def test_grid_tokens_and_parameters_are_the_model_s_and_the_adapters_own(family, has_tokens):
    model = adapted(family)
    assert model.grid_of((64, 48)) == (6, 8)
    assert (model.tokens is not None) == has_tokens
    assert model.params.keys() == model.adapters.parameters().keys()
    assert model.grad_scaling is False and model.device == torch.device("cpu")
