import inspect

import pytest
import torch
from torch import nn

from masklora.autograd.forwards import has_foreign_forward, is_altered, replaced_forwards
from masklora.autograd.recompute import checkpoint_blocks


def doubled(module, inner):
    return lambda *args, **kwargs: 2 * inner(*args, **kwargs)


def test_a_replaced_forward_is_called_and_gone_afterwards():
    layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))
    x = torch.ones(1, 2)
    plain = layers[0](x)
    with replaced_forwards(layers, lambda m, inner: doubled(m, inner) if m is layers[0] else None):
        assert torch.equal(layers[0](x), 2 * plain)
        assert isinstance(layers[0], nn.Linear)
        assert "forward" not in vars(layers[1])
        assert list(inspect.signature(layers[0].forward).parameters) == ["input"]
    assert torch.equal(layers[0](x), plain)
    assert "forward" not in vars(layers[0])


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_the_forward_of_another_pack_is_called_and_the_same_object_afterwards(error):
    layer, x = nn.Linear(2, 2), torch.ones(1, 2)
    plain = layer(x)
    foreign = layer.forward = doubled(layer, layer.forward)
    try:
        with replaced_forwards([layer], doubled), replaced_forwards([layer], doubled):
            assert torch.equal(layer(x), 8 * plain)
            if error:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert vars(layer)["forward"] is foreign


def test_an_error_on_the_way_in_leaves_no_module_changed():
    layers = [nn.Linear(2, 2) for _ in range(3)]

    def make(module, inner):
        if module is layers[2]:
            raise ValueError
        return inner

    with pytest.raises(ValueError), replaced_forwards(layers, make):
        pass
    assert all("forward" not in vars(layer) for layer in layers)


def test_a_module_that_is_listed_twice_is_put_back_too():
    layer = nn.Linear(2, 2)
    with replaced_forwards([layer, layer], doubled):
        pass
    assert "forward" not in vars(layer)


def test_ours_are_told_from_those_of_others_whatever_lies_on_top():
    layer = nn.Linear(2, 2)
    with replaced_forwards([layer], doubled), replaced_forwards([layer], doubled):
        assert not has_foreign_forward(layer)
        ours = layer.forward
        layer.forward = doubled(layer, ours)
        assert has_foreign_forward(layer)
        layer.forward = ours
    layer.forward = doubled(layer, layer.forward)
    with replaced_forwards([layer], doubled):
        assert has_foreign_forward(layer)


def test_hooks_count_as_what_others_have_altered():
    layer = nn.Linear(2, 2)
    assert not is_altered(layer)
    handle = layer.register_forward_hook(lambda *a: None)
    assert is_altered(layer)
    handle.remove()
    assert not is_altered(layer)


class Crossing(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3, dtype=torch.float64)

    def forward(self, x):
        return self.layer(x).tanh()


@pytest.mark.parametrize("where", ["block", "layer"])
def test_a_foreign_forward_that_runs_layers_of_another_block_keeps_their_gradient(where):
    torch.manual_seed(0)
    a, b = Crossing(), Crossing()
    module = a if where == "block" else a.layer
    own = module.forward
    module.forward = lambda x: own(x) + b.layer(x)
    x, found = torch.randn(2, 3, dtype=torch.float64), []
    parameters = [*a.parameters(), *b.parameters()]
    found.append(torch.autograd.grad(b(a(x)).square().sum(), parameters))
    with checkpoint_blocks([a, b], mutates=False):
        found.append(torch.autograd.grad(b(a(x)).square().sum(), parameters))
    for plain, ours in zip(*found, strict=True):
        assert torch.allclose(plain, ours, rtol=1e-12)
