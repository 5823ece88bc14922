"""The tint of a mask stands out from the colours of each picture."""

import numpy as np
import pytest

from masklora.dataset.sample import Sample
from masklora.viewing.browsing import standing_tints
from masklora.viewing.sheet import draw_view
from masklora.viewing.tint import TINTS, standing_out


def striped(*colours, size=60):
    """Colours one beside the other, uint8 (size, size·n, 3), and how much of each is learned."""
    return np.concatenate([np.full((size, size, 3), one, np.uint8) for one in colours], axis=1)


def learned(*shares, size=60):
    return np.concatenate([np.full((size, size), one, np.float32) for one in shares], axis=1)


@pytest.mark.parametrize("tint", TINTS)
def test_no_picture_is_tinted_in_its_own_colour(tint):
    rgb = striped(tint, tint, (128, 128, 128))
    assert standing_out(rgb, learned(0, 0, 0)) != tint
    assert standing_out(rgb, learned(1, 1, 1)) != tint


@pytest.mark.parametrize("tint", TINTS)
def test_a_picture_with_all_colours_but_one_is_tinted_in_that(tint):
    others = [one for one in TINTS if one != tint]
    assert standing_out(striped(*others), learned(*(0 for _ in others))) == tint


def test_what_the_tint_lies_on_counts_most_and_what_it_lies_beside_somewhat():
    for under, beside in ((0, 1), (1, 0), (2, 4)):
        rgb = striped(TINTS[under], TINTS[beside])
        found = standing_out(rgb, learned(0, 1))
        assert found not in (TINTS[under], TINTS[beside])
        assert found == standing_out(rgb, learned(1, 0), on="learned")
    # Of many colours nearly all are beside it: only those under it are the same.
    many = striped(*TINTS)
    assert standing_out(many, learned(0, 1, 1, 1, 1, 1)) != TINTS[0]
    assert standing_out(many, learned(1, 0, 0, 0, 0, 0)) == TINTS[0]


@pytest.mark.parametrize("ground", TINTS[:3])
def test_a_mask_is_seen_on_a_picture_of_any_colour(ground):
    """Above it is learned, below ignored; in the colour of the ground itself the tint would vanish."""
    rgb, mask = striped(ground), learned(1)
    mask[30:] = 0
    seen = draw_view(rgb, mask, "overlay").astype(int)
    assert (seen[:30] == ground).all()
    assert np.abs(seen[30:] - ground).max(axis=-1).min() > 60
    own = draw_view(rgb, mask, "overlay", colour=ground).astype(int)
    assert (own == ground).all()


def test_a_sample_s_tints_are_told_by_what_they_lie_on():
    size = (600, 300)
    image = np.zeros((300, 600, 4), np.float32)
    image[..., :3] = striped(TINTS[0], TINTS[1], size=300) / 255
    mask = learned(0, 1, size=300)
    found = standing_tints(Sample(key="a", name="a", size=size, image=image, mask=mask))
    rgb = striped(TINTS[0], TINTS[1])
    small = learned(0, 1)
    for on, told in found.items():
        assert told == "#{:02x}{:02x}{:02x}".format(*standing_out(rgb, small, on=on))
