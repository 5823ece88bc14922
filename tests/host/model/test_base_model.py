"""The base model's prediction that the prior needs: the untouched MODEL's, and no trace of having been asked."""

import comfy.model_management
import comfy.sd
import comfy_extras.nodes_model_advanced
import pytest
import torch

from benchmarks.gradients import MODES
from harness.models import small_model, small_side, small_text
from harness.small import widely
from masklora.adapters import to_comfyui
from masklora.dataset.geometry import Geometry
from masklora.host.model.adapted import AdaptedModel
from masklora.host.model.layer_names import layer_names
from masklora.host.model.patches import training_kernels
from masklora.host.model.trainable import TrainableModel
from masklora.loss.noise import add_noise
from masklora.settings import AdapterSettings, LossSettings
from masklora.training.microbatch import MicroBatch
from masklora.training.objective import Objective

# Small models, and an ε model that a sampling patch makes one of v.
CASES = [*widely(), "sd15 v"]
LIGHT = ["sd15", "sd3", "flux"]
SQUARE = Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))


def make_model(case):
    family, _, v = case.partition(" ")
    patcher = small_model(family)
    if v:
        node = comfy_extras.nodes_model_advanced.ModelSamplingDiscrete()
        (patcher,) = node.patch(patcher, "v_prediction", zsnr=False)
    return patcher


@pytest.fixture(scope="module")
def prepared():
    """A model by case, and what it predicted while it was untouched."""
    made = {}

    def get(case):
        if case not in made:
            trainable = TrainableModel(make_model(case))
            # Before it had an adapter, by the functions that all training runs with.
            with torch.no_grad(), training_kernels():
                made[case] = trainable, Inputs(trainable, case).predict()
        return made[case]

    return get


def make_adapters(trainable, **settings):
    settings = {"rank": 4, "alpha": 4.0, "dropout": 0.3, **settings}
    adapters = trainable.make_adapters(AdapterSettings(**settings), seed=0)
    generator = torch.Generator().manual_seed(3)
    for name, p in adapters.parameters().items():
        if name.endswith("lora_B"):
            p.data.normal_(0, 0.02, generator=generator)
    return adapters


class Inputs:
    """A batch of two unlike samples with unlike soft masks, and the predictions of it."""

    def __init__(self, trainable, case):
        self.trainable = trainable
        g = torch.Generator().manual_seed(1)
        self.grid = (small_side(trainable.family),) * 2
        shape = (2, trainable.channels, *self.grid)
        self.latent, noise = (torch.randn(shape, generator=g) for _ in range(2))
        self.u = torch.tensor([0.3, 0.8])
        self.noisy = add_noise(self.latent, noise, self.u, schedule=trainable.schedule)
        self.mask = (1.6 * torch.rand(2, 1, *self.grid, generator=g) - 0.6).clamp(min=0)
        self.texts = [small_text(case.partition(" ")[0], tokens=77, seed=s) for s in (0, 1)]

    def conditioning(self):
        return self.trainable.collate(self.texts, [SQUARE] * 2, self.noisy.shape[1:])

    def predict(self):
        return self.trainable.denoise(self.noisy, self.u, self.conditioning())

    def base(self, adapters):
        with torch.no_grad(), adapters.disabled():
            return self.predict()

    def gradients(self, adapters, *, mode, denoise=None, **settings):
        """Of the trainer's own objective, from the same random numbers each time."""
        t, parameters = self.trainable, adapters.parameters()
        model = AdaptedModel(t, adapters)
        model.denoise = denoise or t.denoise
        with t.session(adapters, checkpointing=mode):
            batch = MicroBatch(self.latent, self.mask, self.grid, self.conditioning(), torch.ones(2), ("a", "b"))
            torch.manual_seed(5)
            generator = torch.Generator().manual_seed(6)
            with model.autograd_scope():
                objective, loss = Objective(model, seed=0), LossSettings(**settings)
                value, seen = objective.terms(batch, loss, generator, number=0, progress=0.0)[0]()
                found = torch.autograd.grad(value, list(parameters.values()), materialize_grads=True)
        return found, seen, torch.get_rng_state()


def take_step(inputs, adapters):
    parameters = list(adapters.parameters().values())
    with inputs.trainable.autograd_scope():
        found = torch.autograd.grad(inputs.predict().square().mean(), parameters, materialize_grads=True)
    for p, g in zip(parameters, found, strict=True):
        p.data -= 0.1 * g / (g.norm() + 1e-8)


@pytest.mark.parametrize(("case", "algorithm"), [(c, "lora") for c in CASES] + [(c, "dora") for c in LIGHT])
def test_without_its_adapter_the_model_predicts_bit_for_bit_as_the_untouched_one_also_after_steps(
    case, algorithm, prepared
):
    trainable, expected = prepared(case)
    inputs, adapters = Inputs(trainable, case), make_adapters(trainable, algorithm=algorithm)
    for mode in MODES:
        with trainable.session(adapters, checkpointing=mode):
            with torch.no_grad():
                assert not torch.allclose(inputs.predict(), expected, atol=1e-4), "the adapter had no effect"
            for _ in range(2):
                with trainable.autograd_scope():
                    state = torch.get_rng_state()
                    found = inputs.base(adapters)
                    assert torch.equal(torch.get_rng_state(), state)
                assert torch.equal(found, expected)
                assert not found.requires_grad
                take_step(inputs, adapters)


@pytest.mark.parametrize(("case", "mode"), [(c, m) for c in CASES for m in MODES if c in LIGHT or m == "per block"])
def test_asking_the_base_model_changes_neither_the_gradient_nor_the_random_numbers(case, mode, prepared):
    trainable, _ = prepared(case)
    inputs, adapters = Inputs(trainable, case), make_adapters(trainable)
    plain, unseen, state = inputs.gradients(adapters, mode=mode, prior_weight=0.0)
    asked, seen, state_asked = inputs.gradients(adapters, mode=mode, prior_weight=1e-30)
    assert "drift" not in unseen and seen["drift"] > 0
    assert torch.equal(state, state_asked)
    for a, b in zip(plain, asked, strict=True):
        assert torch.equal(a, b)
    strong, _, _ = inputs.gradients(adapters, mode=mode, prior_weight=1.0)
    assert any(not torch.allclose(a, b, rtol=1e-2) for a, b in zip(plain, strong, strict=True))


class Calls:
    """A model that notes what it is asked and what it answers, or fails."""

    def __init__(self, trainable, error=None):
        self.trainable, self.error, self.seen = trainable, error, []

    def __call__(self, noisy, u, conditioning):
        if self.error:
            raise self.error
        given = noisy.clone(), u.clone(), conditioning
        out = self.trainable.denoise(noisy, u, conditioning)
        self.seen.append((*given, out))
        return out


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", LIGHT)
def test_both_models_are_asked_the_same_and_the_base_model_first_and_without_a_graph(case, mode, prepared):
    trainable, _ = prepared(case)
    inputs, adapters, calls = Inputs(trainable, case), make_adapters(trainable), Calls(trainable)
    inputs.gradients(adapters, mode=mode, denoise=calls, prior_weight=1.0)
    (noisy, u, text, base), (noisy_again, u_again, text_again, prediction) = calls.seen
    assert torch.equal(noisy, noisy_again) and torch.equal(u, u_again) and text is text_again
    assert base.grad_fn is None and prediction.requires_grad
    assert not torch.allclose(base, prediction, atol=1e-4)


@pytest.mark.parametrize("error", [RuntimeError, comfy.model_management.InterruptProcessingException])
@pytest.mark.parametrize("mode", MODES)
def test_the_adapter_is_back_after_an_error_in_the_base_model(mode, error, prepared):
    trainable, _ = prepared("flux")
    inputs, adapters = Inputs(trainable, "flux"), make_adapters(trainable)
    before, _, _ = inputs.gradients(adapters, mode=mode)
    with pytest.raises(error):
        inputs.gradients(adapters, mode=mode, denoise=Calls(trainable, error("stopped")), prior_weight=1.0)
    after, _, _ = inputs.gradients(adapters, mode=mode)
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("case", ["sd15", "flux"])
def test_the_base_of_a_model_that_brings_its_own_lora_is_the_model_with_it(case, prepared):
    bare, untouched = prepared(case)
    own = make_adapters(bare, dropout=0.0)
    factors = own.factors()
    names = layer_names(bare.model, bare.family)
    patched, _ = comfy.sd.load_lora_for_models(make_model(case), None, to_comfyui(factors, names=names.kohya), 1.0, 0.0)
    merged = TrainableModel(make_model(case))
    with torch.no_grad():
        for name, f in factors.items():
            weight = merged.network.get_submodule(name).weight
            weight += f.delta().reshape(weight.shape)
        expected = Inputs(merged, case).predict()
    trainable = TrainableModel(patched)
    try:
        trainable.load(activation_bytes=0)
        adapters = make_adapters(trainable)
        with trainable.session(adapters):
            found = Inputs(trainable, case).base(adapters)
    finally:
        comfy.model_management.unload_all_models()
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, untouched, atol=1e-3)
