"""Masks that a person painted survive saving the data set again."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from harness.folders import anywhere, folder_settings
from masklora.dataset.loading import load_dataset
from masklora.dataset.sample import Dataset, load_mask
from masklora.errors import DataError
from masklora.saving.editing import raw_mask, save_mask
from masklora.saving.saving import save_masks
from masklora.saving.targets import SaveSettings
from masklora.saving.versions import Versions

PAINTED = np.arange(96, dtype=np.uint8).reshape(8, 12)


@pytest.fixture
def versions(tmp_path):
    return Versions(tmp_path / "kept")


@pytest.fixture(params=["mask folder", "alpha png", "-masklabel.png"])
def saver(request, tmp_path, versions):
    """Saves three pictures in a layout; their masks are of one value, as if a generator had made them."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(3):
        Image.fromarray(np.full((8, 12, 3), 50 * i, np.uint8)).save(pictures / f"{i}.png")

    def run(value, *, picture=None, **options):
        dataset = load_dataset(folder_settings(pictures, mask_source="none"), allowed=anywhere)
        mask = np.full((8, 12), value / 255, np.float32)
        made = Dataset(tuple(replace(sample, mask=mask) for sample in dataset.samples), dataset.report)
        return save_masks(
            made,
            SaveSettings(request.param, **options),
            destination=None if request.param.startswith("-") else tmp_path / "out",
            allowed=anywhere,
            picture=picture,
            versions=versions,
        )

    return run


def paint(sample, versions):
    return save_mask(sample, PAINTED, raw_mask(sample, allowed=anywhere).token, allowed=anywhere, versions=versions)


def levels(saved):
    return [np.rint(load_mask(sample) * 255).astype(np.uint8) for sample in saved.dataset.samples]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_was_painted_is_kept_and_told(saver, versions, overwrite):
    paint(saver(128).dataset.samples[1], versions)
    again = saver(128, overwrite=overwrite)
    assert [np.array_equal(mask, PAINTED) for mask in levels(again)] == [False, True, False]
    assert "1 mask was edited by hand and kept: 1.png" in again.text
    assert "keep_edited" in again.text


def test_the_others_are_replaced(saver, versions):
    paint(saver(128).dataset.samples[1], versions)
    first, edited, last = levels(saver(64, overwrite=True))
    assert (first == 64).all() and (last == 64).all()
    assert np.array_equal(edited, PAINTED)


def test_the_switch_treats_them_like_the_others(saver, versions):
    paint(saver(128).dataset.samples[1], versions)
    with pytest.raises(DataError, match="exists"):
        saver(64, keep_edited=False)
    assert all((mask == 64).all() for mask in levels(saver(64, keep_edited=False, overwrite=True)))


def test_a_mask_that_another_program_wrote_since_is_no_longer_a_hand_made_one_of_ours(saver, versions, tmp_path):
    sample = paint(saver(128).dataset.samples[1], versions)
    file = sample.mask_path or sample.image_path
    Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file)
    assert not versions.is_edited(file)
    before = file.read_bytes()
    if sample.mask_path is None:
        assert (levels(saver(64, overwrite=True))[1] == 64).all()
        assert versions.all(file)[0].read_bytes() == before
    else:
        with pytest.raises(DataError, match="never replaced"):
            saver(64, overwrite=True)
        assert file.read_bytes() == before


def test_a_mask_that_is_given_for_one_picture_replaces_it(saver, versions):
    paint(saver(128).dataset.samples[1], versions)
    saved = saver(64, picture=1, overwrite=True)
    assert (levels(saved)[1] == 64).all()
    assert "edited by hand" not in saved.text


def test_a_file_that_is_gone_is_written_anew(saver, versions):
    sample = paint(saver(128).dataset.samples[1], versions)
    (sample.mask_path or sample.image_path).unlink()
    assert (levels(saver(64, overwrite=True))[1] == 64).all()
