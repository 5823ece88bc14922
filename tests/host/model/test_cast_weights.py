"""Adapters cast once a step for all layers give what a cast in every layer and pass gives."""

import functools
from unittest import mock

import pytest
import torch

from harness.damage import ALL
from harness.models import small_model, small_side, small_text
from masklora.adapters import adapter_set, thin
from masklora.adapters.adapter_set import AdapterSet
from masklora.dataset.geometry import Geometry
from masklora.host.model.adapted import AdaptedModel
from masklora.host.model.trainable import TrainableModel
from masklora.settings import OPTIMIZERS, AdapterSettings, OptimizerSettings
from masklora.training.weights import Weights

SQUARE = Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))
MODES = ("off", "per block", "whole model")
CASES = [("flux", mode, 2) for mode in MODES] + [("sd15", "per block", 1)]
if ALL:
    CASES = [(name, mode, terms) for name in ("sd15", "flux", "z_image", "wan") for mode in MODES for terms in (1, 2)]


class Bench:
    """A small model that computes in bfloat16, and adapters whose weights are float32."""

    def __init__(self, name, **adapter):
        self.name, self.trainable = name, TrainableModel(small_model(name), dtype=torch.bfloat16)
        # Layers that share a product round otherwise than alone.
        with mock.patch.object(adapter_set, "alike", lambda paths, cross: []):
            self.adapters = self.trainable.make_adapters(AdapterSettings(rank=4, alpha=4.0, **adapter), seed=0)
        generator = torch.Generator().manual_seed(3)
        for path, p in self.parameters().items():
            if path.endswith("lora_B"):
                p.data.normal_(0, 0.02, generator=generator)
        side = small_side(self.trainable.family)
        self.noisy = torch.randn(2, self.trainable.channels, side, side, generator=generator)
        self.u = torch.tensor([0.3, 0.8])

    def parameters(self):
        return self.adapters.parameters()

    def predict(self):
        texts = [small_text(self.name, tokens=20, seed=seed) for seed in (0, 1)]
        conditioning = self.trainable.collate(texts, [SQUARE] * 2, self.noisy.shape[1:])
        return self.trainable.denoise(self.noisy, self.u, conditioning)

    def gradients(self, mode, *, terms=1):
        """After so many backward passes on the same weights."""
        for p in self.parameters().values():
            p.grad = None
        with self.trainable.session(self.adapters, checkpointing=mode):
            for term in range(terms):
                with self.trainable.autograd_scope():
                    (self.predict() - term).square().mean().backward()
        return {path: p.grad for path, p in self.parameters().items() if p.grad is not None}


def in_every_layer(monkeypatch):
    monkeypatch.setattr(AdapterSet, "cast", lambda self, dtype: None)


@pytest.fixture(scope="module")
def benches():
    return functools.cache(Bench)


@pytest.mark.parametrize(("name", "mode", "terms"), CASES)
def test_gradients_are_bit_for_bit_those_of_a_cast_in_every_layer(name, mode, terms, benches, monkeypatch):
    bench = benches(name)
    found = bench.gradients(mode, terms=terms)
    in_every_layer(monkeypatch)
    wanted = bench.gradients(mode, terms=terms)
    assert found.keys() == wanted.keys() and len(found) > 10
    assert all(torch.equal(found[path], wanted[path]) and wanted[path].any() for path in found)


def test_terms_of_a_step_share_the_copies_and_the_next_step_makes_new_ones(benches, monkeypatch):
    bench, made = benches("flux"), []
    plain = thin._copy
    monkeypatch.setattr(thin, "_copy", lambda places, tensors: made.append(len(tensors)) or plain(places, tensors))
    count = len(bench.parameters())
    with bench.trainable.session(bench.adapters):
        for _ in range(2):
            with bench.trainable.autograd_scope():
                bench.predict().square().mean().backward()
        # Forth once, and back once a term.
        assert made == [count] * 3
        with torch.no_grad():
            for p in bench.parameters().values():
                p.add_(0.01)
        with bench.trainable.autograd_scope():
            moved = bench.predict().detach()
        assert made == [count] * 4
    in_every_layer(monkeypatch)
    with bench.trainable.session(bench.adapters), torch.no_grad():
        assert torch.equal(bench.predict(), moved)


@pytest.mark.parametrize("optimizer", OPTIMIZERS if ALL else ["adamw", "prodigy"])
def test_each_step_of_an_optimizer_is_computed_with_the_weights_that_the_last_one_left(optimizer):
    if optimizer == "adamw8bit":
        pytest.importorskip("bitsandbytes", reason="a package of the user's own choice")

    def trained(*, anew):
        bench, losses = Bench("flux"), []
        settings = OptimizerSettings(optimizer=optimizer, learning_rate=1e-2)
        weights = Weights(AdaptedModel(bench.trainable, bench.adapters), settings)
        with bench.trainable.session(bench.adapters):
            for _ in range(3):
                if anew:
                    bench.adapters.drop_cast()
                with bench.trainable.autograd_scope():
                    loss = (bench.predict() - 1).square().mean()
                    weights.backward(loss)
                weights.update(3)
                losses.append(loss.item())
        return losses

    losses = trained(anew=False)
    assert losses == trained(anew=True) and len(set(losses)) == 3


def test_weights_worn_for_a_while_are_computed_with(benches):
    bench = benches("flux")
    weights = Weights(
        AdaptedModel(bench.trainable, bench.adapters), OptimizerSettings(learning_rate=1e-3, ema_decay=0.9)
    )
    for average in weights.ema.shadow.values():
        average.zero_()
    with bench.trainable.session(bench.adapters), torch.no_grad():
        before = bench.predict()
        with weights.wearing_result():
            worn = bench.predict()
        with bench.adapters.disabled():
            assert torch.equal(worn, bench.predict())
        assert torch.equal(bench.predict(), before) and not torch.equal(worn, before)


@pytest.mark.parametrize("mode", MODES)
def test_a_pass_without_gradients_between_forward_and_backward_changes_no_gradient(mode, benches):
    bench = benches("flux")
    parameters = list(bench.parameters().values())

    def gradients(between):
        with bench.trainable.session(bench.adapters, checkpointing=mode), bench.trainable.autograd_scope():
            loss = bench.predict().square().mean()
            if between:
                with torch.no_grad():
                    bench.predict()
            return torch.autograd.grad(loss, parameters, materialize_grads=True)

    assert all(torch.equal(a, b) and a.any() for a, b in zip(gradients(True), gradients(False), strict=True))


def test_weights_that_are_exchanged_for_a_while_are_the_ones_that_count(benches):
    """As the average's are for held-out losses."""
    bench = benches("flux")
    with bench.trainable.session(bench.adapters), torch.no_grad():
        before = bench.predict()
        own = {path: p.data for path, p in bench.parameters().items()}
        for p in bench.parameters().values():
            p.data = torch.zeros_like(p)
        base = bench.predict()
        with bench.adapters.disabled():
            assert torch.equal(bench.predict(), base)
        for path, p in bench.parameters().items():
            p.data = own[path]
        assert torch.equal(bench.predict(), before) and not torch.equal(base, before)


def test_a_layer_that_computes_in_another_dtype_has_its_weights_whole():
    """As those that tell the time of a model in bfloat16 do."""
    torch.manual_seed(0)
    bench = Bench("flux")
    layer = next(x for x in bench.adapters._wrappers.values() if isinstance(x, thin.ThinLinear))
    x = torch.randn(2, 3, layer.in_features)
    with torch.enable_grad():
        wanted = layer(x)
        wanted.sum().backward()
        gradient, layer.lora_B.default.weight.grad = layer.lora_B.default.weight.grad, None
        bench.adapters.cast(torch.bfloat16)
        found = layer(x)
        found.sum().backward()
    assert torch.equal(found, wanted)
    assert torch.allclose(layer.lora_B.default.weight.grad, gradient, rtol=2**-8)


def test_where_the_model_computes_in_the_adapters_dtype_nothing_is_copied_and_nothing_stays_after_a_session():
    bench = Bench("flux")
    bench.adapters.cast(torch.float32)
    assert all(layer.cast is None for layer in bench.adapters._wrappers.values())
    bench.gradients("per block")
    assert all(layer.cast is None for layer in bench.adapters._wrappers.values())


def test_dora_computes_in_its_own_way(monkeypatch):
    found = Bench("flux", algorithm="dora").gradients("per block")
    in_every_layer(monkeypatch)
    wanted = Bench("flux", algorithm="dora").gradients("per block")
    assert all(torch.equal(found[path], wanted[path]) for path in found) and any("magnitude" in path for path in found)
