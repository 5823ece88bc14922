"""A mask that became a PNG when it was edited, and whose old file is there all the same: cut off, or put back."""

import numpy as np
import pytest
from PIL import Image

from harness.folders import anywhere, folder_settings
from masklora.dataset.loading import load_dataset
from masklora.dataset.sample import load_mask
from masklora.errors import MaskError
from masklora.saving import editing
from masklora.saving.editing import raw_mask, save_mask
from masklora.saving.saving import save_masks
from masklora.saving.targets import SaveSettings
from masklora.saving.versions import Versions
from masklora.settings import MaskTransform

RNG = np.random.default_rng(2)
PAINTED, OLD = (RNG.integers(0, 256, (12, 10)).astype(np.uint8) for _ in range(2))
PLACES = [
    ("a_mask.bmp", {}),
    ("masks/a.TIF", {}),
    ("M/a.tiff", {"mask_folder": "M"}),
    ("M/a.ben.bmp", {"mask_folder": "M"}),
]


def folder_with(tmp_path, name):
    """Two pictures of which `a` has a mask; gives the mask's file."""
    file = tmp_path / "set" / name
    file.parent.mkdir(parents=True)
    for picture in "ab":
        pixels = RNG.integers(0, 256, (12, 10, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / f"{picture}.jpg")
        (tmp_path / "set" / f"{picture}.txt").write_text("x", encoding="utf-8")
    Image.fromarray(OLD).save(file)
    return file


def loaded(tmp_path, **values):
    return load_dataset(folder_settings(tmp_path / "set", **values), allowed=anywhere)


def masked(data):
    (sample,) = (sample for sample in data.samples if sample.mask_path is not None)
    return sample


def edit(data, tmp_path, levels=PAINTED):
    sample = masked(data)
    token = raw_mask(sample, allowed=anywhere).token
    return save_mask(sample, levels, token, allowed=anywhere, versions=Versions(tmp_path / "kept"))


def assert_taken(data, levels, old):
    assert np.array_equal(np.rint(load_mask(masked(data)) * 255).astype(np.uint8), levels)
    told = [
        f.text for f in data.report.findings() if f.level == "warning" and "replaced when they were edited" in f.text
    ]
    assert len(told) == 1 and old.name in told[0] and old.with_suffix(".png").name in told[0]


@pytest.mark.parametrize(("name", "values"), PLACES)
def test_the_edited_mask_is_taken_where_the_old_file_was_put_back(tmp_path, name, values):
    old = folder_with(tmp_path, name)
    before = old.read_bytes()
    edit(loaded(tmp_path, **values), tmp_path)
    assert not old.exists()
    old.write_bytes(before)
    data = loaded(tmp_path, **values)
    assert_taken(data, PAINTED, old)
    # Neither a second edit nor a saving forgets what the file replaces.
    edit(data, tmp_path, OLD.T.copy().reshape(OLD.shape))
    assert_taken(loaded(tmp_path, **values), OLD.T.reshape(OLD.shape), old)


@pytest.mark.parametrize(("name", "values"), PLACES)
def test_an_edit_that_was_cut_off_before_the_old_file_went_is_the_mask(tmp_path, name, values, monkeypatch):
    old = folder_with(tmp_path, name)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(editing, "_make_way", killed)
        edit(loaded(tmp_path, **values), tmp_path)
    assert old.exists() and old.with_suffix(".png").exists()
    assert_taken(loaded(tmp_path, **values), PAINTED, old)


def test_saving_over_an_edited_mask_keeps_what_it_replaces(tmp_path):
    old = folder_with(tmp_path, "a_mask.bmp")
    before = old.read_bytes()
    edit(loaded(tmp_path), tmp_path)
    settings = SaveSettings("_mask.png", overwrite=True, keep_edited=False)
    inverted = loaded(tmp_path).with_transform(MaskTransform(invert=True))
    save_masks(inverted, settings, destination=None, allowed=anywhere, versions=Versions(tmp_path / "kept"))
    old.write_bytes(before)
    assert_taken(loaded(tmp_path), 255 - PAINTED, old)


def test_two_masks_of_which_none_says_so_are_still_an_error(tmp_path):
    old = folder_with(tmp_path, "a_mask.bmp")
    Image.fromarray(PAINTED).save(old.with_suffix(".png"))
    with pytest.raises(MaskError, match="expected one sidecar mask, got 2"):
        loaded(tmp_path)


def test_a_third_mask_leaves_it_open_which_is_meant(tmp_path):
    old = folder_with(tmp_path, "a_mask.bmp")
    before = old.read_bytes()
    edit(loaded(tmp_path), tmp_path)
    old.write_bytes(before)
    Image.fromarray(OLD).save(old.with_suffix(".tif"))
    with pytest.raises(MaskError, match="expected one sidecar mask, got 3"):
        loaded(tmp_path)
