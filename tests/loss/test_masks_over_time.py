"""Masks of a clip joined and blended over time: against brute force, at the ends, with bounded memory."""

import math

import numpy as np
import pytest

from masklora.loss.frame_masks import neighbours, over_time

COUNT = 14


def masks(count=COUNT, *, seed=0):
    return np.random.default_rng(seed).random((count, 6, 8), dtype=np.float32)


def run(given, numbers, **options):
    wanted = neighbours(numbers, count=len(given), **options)
    return list(over_time((given[k] for k in wanted), numbers, count=len(given), **options))


def brute(given, number, *, union, feather):
    joined = [given[max(0, k - union) : k + union + 1].max(axis=0) for k in range(len(given))]
    if not feather:
        return joined[number]
    reach = math.ceil(3 * feather)
    those = [k for k in range(len(given)) if abs(k - number) <= reach]
    weights = np.array([math.exp(-0.5 * ((k - number) / feather) ** 2) for k in those])
    return np.tensordot(weights / weights.sum(), np.array([joined[k] for k in those]), 1)


@pytest.mark.parametrize("union", [0, 1, 3])
@pytest.mark.parametrize("feather", [0.0, 0.5, 1.5])
@pytest.mark.parametrize("numbers", [range(COUNT), range(0, COUNT, 3), [5], [0, 0, 13, 13], [4, 5, 12]])
def test_every_frame_is_as_by_brute_force(union, feather, numbers):
    given, numbers = masks(), list(numbers)
    found = run(given, numbers, union=union, feather=feather)
    assert len(found) == len(numbers)
    for number, mask in zip(numbers, found, strict=True):
        assert np.allclose(mask, brute(given, number, union=union, feather=feather), atol=1e-6)


@pytest.mark.parametrize(("union", "feather"), [(2, 0.0), (0, 2.0), (3, 1.3)])
def test_masks_that_stand_still_stay_bit_for_bit(union, feather):
    still = np.repeat(masks(1), COUNT, axis=0)
    assert all(np.array_equal(mask, still[0]) for mask in run(still, list(range(COUNT)), union=union, feather=feather))


def test_a_mask_that_is_lost_in_one_frame_is_filled_by_its_neighbours():
    flickers = np.ones((7, 4, 4), np.float32)
    flickers[3] = 0
    assert np.array_equal(run(flickers, [3], union=1, feather=0.0)[0], np.ones((4, 4)))


def test_only_the_frames_around_one_are_read_ahead():
    given, read = masks(100), []

    def coming():
        for k in neighbours(range(100), count=100, union=1, feather=1.0):
            read.append(k)
            yield given[k]

    found = over_time(coming(), range(100), count=100, union=1, feather=1.0)
    next(found)
    assert len(read) == 5


def test_frames_that_nobody_asks_for_are_not_read():
    assert neighbours([0, 50], count=100, union=1, feather=0.0) == [0, 1, 49, 50, 51]
