"""References beside their picture, as the browser shows them."""

import numpy as np
from PIL import Image

from harness.folders import anywhere, folder_settings, picture
from masklora.dataset.geometry import plan_geometry
from masklora.dataset.loading import load_dataset
from masklora.settings import LossSettings
from masklora.viewing.browsing import Lens, draw_thumbnail
from masklora.viewing.pairs import beside, draw_pair


def test_references_come_first_in_their_order_at_the_height_of_the_picture():
    target = np.full((64, 80, 3), 200, np.uint8)
    wide, tall = np.full((32, 60, 3), 10, np.uint8), np.full((128, 64, 3), 90, np.uint8)
    shown = beside([wide, tall], target)
    assert shown.shape == (64, 120 + 1 + 32 + 1 + 80, 3)
    assert [int(shown[32, x, 0]) for x in (0, 119, 120, 121, 152, 153, 154, 233)] == [
        10,
        10,
        128,
        90,
        90,
        128,
        200,
        200,
    ]
    assert np.array_equal(beside([], target), target)


def test_a_thumbnail_of_a_pair_shows_both(tmp_path):
    picture(tmp_path / "cat.png", (64, 64), value=250)
    picture(tmp_path / "before" / "cat.jpg", (64, 64), value=5)
    (sample,) = load_dataset(folder_settings(tmp_path, reference_folders="before"), allowed=anywhere).samples
    geometry, lens = plan_geometry(sample.size, (64, 64)), Lens(LossSettings(), 8)
    small = draw_thumbnail(sample, geometry, lens, view="pair", side=96)
    assert max(small.shape[:2]) == 96
    assert int(small[20, 5, 0]) < 20 and int(small[20, -5, 0]) > 230
    assert draw_pair(sample).shape == (64, 129, 3)
    rotated = Image.open(tmp_path / "before" / "cat.jpg").resize((64, 128))
    rotated.save(tmp_path / "before" / "cat.jpg")
    (sample,) = load_dataset(folder_settings(tmp_path, reference_folders="before"), allowed=anywhere).samples
    assert draw_pair(sample).shape == (64, 32 + 1 + 64, 3)
