"""LoRAs of another rank and of other strengths: what is kept is the nearest, and what is lost is told exactly."""

import pytest
import torch

from masklora.adapters import Factors
from masklora.adapters.by_layer import check_parts, values_by_layer
from masklora.adapters.reshaping import STRENGTHS, Error, resized, strengthened, together
from masklora.errors import AdapterError

BLOCKS = ["double.0", "double.1", "single.0"]
LAYERS = ["double.0.attn.q", "double.0.mlp", "double.1.attn.q", "single.0.attn.q", "out"]


def drawn(rank=6, out=9, into=7, *, kernel=(), alpha=3.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    up, down = torch.randn(out, rank, *[1 for _ in kernel], generator=g), torch.randn(rank, into, *kernel, generator=g)
    return Factors(down, up, alpha)


def off(made, factors):
    return float((made.delta() - factors.delta()).norm() / factors.delta().norm())


@pytest.mark.parametrize("kernel", [(), (3, 3)])
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_a_lower_rank_is_the_nearest_there_is_and_its_error_is_told(rank, kernel):
    factors = drawn(kernel=kernel)
    made, error = resized(factors, rank=rank, energy=0, name="x")
    values = torch.linalg.svdvals(factors.delta().flatten(1).double())
    best = float(values[rank:].norm() / values.norm())
    assert made.down.shape == (rank, *factors.down.shape[1:]) and made.up.shape[:2] == (9, rank)
    assert off(made, factors) == pytest.approx(best, rel=1e-5) and error.share == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("rank", [6, 7, 1024])
def test_a_rank_that_is_not_lower_changes_nothing(rank):
    factors = drawn()
    made, error = resized(factors, rank=rank, energy=0, name="x")
    assert made is factors and error.share == 0


def test_a_lora_whose_ranks_repeat_loses_nothing():
    factors = drawn(rank=2)
    twice = Factors(torch.cat([factors.down] * 2), torch.cat([factors.up] * 2, 1), 4.0)
    made, error = resized(twice, rank=2, energy=0, name="x")
    assert len(made.down) == 2 and off(made, twice) < 1e-6 and error.share < 1e-12


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.999])
def test_a_share_that_is_kept_gets_the_smallest_rank_that_has_it(energy):
    factors = drawn()
    made, error = resized(factors, rank=0, energy=energy, name="x")
    squares = torch.linalg.svdvals(factors.delta().double()).square()
    shares = squares.cumsum(0) / squares.sum()
    kept = len(made.down)
    assert shares[kept - 1] >= energy and (kept == 1 or shares[kept - 2] < energy)
    assert 1 - error.share**2 >= energy
    assert len(resized(factors, rank=1, energy=energy, name="x")[0].down) == 1


def test_a_layer_that_changes_nothing_has_rank_one_and_no_error():
    made, error = resized(Factors(torch.randn(4, 5), torch.zeros(6, 4), 1.0), rank=2, energy=0.9, name="x")
    assert len(made.down) == 1 and not made.delta().any() and error.share == 0


def test_the_error_of_all_layers_is_that_of_their_changes_one_after_the_other():
    assert together({"a": Error(3.0, 5.0), "b": Error(4.0, 12.0)}).share == pytest.approx(5 / 13)
    assert together({}).share == 0


def test_a_strength_is_exactly_that_of_a_loader():
    factors = drawn()
    assert torch.allclose(strengthened(factors, 0.5, name="x").delta(), 0.5 * factors.delta(), rtol=1e-6)
    assert strengthened(factors, 1.0, name="x") is factors and strengthened(factors, 0.0, name="x") is None


def test_what_is_not_exact_for_a_dora_is_refused():
    dora = Factors(torch.randn(2, 3), torch.randn(4, 2), 2.0, torch.rand(4, 1))
    assert strengthened(dora, 1.0, name="x") is dora and strengthened(dora, 0.0, name="x") is None
    with pytest.raises(AdapterError, match=r"block_strengths: some\.layer is a DoRA's.*only 0 and 1 are exact"):
        strengthened(dora, 0.5, name="some.layer")
    with pytest.raises(AdapterError, match=r"new_rank, keep_energy: some\.layer is a DoRA's"):
        resized(dora, rank=1, energy=0, name="some.layer")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", [1, 1, 1, 1, 1]),
        ("blocks 0-1: 0.5", [0.5, 0.5, 0.5, 1, 1]),
        ("blocks 0: 0.5, attn: -2, others 0", [0.5, 0.5, -2, -2, 0]),
        ("double 1: .25\nblocks 2: 3", [1, 1, 0.25, 3, 1]),
        ("others: 2", [2, 2, 2, 2, 2]),
    ],
)
def test_strengths_are_read_by_blocks_names_and_the_rest(text, found):
    read = values_by_layer(text, LAYERS, values=STRENGTHS, usual=1.0, blocks=BLOCKS)
    assert list(read.values()) == found and list(read) == LAYERS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("blocks: x", '"blocks: x" is no part such as'),
        ("blocks 3-1: 1", "ends before it begins"),
        ("blocks 7: 1", '"blocks 7: 1" names no trained layer.*3 blocks, counted from 0'),
        ("attn: 11", '"attn: 11" asks for 11, expected -10 to 10'),
        ("attn: nan", '"attn: nan" asks for nan'),
        ("others 1, others 2", "about the others a second time"),
        ("a b c", "is no part such as"),
    ],
)
def test_parts_that_are_none_are_named(text, told):
    with pytest.raises(AdapterError, match=f"block_strengths: .*{told}"):
        values_by_layer(text, LAYERS, values=STRENGTHS, usual=1.0, blocks=BLOCKS)
    if "names no" not in told:
        with pytest.raises(AdapterError, match="block_strengths"):
            check_parts(text, STRENGTHS)
