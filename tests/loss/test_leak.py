"""How far a LoRA pulls pictures towards their own backgrounds: the laws of the measure."""

import math

import pytest
import torch

from masklora.loss.leak import Leak, Pull, blurred_outside, gather, mean_leak, pull
from masklora.loss.noise import Schedule, add_noise, picture_change, target

ALPHAS = torch.linspace(0.999, 0.01, 1000, dtype=torch.float64)
SCHEDULES = [Schedule("flow"), Schedule("epsilon", alphas_cumprod=ALPHAS), Schedule("v", alphas_cumprod=ALPHAS)]
SHAPES = [(3, 4, 5, 6), (3, 4, 2, 5, 6)]


def drawn(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outside_of(shape):
    outside = torch.rand((shape[0], 1, *shape[2:]), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    outside[..., :2] = 0
    return outside


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", [1.0, 0.25, 0.0, -0.5])
def test_going_a_part_of_the_way_is_that_part_and_straight(shape, way):
    towards = drawn(shape, 1)
    found = pull(way * towards, towards, outside_of(shape))
    torch.testing.assert_close(found.way, torch.full((3,), way, dtype=torch.float64))
    torch.testing.assert_close(found.straight, torch.full((3,), float((way > 0) - (way < 0)), dtype=torch.float64))


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_projection_by_definition(shape):
    moved, towards, outside = drawn(shape, 1), drawn(shape, 2), outside_of(shape)
    found = pull(moved, towards, outside)
    for b in range(3):
        v = outside[b].expand_as(moved[b])
        m, t = (v.sqrt() * moved[b]).flatten(), (v.sqrt() * towards[b]).flatten()
        assert found.way[b] == pytest.approx(float(m @ t / (t @ t)))
        assert found.straight[b] == pytest.approx(float(torch.nn.functional.cosine_similarity(m, t, dim=0)))


def test_what_lies_inside_or_across_changes_nothing_and_neither_does_the_scale():
    shape = SHAPES[0]
    moved, towards, outside = drawn(shape, 1), drawn(shape, 2), outside_of(shape)
    before = pull(moved, towards, outside)
    inside = (outside == 0).double()
    assert torch.equal(pull(moved + 9 * inside, towards - 7 * inside, outside).way, before.way)
    across = drawn(shape, 3)
    products = [(across * one * outside).flatten(1).sum(1) for one in (towards,)]
    across = across - (products[0] / (towards.square() * outside).flatten(1).sum(1)).view(-1, 1, 1, 1) * towards
    torch.testing.assert_close(pull(moved + across, towards, outside).way, before.way)
    assert (pull(moved + across, towards, outside).straight.abs() < before.straight.abs()).all()
    scaled = pull(3 * moved, 3 * towards, 0.5 * outside)
    torch.testing.assert_close(scaled.way, before.way)
    torch.testing.assert_close(scaled.straight, before.straight)
    torch.testing.assert_close(pull(3 * moved, towards, outside).way, 3 * before.way)
    torch.testing.assert_close(pull(3 * moved, towards, outside).straight, before.straight)


def test_nothing_can_be_said_without_an_outside_or_before_the_own_background_and_no_change_is_no_pull():
    shape = SHAPES[0]
    moved, towards, outside = drawn(shape, 1), drawn(shape, 2), outside_of(shape)
    outside[0] = 0
    towards[1] = 0
    moved[2] = 0
    found = pull(moved, towards, outside)
    assert found.way.isnan().tolist() == found.straight.isnan().tolist() == [True, True, False]
    assert found.way[2] == found.straight[2] == 0


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda one: one.prediction)
def test_predictions_of_two_pictures_in_the_same_noise_are_those_pictures_apart(schedule):
    shape, u = (3, 4, 5, 6), torch.tensor([0.3, 0.6, 0.8], dtype=torch.float64)
    one, other, noise = drawn(shape, 1), drawn(shape, 2), drawn(shape, 3)
    noisy = add_noise(one, noise, u, schedule=schedule)
    # The noise by which the other picture would look just so.
    zeros = torch.zeros_like(one)
    signal, amount = (
        add_noise(zeros + 1, zeros, u, schedule=schedule),
        add_noise(zeros, zeros + 1, u, schedule=schedule),
    )
    its = (noisy - signal * other) / amount
    change = target(other, its, u, schedule=schedule) - target(one, noise, u, schedule=schedule)
    torch.testing.assert_close(picture_change(change, u, schedule=schedule), other - one)


def test_the_half_that_is_pulled_most_is_the_leak_and_each_picture_has_its_mean():
    nan = math.nan
    ways, straights = [0.1, 0.3, 0.6, nan, 0.2], [0.5, 0.7, 0.2, nan, 0.6]
    found = gather(["a", "a", "b", "c", "b"], Pull(torch.tensor(ways), torch.tensor(straights)), changed=3.0, error=4.0)
    assert found.pictures == pytest.approx({"a": 0.2, "b": 0.4})
    assert (found.leak, found.mean, found.straight, found.drift) == pytest.approx((0.45, 0.3, 0.5, 0.75))
    assert found.spread == pytest.approx(torch.tensor([0.1, 0.3, 0.6, 0.2]).std().item())
    assert list(found.row.values()) == pytest.approx([0.45, 0.3, found.spread, 0.5, 0.75])
    assert gather(["a"], Pull(torch.tensor([0.25]), torch.tensor([1.0]))) == Leak(
        0.25, 0.25, 0.0, 1.0, None, {"a": 0.25}
    )


def test_without_anything_to_measure_there_is_no_number():
    found = gather(["c"], Pull(torch.tensor([math.nan]), torch.tensor([math.nan])))
    assert found == Leak() and found.row == {}


def test_of_two_models_the_mean_counts_and_what_one_lacks_is_the_other_s():
    one, other = Leak(0.2, 0.1, 0.0, 0.4, None, {"a": 0.2}), Leak(0.4, 0.3, 0.2, 0.6, 0.1, {"a": 0.6, "b": 0.2})
    found = mean_leak([one, other])
    assert (found.leak, found.mean, found.spread, found.straight, found.drift) == pytest.approx(
        (0.3, 0.2, 0.1, 0.5, 0.1)
    )
    assert found.pictures == pytest.approx({"a": 0.4, "b": 0.2})
    assert mean_leak([one]) is one and mean_leak([Leak(), Leak()]) == Leak()


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_inside_neither_changes_nor_runs_into_the_blur_and_all_colours_stay(shape):
    latents, outside = drawn(shape, 1), outside_of(shape)
    shown = blurred_outside(latents, outside)
    inside = (outside == 0).expand_as(latents)
    assert torch.equal(shown[inside], latents[inside])
    recoloured = torch.where(inside, latents + 5, latents)
    torch.testing.assert_close(blurred_outside(recoloured, outside)[~inside], shown[~inside])
    torch.testing.assert_close(blurred_outside(3 * latents - 2, outside), 3 * shown - 2)
    flat = torch.where(inside, latents, torch.full_like(latents, 0.7))
    torch.testing.assert_close(blurred_outside(flat, outside), flat)


def test_a_wide_blur_leaves_the_mean_a_narrow_one_nothing_to_see_and_frames_stay_apart():
    latents, outside = drawn((2, 4, 3, 8, 6), 1), torch.ones(2, 1, 3, 8, 6, dtype=torch.float64)
    mean = latents.mean(dim=(-2, -1), keepdim=True).expand_as(latents)
    torch.testing.assert_close(blurred_outside(latents, outside, share=1e4), mean)
    torch.testing.assert_close(blurred_outside(latents, outside, share=1e-2), latents)
    each = torch.stack([blurred_outside(latents[:, :, f], outside[:, :, f]) for f in range(3)], dim=2)
    torch.testing.assert_close(blurred_outside(latents, outside), each)


def test_a_picture_without_an_outside_is_shown_as_it_is():
    latents = drawn((2, 4, 5, 6), 1)
    assert torch.equal(blurred_outside(latents, torch.zeros(2, 1, 5, 6, dtype=torch.float64)), latents)
