"""T-LoRA: each sample is learned with the ranks that its noise level opens, however a step is computed."""

import pytest
import torch

from benchmarks.gradients import MODES, Problem, measure
from harness.damage import ALL
from masklora.autograd.compiled import Compiler

LEAST = 1
# At the levels of `Problem`, .5 and .75.
OPEN = (2, 1)
FAMILIES = ["sd15", "flux", "z_image", "wan"] if ALL else ["flux"]


def opened(family, **options):
    return Problem(family, algorithm="tlora", least_rank=LEAST, **{"dtype": torch.float64, **options})


def sums(problem, weights, mode="off", compiler=None):
    """The gradients of the weighted sum of what is predicted."""
    parameters = problem.adapters.parameters()
    session = problem.trainable.session(problem.adapters, checkpointing=mode, compiler=compiler)
    with session, problem._precisely(), problem.trainable.autograd_scope():
        total = (problem.predict() * weights).sum()
        found = torch.autograd.grad(total, list(parameters.values()), materialize_grads=True)
    return dict(zip(parameters, found, strict=True))


def by_hand(family, weights):
    """The sum over the samples of what a plain LoRA learns whose closed ranks are 0, its A there held."""
    problem, total = Problem(family, dtype=torch.float64), {}
    whole = {name: p.detach().clone() for name, p in problem.adapters.parameters().items()}
    for row, count in enumerate(OPEN):
        for name, p in problem.adapters.parameters().items():
            p.data = whole[name].clone()
            if name.endswith("lora_A"):
                p.data[count:] = 0
        alone = torch.zeros_like(weights)
        alone[row] = weights[row]
        for name, found in sums(problem, alone).items():
            if name.endswith("lora_A"):
                found[count:] = 0
            total[name] = total.get(name, 0) + found
    return total


def drawn(problem):
    return torch.randn(problem.latent.shape, generator=torch.manual_seed(4), dtype=torch.float64)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_sample_of_a_batch_is_learned_with_the_ranks_of_its_own_level(family):
    problem = opened(family)
    weights = drawn(problem)
    wanted = by_hand(family, weights)
    for mode in MODES:
        found = sums(problem, weights, mode)
        for name, gradient in found.items():
            assert (gradient - wanted[name]).norm() <= 1e-11 * wanted[name].norm() + 1e-14, (mode, name)
            closed = gradient[max(OPEN) :] if name.endswith("lora_A") else gradient[:, max(OPEN) :]
            assert closed.numel() and not closed.any(), (mode, name)
    assert sum(g.any() for g in wanted.values()) > len(wanted) / 2


@pytest.mark.parametrize("family", ["sd15", "flux"] if ALL else [])
def test_the_gradient_equals_finite_differences_in_every_checkpointing_mode(family):
    row = measure(family, dtype=torch.float64, prior=True, algorithm="tlora", least_rank=LEAST)
    for mode in MODES:
        assert row[f"{mode}: against off"] <= 1e-12 and row[f"{mode}: against finite differences"] <= 1e-10, row


def test_compiled_blocks_have_the_gradients_of_recomputed_ones():
    problem, lines = opened("flux", dtype=torch.float32), []
    compiler = Compiler(tell=lines.append, compile=lambda graph: graph)
    weights = drawn(problem).float()
    wanted, found = sums(problem, weights, "per block"), sums(problem, weights, "per block", compiler)
    assert compiler._ways and not lines
    for name in wanted:
        assert (found[name] - wanted[name]).norm() <= 1e-5 * wanted[name].norm() + 1e-7, name


@pytest.mark.parametrize("mode", MODES)
def test_all_ranks_open_is_a_plain_lora_bit_for_bit(mode):
    plain, whole = (
        Problem("flux", dtype=torch.float32, **how) for how in ({}, {"algorithm": "tlora", "least_rank": 4})
    )
    weights = drawn(plain).float()
    wanted, found = sums(plain, weights, mode), sums(whole, weights, mode)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_outside_of_training_all_ranks_are_open():
    plain, problem = Problem("flux", dtype=torch.float32), opened("flux", dtype=torch.float32)
    seen = []
    for one in (plain, problem):
        with one.trainable.session(one.adapters), torch.no_grad():
            closed = one.predict()
            one.adapters.set_training(False)
            seen.append(one.predict())
            one.adapters.set_training(True)
    assert torch.equal(seen[1], seen[0]) and not torch.allclose(closed, seen[1], rtol=1e-4)
