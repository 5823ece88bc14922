"""The A of layers that are given one tensor are multiplied at once, and exactly where they turn out not to be."""

import re
import types
import weakref
from collections import Counter

import comfy.ops
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.gradients import MODES, Problem
from harness.damage import ALL
from harness.small import small_models
from masklora.adapters import AdapterSet, adapter_set, thin
from masklora.adapters.shared_input import alike
from masklora.autograd.saved_tensors import saved_tensor_scope
from masklora.host.model.blocks import cross_paths
from masklora.host.model.patches import recast_layers
from masklora.settings import AdapterSettings

NAMES = ("to_q", "to_k", "to_v")
# Given what their siblings are, but named otherwise.
PASSED_OVER = re.compile(r"attn\.gate$")


class Attention(nn.Module):
    """Its caller says what each layer is given, and what happens in between."""

    def __init__(self):
        super().__init__()
        for name in NAMES:
            setattr(self, name, comfy.ops.disable_weight_init.Linear(12, 8))

    def forward(self, calls, x):
        return calls(self, x)


class Toy:
    """An attention under adapters of the layers that `named` matches."""

    def __init__(self, *, named="to_.", dtype=torch.float64, alpha=1.0):
        torch.manual_seed(0)
        self.network, self.dtype = nn.ModuleDict({"attn": Attention()}), dtype
        for p in self.network.parameters():
            p.data = torch.randn(p.shape, dtype=dtype)
        targets = [f"attn.{name}" for name in NAMES if re.fullmatch(named, name)]
        settings = AdapterSettings(rank=3, alpha=alpha)
        self.adapters = AdapterSet(self.network, settings, targets=targets, seed=0, device=torch.device("cpu"))
        for p in self.adapters.parameters().values():
            p.data = torch.randn(p.shape)
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(2, 5, 12, generator=generator, dtype=dtype, requires_grad=True)

    def found(self, calls):
        """What the attention gives, and the gradients of x and of the adapters."""
        with recast_layers(self.network, dtype=self.dtype, device=self.x.device), self.adapters.injected():
            self.adapters.cast(self.dtype)
            try:
                return self._gradients(lambda x: self.network["attn"](calls, x))
            finally:
                self.adapters.drop_cast()

    def wanted(self, calls):
        """The same with each adapter added to its weight."""
        layers = types.SimpleNamespace(**{name: self._merged(name) for name in NAMES})
        return self._gradients(lambda x: calls(layers, x))

    def _merged(self, name):
        layer, path, parameters = getattr(self.network["attn"], name), f"attn.{name}", self.adapters.parameters()
        if path not in self.adapters.targets:
            return layer
        down, up = (parameters[f"{path}.lora_{letter}"].to(self.dtype) for letter in "AB")
        return lambda x: F.linear(x, layer.weight + self.adapters.scaling(path) * up @ down, layer.bias)

    def _gradients(self, attention):
        parameters = self.adapters.parameters()
        with saved_tensor_scope(mutates=True):
            out = attention(self.x * 1)
            total = sum((number + 1) * part.square().sum() for number, part in enumerate(out))
            wanted = [self.x, *parameters.values()]
            gradients = torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)
        return [*out, *gradients]


def written_between(layers, x):
    q = layers.to_q(x)
    x.mul_(2)
    return q, layers.to_k(x), layers.to_v(x)


def a_query_of_its_own(layers, x):
    text = x.flip(1)
    return layers.to_q(x), layers.to_k(text), layers.to_v(text)


def without_a_graph_first(layers, x):
    with torch.no_grad():
        q = layers.to_q(x)
    return q.sigmoid() * layers.to_k(x), layers.to_v(x)


def result_written_to(layers, x):
    q = layers.to_q(x)
    q.mul_(3)
    return q, layers.to_k(x), layers.to_v(x)


# How the layers are called, and in how many of the calls x·Aᵀ is made and taken.
CALLS = {
    "one tensor": (lambda a, x: (a.to_q(x), a.to_k(x), a.to_v(x)), 1, 2),
    "in another order": (lambda a, x: (a.to_v(x), a.to_q(x), a.to_k(x)), 1, 2),
    "a query of its own": (a_query_of_its_own, 2, 1),
    "each its own": (lambda a, x: (a.to_q(x), a.to_k(x * 1), a.to_v(x * 2)), 3, 0),
    "written between": (written_between, 2, 1),
    "one of them twice": (lambda a, x: (a.to_q(x), a.to_k(x), a.to_k(x), a.to_v(x)), 2, 2),
    "one left out": (lambda a, x: (a.to_q(x), a.to_v(x)), 1, 1),
    "the first not read": (lambda a, x: (a.to_q(x), a.to_k(x), a.to_v(x))[1:], 1, 2),
    "only the first read": (lambda a, x: (a.to_q(x), a.to_k(x), a.to_v(x))[:1], 1, 2),
    "without a graph first": (without_a_graph_first, 2, 1),
    "result written to": (result_written_to, 1, 2),
}


@pytest.fixture
def products(monkeypatch):
    """Counts the calls that make x·Aᵀ, and those that are given it."""
    counts = Counter()
    for name in ("FirstProduct", "NextProduct"):
        plain = getattr(thin, name).forward

        def forward(*args, name=name, plain=plain):
            counts[name] += 1
            return plain(*args)

        monkeypatch.setattr(getattr(thin, name), "forward", staticmethod(forward))
    return counts


@pytest.mark.parametrize("alpha", [3.0, 1.5])
@pytest.mark.parametrize("name", CALLS)
def test_results_and_gradients_are_those_of_merged_weights_however_the_layers_are_called(name, alpha, products):
    calls, made, taken = CALLS[name]
    toy = Toy(alpha=alpha)
    found = toy.found(calls)
    assert (products["FirstProduct"], products["NextProduct"]) == (made, taken)
    for a, b in zip(found, toy.wanted(calls), strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("named", ["to_q", "to_[kv]", "to_[qv]"])
def test_layers_without_an_adapter_stay_out(named, dtype, products):
    toy, calls = Toy(named=named, dtype=dtype), CALLS["one tensor"][0]
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    for a, b in zip(toy.found(calls), toy.wanted(calls), strict=True):
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance)
    assert products["FirstProduct"] == 1


def test_nothing_is_held_once_the_module_has_run():
    toy, seen = Toy(), []

    def calls(layers, x):
        own = x * 1
        seen.append(weakref.ref(own))
        return (layers.to_q(own),)

    with recast_layers(toy.network, dtype=toy.dtype, device=toy.x.device), toy.adapters.injected(), torch.no_grad():
        toy.adapters.cast(toy.dtype)
        toy.network["attn"](calls, toy.x)
        assert seen[0]() is None


def test_a_layer_that_another_pack_changed_computes_as_that_pack_has_it(products):
    toy, calls = Toy(), CALLS["one tensor"][0]
    plain = toy.found(calls)
    layer = toy.network["attn"].to_k
    layer.register_forward_hook(lambda module, args, out: out + 1)
    products.clear()
    changed = toy.found(calls)
    assert products == {"FirstProduct": 1, "NextProduct": 1}
    assert torch.allclose(changed[1], plain[1] + 1) and torch.equal(changed[2], plain[2])


def test_a_run_of_fewer_layers_rounds_alike_from_its_first_step_on():
    """A run that goes on from a checkpoint has learned nothing of the calls before."""
    calls = a_query_of_its_own
    fresh, toy = Toy(dtype=torch.bfloat16), Toy(dtype=torch.bfloat16)
    for other in CALLS.values():
        toy.found(other[0])
    assert all(torch.equal(a, b) for a, b in zip(fresh.found(calls), toy.found(calls), strict=True))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", ["sd15", "wan", "hidream"] if ALL else ["wan"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_of_a_network_are_those_without(family, mode, dtype, monkeypatch):
    found = Problem(family, dtype=dtype).gradients(mode)
    monkeypatch.setattr(adapter_set, "alike", lambda paths, cross: [])
    wanted = Problem(family, dtype=dtype).gradients(mode)
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= (1e-12 if dtype == torch.float64 else 1e-5) * gradient.norm() + 1e-30


def given_one_tensor(problem):
    """Of the adapted layers those that were given the very same tensor, by module."""
    groups, kept = {}, []

    def note(module, args, path):
        kept.append(args[0])
        groups.setdefault((path.rpartition(".")[0], id(args[0]), args[0]._version), []).append(path)

    targets, hooks = problem.adapters.targets, []
    with problem.trainable.session(problem.adapters, checkpointing="off"), torch.no_grad():
        for path in targets:
            module = problem.network.get_submodule(path)
            hooks.append(module.register_forward_pre_hook(lambda m, args, path=path: note(m, args, path)))
        problem.terms()[0]()
    for hook in hooks:
        hook.remove()
    return [set(group) for group in groups.values() if len(group) > 1]


@pytest.mark.parametrize("family", list(small_models()) if ALL else ["sd15", "wan", "qwen_image", "z_image", "krea2"])
def test_names_tell_which_layers_are_given_one_tensor(family):
    problem = Problem(family, dtype=torch.float32)
    linear = {path: module.in_features for path, module in problem.network.named_modules() if _is_target(problem, path)}
    named = [set(group) for group in alike(linear, cross=cross_paths(problem.network, problem.trainable.blocks))]
    given = [{path for path in group if not PASSED_OVER.search(path)} for group in given_one_tensor(problem)]
    for group in given:
        assert any(group <= other for other in named), group
    for group in named:
        assert any(group <= other for other in given), group


def _is_target(problem, path):
    return path in problem.adapters.targets and hasattr(problem.network.get_submodule(path), "in_features")


def test_names_that_are_alike_but_for_what_they_are():
    paths = {"a.to_q": 8, "a.to_k": 8, "a.to_v": 4, "b.qkv": 8, "b.proj": 8, "c.w1": 8, "c.w2": 8, "c.w3": 8}
    paths |= {"d.q_norm": 8, "d.kv_linear": 8, "d.gate_proj": 8, "d.up_proj": 8, "e.w1q": 8, "e.w2q": 8, "e.w1k": 8}
    assert alike(paths) == [["a.to_q", "a.to_k"], ["c.w1", "c.w3"], ["d.gate_proj", "d.up_proj"], ["e.w1q", "e.w1k"]]
