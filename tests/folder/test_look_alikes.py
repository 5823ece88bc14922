"""What is a mask by everything but its name is never learned as a picture, and is named."""

import numpy as np
import pytest
from PIL import Image

from harness.folders import anywhere, folder_settings, grey, picture
from masklora.dataset.loading import load_dataset
from masklora.folder.mask_names import hinted_bases

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
        "a_máscara.png",
        "a_maschera.png",
        "a-\u043c\u0430\u0441\u043a\u0430.png",
        "a_\u8499\u7248.png",
        "\u30de\u30b9\u30af a.png",
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
        ("a.jpg", "a_m.png"),
        ("a.jpg", "fg-A.bmp"),
        ("ä (2).jpg", "ä (2)_bw.png"),
        ("x/a.jpg", "x/a.0.png"),
        ("a.jpg", "sam/a_person.png"),
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


RED, GREEN = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)
RED[:, 8:, 0], GREEN[4:, 8:, 1] = 255, 255
SHAPE = np.dstack([np.full((16, 16, 3), 255, np.uint8), (HALF * 255).astype(np.uint8)])


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (RED, ["a.png", "seg/a.png", "a_m.png"]),
        (RED // 2, ["a.png", "seg/a.png", "a_m.png"]),
        (np.maximum(RED, GREEN), ["a.png", "seg/a.png"]),
        (SHAPE, ["a.png", "seg/a.png", "a_m.png"]),
        (255 - SHAPE, ["a.png", "a_m.png"]),
    ],
)
def test_masks_in_flat_colours_or_in_the_alpha_are_known_too(tmp_path, values, names):
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        photo(folder / "a.jpg")
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(values).save(folder / name)
        learned, (told,) = loaded(folder)
        assert learned == ["a.jpg"] and name in told


@pytest.mark.parametrize("name", ["a.png", "a_m.png", "soft/a.png"])
def test_grey_doubles_may_be_photographs_and_are_told_as_pictures(tmp_path, name):
    soft = np.hypot(*np.mgrid[-1:1:16j, -1:1:16j]).clip(0, 1)
    photo(tmp_path / "a.jpg")
    grey(tmp_path / name, soft)
    names, told = loaded(tmp_path)
    assert sorted(names) == sorted(["a.jpg", name])
    assert [name in line and "<picture>_mask.png" in line for line in told if "grey" in line] == [True]
    # Among masks in black and white a soft one is a mask.
    for other in "bcd":
        photo(tmp_path / f"{other}.jpg")
        grey(tmp_path / name.replace("a", other, 1), HALF)
    names, (told,) = loaded(tmp_path)
    assert names == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"] and name in told and "left out" in told


@pytest.mark.parametrize("place", ["", "seg/"])
def test_many_masks_in_colour_modes_are_all_known(tmp_path, place):
    for number in range(70):
        photo(tmp_path / f"{number}.jpg")
        (tmp_path / "seg").mkdir(exist_ok=True)
        Image.fromarray(np.dstack([HALF * 255] * 3).astype(np.uint8)).save(tmp_path / f"{place}{number}.png")
    names, (told,) = loaded(tmp_path)
    assert names == [f"{number}.jpg" for number in range(70)] and told.startswith("70 files")


def test_names_that_begin_alike_and_nothing_more_make_no_mask(tmp_path):
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "a_2.jpg", seed=2)
    # Another aspect, and a caption of its own.
    grey(tmp_path / "a_3.png", HALF[:6])
    grey(tmp_path / "a_4.png", HALF)
    (tmp_path / "a_4.txt").write_text("a drawing", encoding="utf-8")
    assert loaded(tmp_path)[0] == ["a.jpg", "a_2.jpg", "a_3.png", "a_4.png"]


@pytest.mark.parametrize("name", ["mask.png", "Alpha 2.png", "(mask).png", "masks.bmp"])
def test_a_mask_that_names_no_picture_is_left_out_and_named(tmp_path, name):
    photo(tmp_path / "a.jpg")
    grey(tmp_path / name, HALF)
    names, (told,) = loaded(tmp_path)
    assert names == ["a.jpg"] and name in told and "<picture>_mask.png" in told
    (tmp_path / "a.jpg").unlink()
    assert loaded(tmp_path)[0] == [name]


def test_a_mask_too_many_does_not_make_a_folder_one_of_pictures(tmp_path):
    for name in "abc":
        photo(tmp_path / f"{name}.jpg")
        grey(tmp_path / "seg" / f"{name}.png", HALF)
    grey(tmp_path / "seg" / "gone.png", HALF)
    photo(tmp_path / "nobody.jpg")
    grey(tmp_path / "seg" / "nobody.png", HALF * 0)
    assert loaded(tmp_path)[0] == ["a.jpg", "b.jpg", "c.jpg", "nobody.jpg"]


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
