"""How many ranks are open by noise level."""

import itertools

import pytest
import torch

from masklora.adapters.opening import Opened, least_rank, open_ranks, opening_at, parted
from masklora.errors import ConfigError
from masklora.settings import AdapterSettings


def published(level, rank, least):
    """Ours: r = ⌊(R − r_min)·(T − t)/T⌋ + r_min, in whole numbers with t out of T = 1000."""
    return (rank - least) * (1000 - round(level * 1000)) // 1000 + least


@pytest.mark.parametrize(("rank", "least"), [(16, 1), (16, 8), (4, 2), (64, 32), (1, 1)])
def test_ranks_are_those_of_the_paper_at_each_of_its_steps(rank, least):
    levels = torch.arange(1001) / 1000
    found = [open_ranks(level, rank=rank, least=least) for level in levels.tolist()]
    assert found == [published(level, rank, least) for level in levels.tolist()]
    assert found[0] == rank and found[-1] == least and all(a >= b for a, b in itertools.pairwise(found))


def test_a_layer_of_fewer_ranks_than_the_least_has_all_of_them():
    assert {open_ranks(level, rank=3, least=5) for level in (0.0, 0.5, 1.0)} == {3}


def test_an_opening_of_all_ranks_is_none():
    assert opening_at(0.5, ranks=[4, 8], least=8) is None
    assert opening_at(0.0, ranks=[4, 8], least=1) is None
    assert opening_at(1.0, ranks=[4, 8], least=2) == ((4, 2), (8, 2))


def test_rows_with_the_same_ranks_open_go_together():
    assert list(parted([3, 0, 2, 1], [None, ((4, 2),), None, ((4, 2),)])) == [[3, 1], [0, 2]]


def test_the_least_rank_is_half_of_the_rank_where_none_is_given():
    assert least_rank(AdapterSettings(algorithm="tlora", rank=9)) == 5
    assert least_rank(AdapterSettings(algorithm="tlora", rank=9, least_rank=2)) == 2
    assert least_rank(AdapterSettings(rank=9, least_rank=2)) == 0


def test_a_least_rank_above_the_rank_is_refused():
    with pytest.raises(ConfigError, match="least_rank: expected at most the rank, 4, got 5"):
        least_rank(AdapterSettings(algorithm="tlora", rank=4, least_rank=5))


def test_closed_rows_and_their_gradients_are_exactly_zero_and_the_others_are_what_they_were():
    one, two = (torch.randn(6, 3, generator=torch.manual_seed(s)).requires_grad_() for s in (0, 1))
    opened = Opened.apply([[slice(1, 3), slice(5, 6)], [slice(6, 6)]], one, two)
    assert torch.equal(opened[1], two) and torch.equal(opened[0][[0, 3, 4]], one[[0, 3, 4]])
    assert not opened[0][[1, 2, 5]].any()
    for _ in range(2):
        grads = torch.autograd.grad((opened[0] * 3).sum() + opened[1].sum(), [one, two], retain_graph=True)
        assert torch.equal(grads[0][:, 0], torch.tensor([3.0, 0, 0, 3, 3, 0])) and torch.equal(
            grads[1], torch.ones(6, 3)
        )
