"""The masks of a clip's frames on its latent frames: the first alone, then groups, against brute force."""

import pytest
import torch

from masklora.errors import ConfigError
from masklora.loss.masks import effective_weights, mask_cells, reduce_frames
from masklora.settings import MaskSettings


def moving(frames, *, seed=0, side=32):
    """A mask (1, 1, F, H, W) of half weights, another in each frame."""
    return torch.rand(1, 1, frames, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["mean", "max", "min"])
@pytest.mark.parametrize("stride", [1, 4, 6, 8])
def test_a_latent_frame_takes_the_masks_of_its_own_frames(stride, kind):
    count = 5
    mask = moving(1 + stride * (count - 1))
    found = reduce_frames(mask, frames=count, kind=kind)
    assert torch.equal(found[:, :, 0], mask[:, :, 0])
    for k in range(1, count):
        own = mask[:, :, stride * (k - 1) + 1 : stride * k + 1]
        wanted = {"mean": own.mean(dim=2), "max": own.amax(dim=2), "min": own.amin(dim=2)}[kind]
        assert torch.equal(found[:, :, k], wanted)


def test_a_frame_changes_the_weights_of_its_latent_frame_alone():
    mask = torch.zeros(1, 1, 13, 32, 32)
    for frame in range(13):
        one = mask.clone()
        one[:, :, frame] = 1
        cells = mask_cells(one, MaskSettings(), grid=(4, 4, 4), kind="area")
        touched = cells.flatten(3).any(dim=3)[0, 0].nonzero().flatten().tolist()
        assert touched == [0 if frame == 0 else 1 + (frame - 1) // 4]


def test_frames_then_area_is_the_mean_of_all_pixels_of_a_cell():
    mask = moving(9)
    cells = mask_cells(mask, MaskSettings(), grid=(3, 4, 4), kind="area")
    own = mask[0, 0, 5:9, 8:16, 24:32]
    assert torch.allclose(cells[0, 0, 2, 1, 3], own.mean(), atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"mask_type": "hard"}, {"frame_reduction": "max"}, {"gamma": 2.0}])
def test_a_mask_that_stands_still_weighs_the_same_in_every_frame_as_a_picture(settings):
    settings = MaskSettings(**settings)
    still = moving(1, seed=3)[:, :, 0]
    wanted = effective_weights(still, settings, grid=(4, 4))
    for mask in (still, still[:, :, None].expand(-1, -1, 9, -1, -1)):
        found = effective_weights(mask, settings, grid=(3, 4, 4))
        assert found.shape == (1, 1, 3, 4, 4)
        assert all(torch.allclose(found[:, :, k], wanted, atol=1e-6) for k in range(3))


@pytest.mark.parametrize("settings", [{}, {"mask_type": "hard"}, {"frame_reduction": "min"}, {"floor": 0.3}])
def test_white_frames_weigh_one_bit_for_bit(settings):
    white = torch.ones(2, 1, 9, 24, 40)
    found = effective_weights(white, MaskSettings(**settings), grid=(3, 3, 5))
    assert torch.equal(found, torch.ones(2, 1, 3, 3, 5))


def test_a_hard_mask_is_cut_before_its_frames_are_joined():
    mask = torch.zeros(1, 1, 5, 8, 8)
    mask[:, :, 1] = 0.6
    cells = mask_cells(mask, MaskSettings(mask_type="hard"), grid=(2, 1, 1), kind="area")
    assert cells.flatten().tolist() == [0.0, 0.25]


@pytest.mark.parametrize(("count", "frames"), [(5, 4), (4, 5), (5, 1), (6, 3), (2, 0)])
def test_frames_that_are_none_of_the_latent_are_an_error(count, frames):
    with pytest.raises(ValueError, match=f"mask of {count} frames"):
        reduce_frames(moving(count), frames=frames)


def test_a_moving_mask_for_a_picture_is_an_error_and_never_a_broadcast():
    with pytest.raises(ValueError, match="no frame axis"):
        mask_cells(moving(5), MaskSettings(), grid=(4, 4), kind="area")


def test_an_unknown_frame_reduction_is_named():
    with pytest.raises(ConfigError, match="frame_reduction"):
        reduce_frames(moving(5), frames=2, kind="median")
