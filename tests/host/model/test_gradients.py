"""The gradient that the trainer uses, for every family, checkpointing mode and precision."""

import functools

import pytest
import torch
from comfy.quant_ops import QuantizedTensor
from torch.utils.checkpoint import checkpoint

from benchmarks.gradients import MODES, Problem, measure
from harness.bare_networks import BareNetwork
from harness.casting import cast_run, hollow_calls
from harness.small import ALL, small_models, tried, widely
from masklora.autograd.recompute import checkpoint_blocks
from masklora.autograd.saved_tensors import saved_tensor_scope
from masklora.host.families import families
from masklora.host.model import patches
from masklora.loss.losses import masked_objective

NAMES = tried()
# Of clips; a whole set takes its time.
CLIPS = [n for n in NAMES if any(f.rates for f in families() if f.name == small_models()[n].family)]
CLIPS = CLIPS if ALL else ["wan", "cosmos_predict2"]


@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_gradients_with_routed_and_hidden_tokens_are_exact(family, prior):
    assert_exact(measure(family, dtype=torch.float64, prior=prior, planned=True))


@pytest.mark.parametrize("family", [n for n in widely() if n != "sdxl"])
def test_gradients_equal_finite_differences_in_float64_in_every_checkpointing_mode(family):
    assert_exact(measure(family, dtype=torch.float64))


# SDXL takes its time, and the loss with a prior contains the loss without.
@pytest.mark.parametrize("family", NAMES)
def test_gradients_of_the_loss_with_its_prior_equal_finite_differences_in_every_checkpointing_mode(family):
    assert_exact(measure(family, dtype=torch.float64, prior=True, predicts_v=family == "sd15"))


@pytest.mark.parametrize("family", CLIPS)
def test_gradients_of_clips_equal_finite_differences_in_every_checkpointing_mode(family):
    assert_exact(measure(family, dtype=torch.float64, prior=True, frames=3))


@pytest.mark.parametrize("family", CLIPS)
def test_masked_cells_of_every_latent_frame_have_no_gradient(family):
    problem = Problem(family, dtype=torch.float32, frames=3)
    # Another cell in each frame, and nothing at all in the last.
    problem.w[:] = 0
    problem.w[:, :, 0, 1, 2] = problem.w[:, :, 1, 3, 0] = 1
    with problem.trainable.session(problem.adapters), problem.trainable.autograd_scope():
        prediction = problem.predict()
        prediction.retain_grad()
        masked_objective(prediction, torch.zeros_like(prediction), problem.w, problem.settings)[0].backward()
    gradient = prediction.grad
    assert prediction.shape == problem.latent.shape
    assert bool((gradient[(problem.w == 0).expand_as(gradient)] == 0).all())
    assert bool((gradient[(problem.w == 1).expand_as(gradient)] != 0).all())


@pytest.mark.parametrize("family", ["sd15", "sd3", "flux"])
def test_gradients_of_preservation_beside_all_else_equal_finite_differences_in_every_checkpointing_mode(family):
    assert_exact(measure(family, dtype=torch.float64, prior=True, preservation=True))


def test_a_quantized_tensor_that_autograd_saves_has_its_values():
    drawn = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    weight = QuantizedTensor.from_float(drawn, "TensorCoreFP8Layout")
    x = torch.randn(4, 16, requires_grad=True)
    with saved_tensor_scope(mutates=True):
        (found,) = torch.autograd.grad(torch.nn.functional.linear(x, weight).sum(), x)
    assert torch.allclose(found, weight.dequantize().sum(0).expand(4, 16), rtol=1e-5, atol=1e-6)


def assert_exact(row):
    for mode in MODES:
        assert row[f"{mode}: against off"] <= 1e-12, row
    truths = [key for key in row if key.endswith(("plain autograd", "finite differences"))]
    assert len(truths) >= len(MODES)
    assert all(row[key] <= 1e-10 for key in truths), row


@pytest.mark.parametrize("family", [n for n in widely() if n != "sdxl"])
def test_gradients_agree_between_checkpointing_modes_in_float32(family):
    row = measure(family, dtype=torch.float32)
    for mode in MODES:
        assert row[f"{mode}: against off"] <= 1e-5, row


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_dropout_repeats_the_same_numbers_when_a_block_is_recomputed(family):
    problem = Problem(family, dtype=torch.float64, dropout=0.3)
    off, blocks = (problem.gradients(m) for m in ("off", "per block"))
    plain = Problem(family, dtype=torch.float64).gradients("off")
    assert any((off[n] - plain[n]).abs().max() > 1e-9 for n in off), "dropout had no effect"
    for n in off:
        assert torch.allclose(off[n], blocks[n], rtol=1e-10, atol=1e-14), n


@pytest.mark.parametrize("algorithm", ["rslora", "dora"])
def test_other_algorithms_have_exact_gradients_too(algorithm):
    problem = Problem("flux", dtype=torch.float64, algorithm=algorithm)
    found = problem.gradients("per block")
    direction = problem.direction(found)
    truth = problem.finite_difference(direction, step=5e-3)
    claimed = float(sum((found[n] * direction[n]).sum() for n in found))
    # PEFT treats DoRA's norm as a constant in backward (section 4.3 of its paper), so only rsLoRA is exact.
    tolerance = 1e-9 if algorithm == "rslora" else 0.5
    assert abs(claimed - truth) <= tolerance * abs(truth)


@pytest.mark.parametrize("family", widely())
def test_gradients_of_every_layer_gates_and_convolutions_too_equal_plain_autograd_in_every_mode(family):
    assert_exact(measure(family, dtype=torch.float64, targets="all", differences=False))


@pytest.mark.parametrize(
    ("family", "targets", "skipped"), [("flux", "default", 6), ("flux", "all", 0), ("sd15", "all", 16)]
)
def test_layers_that_nothing_reads_are_not_repeated(family, targets, skipped):
    problem = Problem(family, dtype=torch.float32, targets=targets)
    with hollow_calls() as calls:
        problem.gradients("per block")
    assert len(calls) == skipped


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_weights_that_are_cast_have_the_same_gradients_when_a_block_is_repeated(dtype):
    off, blocks = (cast_run(dtype, mode)[1] for mode in ("off", "per block"))
    for a, b in zip(off, blocks, strict=True):
        assert (a - b).norm() <= 1e-5 * a.norm()


def _on_clones(function, *args, **kwargs):
    copy = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in kwargs.items()}
    return function(*(a.clone() if isinstance(a, torch.Tensor) else a for a in args), **copy)


def test_torch_checkpointing_with_cloned_inputs_would_be_silently_wrong_on_flux():
    """Guards the reason for our own checkpoint."""
    problem = Problem("flux", dtype=torch.float64)
    right = problem.gradients("per block")
    blocks = [block for block, _ in problem.trainable.blocks]
    parameters = problem.adapters.parameters()
    with problem.trainable.session(problem.adapters, checkpointing="off"):
        for block in blocks:
            original = type(block).forward.__get__(block)
            cloned = functools.partial(_on_clones, original)
            block.forward = functools.partial(checkpoint, cloned, use_reentrant=False)
        try:
            wrong = torch.autograd.grad(problem.terms()[0](), list(parameters.values()))
        finally:
            for block in blocks:
                block.__dict__.pop("forward", None)
    flat_right = torch.cat([g.flatten() for g in right.values()])
    flat_wrong = torch.cat([g.flatten() for g in wrong])
    assert (flat_right - flat_wrong).norm() / flat_right.norm() > 1e-3


@pytest.mark.parametrize("name", ["chroma", "flux2"])
def test_gradients_of_modulation_that_blocks_are_handed_in_objects_are_not_lost(name):
    bare = BareNetwork(name)
    parameters = list(bare.network.requires_grad_().parameters())
    with patches.training_kernels():
        with saved_tensor_scope(mutates=True):
            off = torch.autograd.grad(bare.loss(), parameters, allow_unused=True)
        with checkpoint_blocks(bare.blocks, mutates=True):
            blocks = torch.autograd.grad(bare.loss(), parameters, allow_unused=True)
    used = [n for (n, _), g in zip(bare.network.named_parameters(), off, strict=True) if g is not None]
    assert any("distilled_guidance_layer" in n or "stream_modulation" in n for n in used)
    for plain, ours in zip(off, blocks, strict=True):
        assert (plain is None) == (ours is None)
        if plain is not None:
            assert (plain - ours).norm() <= 1e-12 * plain.norm()
