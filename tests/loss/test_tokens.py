"""Which tokens skip blocks and which are seen: routes as text, counts, choices and plans."""

import dataclasses

import pytest
import torch

from masklora.errors import ConfigError
from masklora.loss.check import check_loss
from masklora.loss.tokens import (
    KEPT_MULTIPLE,
    Passage,
    Route,
    TokenModel,
    TokenPlan,
    choose_kept,
    count_mask_tokens,
    describe_routes,
    kept_count,
    parse_routes,
    plan_tokens,
    resolve_routes,
    route_counts,
    token_cells,
    token_weights,
    visible_tokens,
)
from masklora.settings import LossSettings

MODEL = TokenModel(patch=2, blocks=12, title="this model")
SELECTIONS = ("mask kept", "mask-aware", "random")


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def square(side, grid=32, batch=1):
    """A mask of ones in the corner: `side` cells on a grid of `grid`."""
    mask = torch.zeros(batch, 1, grid, grid)
    mask[..., :side, :side] = 1.0
    return mask


def settings(routes="0.75: 2..-3", **changes):
    return dataclasses.replace(LossSettings(routes=routes), **changes)


def make_plan(masks, loss, *, most=None, w=None, progress=0.0, generator=None):
    most = int(count_mask_tokens(masks, patch=2).max()) if most is None else most
    w = masks if w is None else w
    generator = generator or seeded()
    return plan_tokens(masks, w, loss, model=MODEL, most=most, progress=progress, generator=generator)


def test_routes_are_read_with_or_without_spaces_and_none_from_an_empty_text():
    expected = (Route(0.75, 2, -3), Route(0.5, 4, 8))
    assert parse_routes("0.75: 2..-3; 0.5: 4..8") == expected
    assert parse_routes(" .75:2 .. -3;0.50:4..8 ;") == expected
    assert parse_routes("") == parse_routes(" ; ") == ()


@pytest.mark.parametrize(
    ("text", "quoted", "reason"),
    [
        ("0.75", "'0.75'", "is no route"),
        ("0.5: 1..3; half: 4..5", "'half: 4..5'", "is no route"),
        ("0.5: 1-3", "'0.5: 1-3'", "is no route"),
        ("1.5: 1..3", "'1.5: 1..3'", "drops 1.5"),
        ("-0.1: 1..3", "'-0.1: 1..3'", "drops -0.1"),
        ("0.5: 5..3", "'0.5: 5..3'", "ends before it begins"),
        ("0.5: -2..-4", "'0.5: -2..-4'", "ends before it begins"),
        ("0.5: 1..4; 0.25: 4..6", "'0.5: 1..4' and '0.25: 4..6'", "overlap"),
        ("0.5: -9..-4; 0.25: -5..-1", "'0.5: -9..-4' and '0.25: -5..-1'", "overlap"),
    ],
)
def test_a_part_that_is_no_route_is_quoted_with_an_example(text, quoted, reason):
    with pytest.raises(ConfigError, match=r"^routes: .*0\.75: 2\.\.") as caught:
        check_loss(LossSettings(routes=text))
    assert quoted in str(caught.value) and reason in str(caught.value)


def test_negative_numbers_count_from_the_last_block():
    assert resolve_routes(parse_routes("0.5: -3..-1; 0.75: 0..4"), blocks=12, title="this model") == (
        Route(0.75, 0, 4),
        Route(0.5, 9, 11),
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0.5: 2..12", "names block 12, but this model has 12 blocks, 0 to 11"),
        ("0.5: -13..4", "names block -13"),
        ("0.5: 9..-6", "ends before it begins"),
        ("0.5: 2..8; 0.5: -5..-1", "overlap"),
    ],
)
def test_what_the_number_of_blocks_forbids_is_told(text, reason):
    check_loss(LossSettings(routes=text))
    with pytest.raises(ConfigError, match=reason):
        resolve_routes(parse_routes(text), blocks=12, title="this model")


def test_a_token_s_weight_is_the_mean_of_its_cells_and_a_border_token_has_fewer():
    w = torch.arange(15.0).view(1, 1, 3, 5)
    expected = [[3.0, 5.0, 6.5, 10.5, 12.5, 14.0]]
    assert token_weights(w, patch=2).tolist() == expected
    assert torch.equal(token_weights(w, patch=1), w.flatten(1))


def test_the_frames_of_a_clip_follow_one_another():
    w = torch.rand(2, 1, 3, 4, 6, generator=seeded())
    frames = [token_weights(w[:, :, f], patch=2) for f in range(3)]
    assert torch.equal(token_weights(w, patch=2), torch.cat(frames, dim=1))


@pytest.mark.parametrize("shape", [(2, 1, 6, 8), (2, 1, 5, 7), (1, 1, 3, 4, 4)])
def test_a_value_of_a_token_lies_on_each_of_its_cells(shape):
    w = torch.rand(shape, generator=seeded())
    tokens = torch.rand(token_weights(w, patch=2).shape, generator=seeded(1))
    cells = token_cells(tokens, patch=2, shape=shape)
    assert cells.shape == shape
    assert torch.allclose(token_weights(cells, patch=2), tokens)
    assert len(cells.unique()) == len(tokens.unique())


def test_a_token_is_seen_if_any_of_its_cells_weighs_anything():
    w = torch.zeros(3, 1, 4, 4)
    w[0, 0, 1, 1] = 1e-6
    w[2] = 1.0
    assert visible_tokens(w, patch=2).tolist() == [[True, False, False, False], [True] * 4, [True] * 4]
    assert visible_tokens((w + 0.01).clamp(max=1), patch=2).all()


@pytest.mark.parametrize(
    ("tokens", "drop", "never", "expected"),
    [
        (1024, 0.0, 0, 1024),
        (1024, 0.75, 0, 256),
        (1024, 0.75, 205, 416),
        (1024, 1.0, 205, 208),
        (1024, 0.75, 1024, 1024),
        (1000, 0.0, 0, 1000),
        (1000, 0.001, 0, 1000),
        (1000, 1.0, 0, 16),
        (9, 0.5, 0, 9),
    ],
)
def test_the_count_is_rounded_up_to_a_static_size_but_never_beyond_all(tokens, drop, never, expected):
    assert kept_count(tokens, drop, never=never) == expected


def test_a_fifth_of_mask_and_a_quarter_of_the_rest_make_two_fifths():
    share = kept_count(4096, 0.75, never=round(0.2 * 4096)) / 4096
    assert 0.4 <= share <= 0.4 + KEPT_MULTIPLE / 4096


@pytest.mark.parametrize("selection", SELECTIONS)
def test_the_kept_tokens_are_ascending_unlike_and_as_many_as_asked_for(selection):
    belongs = token_weights(square(12, batch=3), patch=2) > 0.5
    chances = torch.rand(belongs.shape, generator=seeded())
    kept = choose_kept(belongs, chances, count=64, selection=selection)
    assert kept.shape == (3, 64)
    assert (kept.diff(dim=1) > 0).all()
    assert not torch.equal(kept[0], kept[1])
    everyone = choose_kept(belongs, chances, count=256, selection=selection)
    assert torch.equal(everyone, torch.arange(256).expand(3, -1))


@pytest.mark.parametrize("seed", range(5))
def test_with_mask_kept_no_token_of_the_mask_is_ever_dropped(seed):
    masks = torch.cat([square(8), square(20), torch.zeros(1, 1, 32, 32), torch.rand(1, 1, 32, 32, generator=seeded(9))])
    plan = make_plan(masks, settings("1: 2..9"), generator=seeded(seed))
    belongs = token_weights(masks, patch=2) > 0.5
    assert not (plan.skipped() & belongs).any()
    most = int(belongs.sum(dim=1).max())
    assert plan.passages[0].kept.shape[1] == kept_count(256, 1.0, never=most)


def test_a_smaller_mask_is_filled_up_with_random_context_to_the_count_of_the_largest():
    small, drawn = square(8), []
    for seed in range(40):
        plan = make_plan(small, settings("1: 2..9"), most=100, generator=seeded(seed))
        drawn.append(~plan.skipped()[0])
    assert all(int(d.sum()) == kept_count(256, 1.0, never=100) == 112 for d in drawn)
    belongs = token_weights(small, patch=2)[0] > 0.5
    share = torch.stack(drawn).double().mean(dim=0)
    assert (share[belongs] == 1).all()
    # 96 of the 240 others each time: 0.4 ± 4 standard deviations of 40 draws.
    assert ((share[~belongs] - 0.4).abs() < 4 * (0.24 / 40) ** 0.5).all()


def test_mask_aware_drops_the_background_first_and_the_mask_only_when_that_does_not_suffice():
    mask = square(16)
    belongs = token_weights(mask, patch=2)[0] > 0.5
    half = make_plan(mask, settings("0.5: 2..9", route_selection="mask-aware")).skipped()[0]
    assert int(half.sum()) == 128 and not (half & belongs).any()
    most = make_plan(mask, settings("0.875: 2..9", route_selection="mask-aware")).skipped()[0]
    assert int(most.sum()) == 224 and (most | belongs).all()
    assert int((most & belongs).sum()) == 32


def test_random_asks_no_mask():
    plans = [
        make_plan(m, settings(route_selection="random")) for m in (square(8), square(20), torch.ones(1, 1, 32, 32))
    ]
    assert all(torch.equal(plans[0].passages[0].kept, p.passages[0].kept) for p in plans)
    assert plans[0].passages[0].kept.shape == (1, 64)


def test_routes_of_one_step_rank_the_tokens_alike():
    loss = settings("0.75: 2..4; 0.25: 5..6; 0.75: 8..9", route_selection="random")
    most, few, again = make_plan(square(8), loss).passages
    assert (most.first, most.last, few.first, few.last, again.first, again.last) == (2, 4, 5, 6, 8, 9)
    assert most.kept is again.kept
    assert set(most.kept[0].tolist()) < set(few.kept[0].tolist())


def test_what_skips_any_route_has_skipped():
    kept = [torch.tensor([[0, 1, 2]]), torch.tensor([[2, 3]])]
    plan = TokenPlan(5, tuple(Passage(i, i, k) for i, k in enumerate(kept)))
    assert plan.skipped().tolist() == [[True, True, False, True, True]]
    assert TokenPlan(5).skipped() is None


def test_the_plan_of_some_rows_is_theirs():
    masks = torch.cat([square(8), square(12), square(16)])
    plan = make_plan(masks, settings(attention_mask=True, text_padding_mask=True))
    some = plan.rows([2, 0])
    assert torch.equal(some.passages[0].kept, plan.passages[0].kept[[2, 0]])
    assert torch.equal(some.visible, plan.visible[[2, 0]])
    assert some.text_padding and some.tokens == 256


@pytest.mark.parametrize(
    ("changes", "progress"),
    [
        ({"routes": ""}, 0.0),
        ({"routes": "0: 2..9"}, 0.0),
        ({"route_until": 0.5}, 0.5),
        ({"route_until": 0.0}, 0.0),
    ],
)
def test_without_dropped_tokens_there_is_no_plan_and_nothing_is_drawn(changes, progress):
    generator = seeded()
    before = generator.get_state()
    assert (
        make_plan(square(8), dataclasses.replace(settings(), **changes), progress=progress, generator=generator) is None
    )
    assert torch.equal(generator.get_state(), before)


def test_a_mask_that_covers_everything_keeps_everything_of_its_size_and_draws_nothing():
    generator = seeded()
    before = generator.get_state()
    masks = torch.cat([square(8), torch.ones(1, 1, 32, 32)])
    assert make_plan(masks, settings(), generator=generator) is None
    assert make_plan(square(8), settings(), most=256, generator=generator) is None
    assert torch.equal(generator.get_state(), before)


def test_routing_goes_on_until_its_share_of_the_run_is_over():
    loss = settings(route_until=0.75)
    assert [make_plan(square(8), loss, progress=p) is not None for p in (0.0, 0.74, 0.75, 0.99)] == [
        True,
        True,
        False,
        False,
    ]


def test_an_attention_mask_that_hides_nothing_is_none():
    hide = settings("", attention_mask=True)
    assert make_plan(torch.ones(2, 1, 8, 8), hide) is None
    assert make_plan(torch.zeros(2, 1, 8, 8), hide) is None
    assert make_plan(square(4, grid=8), hide, w=square(4, grid=8) + 0.1) is None
    assert make_plan(square(4, grid=8), hide).visible.sum() == 4
    assert make_plan(square(4, grid=8), dataclasses.replace(hide, attention_mask=False)) is None


def test_the_line_for_people_names_share_tokens_and_blocks():
    loss = settings("0.75: 2..-3; 0.5: 10..11")
    counts = route_counts(loss, model=MODEL, tokens=1024, most=205)
    assert describe_routes(counts, tokens=1024) == (
        "token routing: 41 % of 1024 tokens kept in blocks 2 to 9, 61 % of 1024 tokens kept in blocks 10 to 11."
    )
    full = route_counts(loss, model=MODEL, tokens=1024, most=1024)
    assert "Set route_selection to mask-aware" in describe_routes(full, tokens=1024)
