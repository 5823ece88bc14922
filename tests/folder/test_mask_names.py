"""Masks of every usual name and place are found, and what may be a picture is asked about."""

import unicodedata

import numpy as np
import pytest
from PIL import Image

from harness.folders import anywhere, folder_settings, grey, picture, with_alpha
from masklora.dataset.loading import load_dataset
from masklora.dataset.sample import load_mask
from masklora.errors import MaskError
from masklora.folder.mask_names import is_mask_folder, mask_bases

HALF = np.zeros((16, 16), np.float32)
HALF[:, 8:] = 1


def photo(path, seed=0):
    """A picture of many colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    return path


def loaded(folder, **values):
    return load_dataset(folder_settings(folder, **values), allowed=anywhere)


def masks(folder, **values):
    """Whether each picture has the mask of this file, by its name."""
    found = {sample.name: load_mask(sample) for sample in loaded(folder, **values).samples}
    return {name: mask is not None and np.array_equal(mask, HALF) for name, mask in found.items()}


@pytest.mark.parametrize(
    "name",
    [
        "a-mask.png",
        "a_masked.png",
        "a_alpha.png",
        "a (mask).png",
        "a-masklabel.bmp",
        "a_mask_0.png",
        "a-condlabel.png",
        "a_wmask.tif",
        "mask_a.png",
        "[MASK] a.png",
        "Mask-a.PNG",
        "a.matte.png",
        "A_LABEL.png",
        "a.jpg_mask.png",
        "a.jpg.mask.png",
        "a\uff3fmask.png",
        "a \u2013 mask.png",
        "aMask.png",
        "a mask (3).png",
        "masks/a.png",
        "Mask_Images/a.png",
        "alpha/a.PNG",
        "mattes/a_mask.png",
        "masks/a.jpg.png",
        "a_alpha_matte.png",
        "a_masks.png",
        "a_mask.jpg.png",
        "a_mask.mask.png",
        "masks/a_mask.png.png",
        "_masks/a.png",
        "mask_dir/a.png",
        "masks_v2/a.png",
        "Alpha-Channel/a.png",
    ],
)
def test_a_mask_of_every_usual_name_is_the_mask_and_no_picture(tmp_path, name):
    photo(tmp_path / "a.jpg")
    grey(tmp_path / name, HALF)
    assert masks(tmp_path) == masks(tmp_path, mask_source="sidecar") == {"a.jpg": True}


@pytest.mark.parametrize("stem", ["a ", " a", "a_", "a -", "a .b "])
@pytest.mark.parametrize("ending", ["-masklabel", "_mask", "_mask_0", " (mask)"])
def test_a_pictures_name_may_end_in_a_gap(tmp_path, stem, ending):
    photo(tmp_path / f"{stem}.jpg")
    grey(tmp_path / f"{stem}{ending}.png", HALF)
    assert masks(tmp_path) == {f"{stem}.jpg": True}


@pytest.mark.parametrize("name", ["i.mask", "i.jpg.mask", "I.MASK"])
def test_files_with_the_extension_mask_are_masks(tmp_path, name):
    photo(tmp_path / "i.jpg")
    grey(tmp_path / "x.png", HALF).rename(tmp_path / name)
    assert masks(tmp_path) == {"i.jpg": True}


@pytest.mark.parametrize(
    ("pictures", "mask"),
    [
        ("images/train/a.jpg", "masks/train/a.png"),
        ("set/photos/a.jpg", "set/mask/a.png"),
        ("cats/a.jpg", "cats_masks/a.png"),
        ("Élodie/0.jpg", "masks/É" + "lodie/0.png"),
        ("deep/a.jpg", "deep/masks/a.png"),
    ],
)
def test_folders_of_masks_lie_in_or_beside_those_of_the_pictures(tmp_path, pictures, mask):
    photo(tmp_path / unicodedata.normalize("NFC", pictures))
    grey(tmp_path / unicodedata.normalize("NFD", mask), HALF)
    assert list(masks(tmp_path).values()) == [True]


def test_a_folder_of_masks_is_found_where_subfolders_are_off(tmp_path):
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "more" / "b.jpg")
    grey(tmp_path / "masks" / "a.png", HALF)
    assert masks(tmp_path, subfolders=False) == {"a.jpg": True}
    assert any("more" in line.text for line in loaded(tmp_path, subfolders=False).report.findings())


@pytest.mark.parametrize(
    "name", ["portrait", "unmask", "mask", "alphabet soup", "a-b", "blacklabel_", "maskenball", "(mask)"]
)
def test_other_names_are_no_names_of_masks(name):
    assert [base for base in mask_bases(name) if base.sure] == []


@pytest.mark.parametrize("name", ["photos", "masked ball", "10_mask man", "alphabet", "my cats"])
def test_other_folders_are_no_folders_of_masks(name):
    assert not is_mask_folder(name)


@pytest.mark.parametrize("word", ["mask", "Masks", "alpha"])
def test_a_counter_behind_the_word_is_that_of_the_picture(tmp_path, word):
    """As ComfyUI counts what it saves with the prefixes `out` and `out_mask`."""
    for number in (1, 2):
        photo(tmp_path / f"out_{number:05}_.png")
        grey(tmp_path / f"out_{word}_{number:05}_.png", HALF if number == 1 else HALF.T)
    assert masks(tmp_path) == {"out_00001_.png": True, "out_00002_.png": False}
    photo(tmp_path / "out.png")
    photo(tmp_path / "out_7.png")
    grey(tmp_path / "out_mask_7.png", HALF)
    assert masks(tmp_path)["out.png"] and not masks(tmp_path)["out_7.png"]


def test_numbered_masks_of_one_picture_count_together_and_are_told(tmp_path):
    photo(tmp_path / "a.jpg")
    left, right = HALF.copy(), HALF.copy()
    left[:8], right[8:] = 0, 0
    grey(tmp_path / "a_mask_0.png", left)
    grey(tmp_path / "a_mask_1.png", right)
    assert masks(tmp_path) == {"a.jpg": True}
    assert any("a.jpg (2)" in line and "as one" in line for line in loaded(tmp_path).report.warnings)


@pytest.mark.parametrize(
    "names", [("a_mask.png", "a_mask_1.png"), ("a_mask_1.png", "a-mask-1.png"), ("a.mask", "a_mask.png")]
)
def test_masks_that_are_not_parts_of_one_are_an_error_that_names_them(tmp_path, names):
    photo(tmp_path / "a.jpg")
    for name in names:
        grey(tmp_path / "x.png", HALF).rename(tmp_path / name)
    with pytest.raises(MaskError, match="expected one sidecar mask, got 2") as error:
        loaded(tmp_path)
    assert all(name in str(error.value) for name in names)


@pytest.mark.parametrize("own_caption", [True, False])
def test_a_photograph_that_is_named_like_a_mask_is_asked_about(tmp_path, own_caption):
    photo(tmp_path / "woman.jpg")
    grey(tmp_path / "woman_mask.png", HALF) if own_caption else photo(tmp_path / "woman_mask.png")
    if own_caption:
        (tmp_path / "woman_mask.txt").write_text("a woman with a mask", encoding="utf-8")
    with pytest.raises(MaskError, match=r"woman_mask\.png is named like the mask of woman\.jpg.*sidecar.*rename it"):
        loaded(tmp_path)
    assert [s.name for s in loaded(tmp_path, mask_source="sidecar").samples] == ["woman.jpg"]
    left = loaded(tmp_path, mask_source="none")
    assert [s.name for s in left.samples] == ["woman.jpg", "woman_mask.png"]
    assert any("woman_mask.png (beside woman.jpg)" in line for line in left.report.warnings)


@pytest.mark.parametrize("colour", [(255, 0, 0), (40, 200, 90), (255, 255, 255)])
@pytest.mark.parametrize("extension", [".png", ".jpg", ".webp"])
def test_a_mask_in_one_key_colour_is_a_mask(tmp_path, colour, extension):
    photo(tmp_path / "a.png")
    mask = (HALF[..., None] * np.array(colour)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(mask).save(tmp_path / f"a_mask{extension}")
    assert [s.name for s in loaded(tmp_path).samples] == ["a.png"]


def test_a_cut_out_beside_its_picture_is_its_mask(tmp_path):
    photo(tmp_path / "a.jpg")
    cut = np.dstack([np.asarray(Image.open(photo(tmp_path / "x" / "a.png", 3))), (HALF * 255).astype(np.uint8)])
    (tmp_path / "x" / "a.png").unlink()
    Image.fromarray(cut).save(tmp_path / "a_masked.png")
    assert [s.name for s in loaded(tmp_path).samples] == ["a.jpg"]


def test_folders_of_photographs_with_names_of_masks_are_asked_about_or_kept(tmp_path):
    for place in ("alpha", "beta", "gamma"):
        for number in (1, 2):
            photo(tmp_path / place / f"{number}.png", number)
    with pytest.raises(MaskError, match=r"alpha/1\.png is named like the mask of beta/1\.png"):
        loaded(tmp_path)
    assert len(loaded(tmp_path, mask_source="none").samples) == 6


@pytest.mark.parametrize("source", ["none", "alpha", "folder"])
def test_masks_beside_the_pictures_that_are_not_asked_for_are_left_out_and_listed(tmp_path, source):
    photo(tmp_path / "a.jpg")
    with_alpha(tmp_path / "b.png", HALF)
    grey(tmp_path / "a_mask.png", HALF)
    grey(tmp_path / "labels" / "b.png", HALF)
    grey(tmp_path / "own" / "a.png", HALF)
    dataset = loaded(tmp_path, mask_source=source, mask_folder="own")
    assert [s.name for s in dataset.samples] == ["a.jpg", "b.png"]
    told = " ".join(finding.text for finding in dataset.report.findings())
    assert "a_mask.png" in told and "labels/b.png" in told


def test_a_source_that_finds_nothing_shows_a_picture_and_a_file_that_is_left(tmp_path):
    photo(tmp_path / "cat.jpg")
    grey(tmp_path / "gone_mask.png", HALF)
    with pytest.raises(MaskError, match=r"sidecar, but no mask.*cat\.jpg.*gone_mask\.png.*cat_mask\.png"):
        loaded(tmp_path, mask_source="sidecar")
    with pytest.raises(MaskError, match=r"alpha, but no picture.*cat\.jpg"):
        loaded(tmp_path, mask_source="alpha")
    with_alpha(tmp_path / "cat.png", np.ones((8, 8)))
    with pytest.raises(MaskError, match="alpha, but no picture has transparent parts"):
        loaded(tmp_path, mask_source="alpha")


def test_an_opaque_alpha_is_told_as_no_mask(tmp_path):
    with_alpha(tmp_path / "a.png", np.ones((8, 8)))
    with_alpha(tmp_path / "b.png", HALF)
    report = loaded(tmp_path).report
    assert report.matched == ("b.png",) and report.missing == ("a.png",)
    assert report.to_text().startswith("2 pictures: 1 with a mask, 1 without.")


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("photo.v2.png", "v2"),
        ("photo.2024.05.01.png", "2024.05.01"),
        ("photo.bak.png", "bak"),
        ("photo.final.png", "final"),
    ],
)
def test_the_mask_of_another_version_is_never_that_of_a_subject_unasked(tmp_path, name, subject):
    for stem in ("photo", "other"):
        photo(tmp_path / f"{stem}.jpg")
    grey(tmp_path / "m" / name, HALF)
    grey(tmp_path / "m" / "other.png", HALF)
    dataset = loaded(tmp_path, mask_folder="m")
    assert [s.name for s in dataset.samples] == ["other.jpg", "photo.jpg"]
    assert dataset.report.orphaned == (name,) and any(name in line for line in dataset.report.warnings)
    asked = loaded(tmp_path, mask_folder="m", subjects=f"{subject}: 1")
    assert [s.name for s in asked.samples] == ["other.jpg", f"photo.jpg [{subject}]"]


def test_a_subject_that_occurs_once_is_told_loudly(tmp_path):
    for stem in ("one", "two", "three"):
        photo(tmp_path / f"{stem}.jpg")
    for name in ("one.anna.png", "two.anna.png", "three.zib.png"):
        grey(tmp_path / "m" / name, HALF)
    (line,) = loaded(tmp_path, mask_folder="m").report.warnings
    assert "zib (three.zib.png)" in line and "anna" not in line
    assert loaded(tmp_path, mask_folder="m", subjects="anna: 1\nzib: 1").report.warnings == ()


def test_cases_are_matched_where_that_is_clear_and_kept_apart_where_not(tmp_path):
    photo(tmp_path / "IMG_1.JPG")
    grey(tmp_path / "m" / "img_1.png", HALF)
    (tmp_path / "Img_1.txt").write_text("a cat", encoding="utf-8")
    (sample,) = loaded(tmp_path, mask_folder="m").samples
    assert sample.mask_path is not None and sample.caption == "a cat"
    photo(tmp_path / "img_1.jpg")
    if len(list(tmp_path.glob("*.[jJ][pP][gG]"))) < 2:
        pytest.skip("this file system does not tell the two apart")
    grey(tmp_path / "m" / "IMG_1.png", 1 - HALF)
    found = {s.name: s for s in loaded(tmp_path, mask_folder="m").samples}
    assert np.array_equal(load_mask(found["img_1.jpg"]), HALF)
    assert np.array_equal(load_mask(found["IMG_1.JPG"]), 1 - HALF)
    assert {s.caption for s in found.values()} == {None}


def test_a_mask_whose_picture_is_gone_becomes_no_picture(tmp_path):
    photo(tmp_path / "a.jpg")
    grey(tmp_path / "b_mask.png", HALF)
    with_alpha(tmp_path / "cut mask.png", HALF)
    dataset = loaded(tmp_path)
    assert [s.name for s in dataset.samples] == ["a.jpg"]
    assert any("b_mask.png, cut mask.png" in line.text for line in dataset.report.findings())


def test_a_picture_with_its_own_alpha_is_a_picture_whatever_its_name(tmp_path):
    photo(tmp_path / "a.jpg")
    rgba = np.dstack([np.asarray(Image.open(tmp_path / "a.jpg")), (HALF * 255).astype(np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "iron mask.png")
    assert masks(tmp_path) == {"a.jpg": False, "iron mask.png": True}


def test_pictures_alone_that_are_named_like_masks_are_pictures(tmp_path):
    picture(tmp_path / "mask_01.png")
    picture(tmp_path / "mask_02.png")
    assert len(loaded(tmp_path).samples) == 2


def test_a_folder_named_for_masks_holds_those_of_subjects_and_their_captions(tmp_path):
    photo(tmp_path / "sub" / "group.jpg")
    for name in ("anna", "ben"):
        grey(tmp_path / "sub" / "masks" / f"group.{name}.png", HALF)
        (tmp_path / "sub" / "masks" / f"group.{name}.txt").write_text(f"a photo of {name}", encoding="utf-8")
    dataset = loaded(tmp_path)
    assert {s.subject: s.caption for s in dataset.samples} == {
        "anna": "a photo of anna",
        "ben": "a photo of ben",
        "together": "a photo of anna, a photo of ben",
    }
    assert dataset.report.left == ()
