"""The inspection's sheet and the check that a cache holds something to learn."""

import numpy as np
import pytest

from masklora.cache.cache import build_cache
from masklora.cache.shots import ClipRule
from masklora.dataset.loading import from_images
from masklora.dataset.sample import merge
from masklora.errors import ConfigError, MaskError
from masklora.settings import CacheSettings, DatasetSettings
from masklora.viewing.inspection import inspect
from masklora.viewing.sheet import BAR, SIDE, dataset_sheet

GREY = np.full((64, 96, 3), 0.5, np.float32)
TOP = np.repeat(np.float32([1, 0]), 32)[:, None] * np.ones((1, 96), np.float32)
BLACK, WHITE = np.zeros((64, 96), np.float32), np.ones((64, 96), np.float32)


class Pixels:
    """An encoder that costs nothing."""

    identity, channels, stride, rule = "pixels", 3, 8, ClipRule()

    def encode(self, images):
        return images.movedim(-1, 1)[..., ::8, ::8]


def sheet_of(dataset, **options):
    return dataset_sheet(dataset.samples, inspect(dataset).pictures, **options)


def cache_of(dataset):
    settings = CacheSettings(resolution=64, bucket_step=16, storage="memory")
    return build_cache(dataset, settings, encoder=Pixels())


def test_a_sheet_has_one_captioned_cell_for_each_picture():
    sheet = sheet_of(from_images([GREY] * 3, [TOP]))
    assert sheet.shape[1] >= 3 * SIDE
    assert sheet.shape[0] >= SIDE + BAR
    bar = sheet[-BAR - 4 :]
    assert bar.max() > 150


def test_the_mask_view_shows_white_where_the_picture_is_learned():
    sheet = sheet_of(from_images([GREY], [TOP]), view="mask")
    middle = sheet.shape[1] // 2
    assert sheet[70, middle].tolist() == [255, 255, 255]
    assert sheet[190, middle].tolist() == [0, 0, 0]


def test_small_pictures_are_shown_in_the_full_size_of_their_cell():
    small = from_images([np.ones((16, 16, 3), np.float32)])
    assert (sheet_of(small) == 255).all(axis=-1).sum() >= SIDE * SIDE


def test_a_picture_without_a_mask_is_not_tinted():
    sheet = sheet_of(from_images([GREY]))
    assert sheet[128, sheet.shape[1] // 2].tolist() == [128, 128, 128]


def test_an_unknown_view_is_refused_by_name():
    with pytest.raises(ConfigError, match="view"):
        sheet_of(from_images([GREY]), view="upside down")


def test_a_cache_of_black_masks_is_refused():
    with pytest.raises(MaskError, match="All 2 masks are black"):
        cache_of(from_images([GREY] * 2, [BLACK]))


@pytest.mark.parametrize("masks", [[BLACK, TOP], [WHITE, BLACK], [BLACK, None], []])
def test_one_picture_with_weight_is_enough(masks):
    assert len(cache_of(from_images([GREY] * 2, masks)).entries) == 2


def test_regularisation_pictures_do_not_make_up_for_black_masks():
    classes = from_images([GREY], [], settings=DatasetSettings(regularisation=True))
    with pytest.raises(MaskError, match="The only mask is black"):
        cache_of(merge([from_images([GREY], [BLACK]), classes]))
