"""Faults of other trainers in the masks that they generate; each is computed here and is not ours.

Read at bghira/SimpleTuner bc8e6ab7 and ostris/ai-toolkit 27a03a91.
"""

import random

import numpy as np
import pytest
from scipy import ndimage

from harness.folders import anywhere, folder_settings, grey, picture
from masklora.dataset.loading import load_dataset
from masklora.dataset.sample import load_mask
from masklora.errors import MaskError
from masklora.generators.apply import GenerateSettings, generate
from masklora.generators.blobs import BlobSettings, random_blobs
from masklora.generators.finding import Finding, Picture
from masklora.generators.shapes import ShapeSettings, shape_maker


def drawn(size, **settings):
    return shape_maker(ShapeSettings(**settings))(Picture("cat.png", np.zeros((*size, 3), np.uint8))).mask


def test_ai_toolkit_asked_for_0_8_covers_0_36_here_the_coverage_is_exact():
    """toolkit/util/mask.py:52 and 143: blobs of at most a third of the side, and what they lack is made up for by a
    single widening of 2 px.
    """
    y, x = np.mgrid[:256, :256] - 128
    largest = np.hypot(x, y) < 256 // 3 + 2
    assert largest.mean() == pytest.approx(0.36, abs=0.01)
    for count in (0, 1, 3):
        mask = random_blobs((256, 256), coverage=0.8, settings=BlobSettings(count=count), seed=count)
        assert mask.mean() == pytest.approx(0.8, abs=1 / 65536)


def test_simpletuner_s_brush_crashes_at_64_px_here_it_paints():
    """simpletuner/helpers/data_generation/sample_generator.py:734: a start between the brush's width, up to 40 px, and
    the side less that width.
    """
    with pytest.raises(ValueError, match="empty range"):
        random.randint(40, 64 - 40)
    for seed in range(30):
        mask = shape_maker(ShapeSettings(shape="brush", strokes=1 + seed % 5))(
            Picture("cat.png", np.zeros((64, 64, 3), np.uint8), seed=seed)
        ).mask
        assert 0.09 < mask.mean() < 0.51


def test_simpletuner_s_feather_is_inverted_here_it_keeps_the_middle_and_fades_outwards():
    """simpletuner/helpers/data_generation/sample_generator.py:826: white grows with the distance, away from the shape
    and out of its middle.
    """
    hard = drawn((101, 101), shape="ellipse", box="20, 20, 61, 61")
    away, deep = (ndimage.distance_transform_edt(m) for m in (hard == 0, hard == 1))
    theirs = np.where(hard == 1, np.clip(1 - (deep - 10) / 10, 0, 1), np.clip(away / 10, 0, 1))[50]
    assert theirs[0] == 1 and theirs[50] == 0
    soft = drawn((101, 101), shape="ellipse", box="20, 20, 61, 61", feather=4.0)
    row = soft[50]
    assert row[50] > 0.99
    assert row[0] < 0.01
    assert (np.diff(row[:51]) >= -1e-6).all()
    assert abs(row[20] - 0.5) < 0.1
    assert abs(soft.sum() - hard.sum()) / hard.sum() < 0.01


def test_simpletuner_writes_no_mask_where_nothing_is_found_here_that_is_an_error_that_names_the_pictures(tmp_path):
    """scripts/datasets/masked_loss/generate_dataset_masks.py:195: a line on the console, and on to the next picture."""
    for name in ("a.png", "b.png"):
        picture(tmp_path / "theirs" / name)
        picture(tmp_path / "ours" / name)
    grey(tmp_path / "theirs" / "a_mask.png", np.ones((8, 8)))
    theirs = load_dataset(folder_settings(tmp_path / "theirs"), allowed=anywhere)
    assert load_mask(theirs.samples[1]) is None  # b.png is then learned whole
    assert theirs.report.missing == ("b.png",)
    dataset = load_dataset(folder_settings(tmp_path / "ours"), allowed=anywhere)

    def find(one):
        return Finding(np.ones((8, 8), np.float32) if one.name == "a.png" else None, "0 cats")

    with pytest.raises(MaskError, match=r"1 of 2 pictures: b.png: nothing found \(0 cats\)"):
        generate(dataset, find, GenerateSettings(), label="Cats")
    made, lines = generate(dataset, find, GenerateSettings(nothing_found="skip"), label="Cats")
    assert [sample.name for sample in made.samples] == ["a.png"]
    assert any("b.png" in line.text for line in lines)
