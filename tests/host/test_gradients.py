"""The gradient that the trainer uses, for every family, checkpointing mode and precision."""

import functools

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from benchmarks.gradients import MODES, Problem, measure
from masklora.archs import FAMILIES

NAMES = [f.name for f in FAMILIES]


@pytest.mark.parametrize("family", NAMES)
def test_gradients_equal_finite_differences_in_float64_in_every_checkpointing_mode(family):
    row = measure(family, dtype=torch.float64)
    for mode in MODES:
        assert row[f"{mode}: against finite differences"] <= 1e-10, row
        assert row[f"{mode}: against off"] <= 1e-12, row


@pytest.mark.parametrize("family", [n for n in NAMES if n != "sdxl"])
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


def _on_clones(function, *args, **kwargs):
    copy = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in kwargs.items()}
    return function(*(a.clone() if isinstance(a, torch.Tensor) else a for a in args), **copy)


def test_torch_checkpointing_with_cloned_inputs_would_be_silently_wrong_on_flux():
    """Guards the reason for our own checkpoint."""
    problem = Problem("flux", dtype=torch.float64)
    right = problem.gradients("per block")
    blocks = [m for m in problem.network.modules() if type(m).__name__ in problem.trainable.family.blocks]
    parameters = problem.adapters.parameters()
    with problem.trainable.session(problem.adapters, checkpointing="off"):
        for block in blocks:
            original = type(block).forward.__get__(block)
            cloned = functools.partial(_on_clones, original)
            block.forward = functools.partial(checkpoint, cloned, use_reentrant=False)
        try:
            wrong = torch.autograd.grad(problem.loss(), list(parameters.values()))
        finally:
            for block in blocks:
                block.__dict__.pop("forward", None)
    flat_right = torch.cat([g.flatten() for g in right.values()])
    flat_wrong = torch.cat([g.flatten() for g in wrong])
    assert (flat_right - flat_wrong).norm() / flat_right.norm() > 1e-3
