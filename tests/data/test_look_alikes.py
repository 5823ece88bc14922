"""What is a mask by everything but its name is never learned as a picture, and is named."""

import numpy as np
import pytest
from PIL import Image

from harness.folders import anywhere, folder_settings, grey, picture
from masklora.data.loading import load_dataset
from masklora.data.mask_names import hinted_bases

HALF = np.zeros((16, 16), np.float32)
HALF[:, 8:] = 1


def photo(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    path.with_suffix(".txt").write_text("x", encoding="utf-8")
    return path


def loaded(folder, **values):
    """Names of the samples, and the warnings."""
    data = load_dataset(folder_settings(folder, **values), allowed=anywhere)
    told = [finding.text for finding in data.report.findings() if finding.level == "warning"]
    return [sample.name for sample in data.samples], told


@pytest.mark.parametrize(
    "name",
    [
        "a_mask_final.png",
        "a_mask - Copy.png",
        "a (mask) edited.png",
        "a_person_mask.png",
        "a-001.mask.png",
        "a_maskedimage.png",
        "a_seg.png",
        "masque_a.png",
        "a.jpg.png",
        "A_Segmentation_2.PNG",
    ],
)
def test_a_grey_file_that_is_named_after_a_picture_with_a_word_for_masks_is_left_out_and_named(tmp_path, name):
    photo(tmp_path / "a.jpg")
    grey(tmp_path / name, HALF)
    names, (told,) = loaded(tmp_path)
    assert names == ["a.jpg"] and name in told and "name it <picture>_mask.png" in told


@pytest.mark.parametrize("name", ["a_seg.png", "a_mask_final.png", "mask of a.png"])
def test_in_colours_or_with_a_caption_it_is_a_picture_and_nothing_is_told(tmp_path, name):
    photo(tmp_path / "a.jpg")
    photo(tmp_path / name, seed=1)
    assert loaded(tmp_path) == (sorted(["a.jpg", name]), [])


def test_other_names_do_not_hint_at_masks():
    for name in ("a_2", "a-final", "segment a", "unmasking", "a", "2024.05.01", "binaryboy", "a.b"):
        assert hinted_bases(name) == [], name


@pytest.mark.parametrize(
    ("picture_name", "mask_name"),
    [
        ("a.jpg", "a.png"),
        ("a.jpg", "Masken/a.png"),
        ("a.jpg", "seg/a_seg.png"),
        ("train/a.jpg", "conditioning/a.png"),
        ("a.jpg", "annotations/A.bmp"),
    ],
)
@pytest.mark.parametrize("levels", [1.0, 1 / 255])
def test_a_black_and_white_double_of_a_picture_in_colours_is_left_out_and_named(
    tmp_path, picture_name, mask_name, levels
):
    photo(tmp_path / picture_name)
    grey(tmp_path / mask_name, HALF * levels)
    names, (told,) = loaded(tmp_path)
    assert names == [picture_name] and mask_name in told and "mask_folder" in told
    assert sorted(loaded(tmp_path, mask_source="none")[0]) == sorted([picture_name, mask_name])


def test_a_mask_too_many_does_not_make_a_folder_one_of_pictures(tmp_path):
    for name in "abc":
        photo(tmp_path / f"{name}.jpg")
        grey(tmp_path / "seg" / f"{name}.png", HALF)
    grey(tmp_path / "seg" / "gone.png", HALF)
    assert loaded(tmp_path)[0] == ["a.jpg", "b.jpg", "c.jpg"]


def test_drawings_in_black_and_white_are_pictures(tmp_path):
    for name in ("1", "2"):
        for folder in ("ink", "pencil"):
            grey(tmp_path / folder / f"{name}.png", HALF)
            (tmp_path / folder / f"{name}.txt").write_text("x", encoding="utf-8")
        photo(tmp_path / "photos" / f"{name}.jpg")
    names, told = loaded(tmp_path)
    assert len(names) == 6 and told == []


def test_photographs_of_one_name_in_several_folders_are_pictures(tmp_path):
    for folder in ("10_a", "5_b"):
        photo(tmp_path / folder / "001.jpg", seed=len(folder))
        picture(tmp_path / folder / "002.png", (16, 16))
    assert len(loaded(tmp_path, folder_repeats=False)[0]) == 4


def test_a_note_beside_pictures_that_all_have_captions_is_no_warning(tmp_path):
    photo(tmp_path / "a.jpg")
    (tmp_path / "notes.txt").write_text("taken in May", encoding="utf-8")
    assert loaded(tmp_path)[1] == []
