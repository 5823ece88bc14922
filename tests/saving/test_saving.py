"""Masks and captions written back: what loads again is bit for bit what was saved, and nothing else is touched."""

import hashlib
import os
import unicodedata
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from harness.folders import anywhere, folder_settings, grey, picture, with_alpha
from masklora.dataset.corrections import replace_masks
from masklora.dataset.loading import from_images, load_dataset
from masklora.dataset.sample import Dataset, fit_mask, load_mask, load_sample, merge
from masklora.errors import ConfigError, DataError, MaskError, PathError, RunError
from masklora.pictures.reading import read_image, read_mask
from masklora.saving.saving import quantise_mask, save_masks
from masklora.saving.targets import LAYOUTS, SaveSettings
from masklora.saving.versions import Versions
from masklora.settings import CaptionSettings, DatasetSettings, MaskTransform

HALF = np.repeat([[0.0, 1.0]], 8, axis=0).repeat(4, axis=1)
RNG = np.random.default_rng(5)
FOLDER, ALPHA, LABEL, SUFFIX = LAYOUTS
EIGHT_BITS = RNG.integers(0, 256, (12, 10)) / 255
FINE = RNG.random((12, 10))


def loaded(folder, **values):
    return load_dataset(folder_settings(folder, **values), allowed=anywhere)


def save(dataset, to=None, layout=FOLDER, **options):
    names = ("overwrite", "save_captions", "without_mask")
    settings = SaveSettings(layout, **{name: options.pop(name) for name in names if name in options})
    return save_masks(dataset, settings, destination=to, allowed=options.pop("allowed", anywhere), **options)


def weights(mask):
    """A mask as its file gives it."""
    levels = quantise_mask(mask)
    return levels.astype(np.float32) / np.float32(np.iinfo(levels.dtype).max)


def again(folder, to, layout, **values):
    """The saved set as Load Dataset finds it."""
    if layout == ALPHA:
        return loaded(to, mask_source="alpha", **values)
    source = {"mask_source": "folder", "mask_folder": str(to)} if layout == FOLDER else {"mask_source": "sidecar"}
    return loaded(folder, **source, **values)


def files_of(folder):
    """Every file below a folder and a digest of its bytes."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def many_kinds(folder):
    """Pictures of every kind with the masks of every kind; what cannot be in one set is left to other tests."""
    grey(picture_of(folder / "plain 1.png").parent / "plain 1_mask.png", EIGHT_BITS)
    rotated = Image.fromarray(RNG.integers(0, 256, (12, 10, 3), np.uint8))
    exif = rotated.getexif()
    exif[0x0112] = 6
    rotated.save(folder / "Ümlaut rotated.jpg", exif=exif)
    grey(folder / "Ümlaut rotated_mask.png", RNG.random((10, 12)))
    (folder / "sub dir" / "deeper").mkdir(parents=True)
    Image.fromarray(RNG.integers(0, 256, (12, 10), np.uint8)).save(folder / "sub dir" / "grey 🐈.png")
    grey(folder / "sub dir" / "grey 🐈.mask.png", EIGHT_BITS)
    Image.fromarray(RNG.integers(0, 256, (12, 10, 4), np.uint8), "CMYK").save(folder / "cmyk.jpg")
    cv2.imwrite(str(folder / "cmyk_wmask.png"), RNG.integers(0, 65536, (12, 10)).astype(np.uint16))
    palette = Image.fromarray(RNG.integers(0, 9, (12, 10), np.uint8), "P")
    palette.putpalette(RNG.integers(0, 256, 768).tolist())
    palette.save(folder / "palette.png", transparency=bytes([0, 255, 40, 255, 128, 255, 255, 255, 255]))
    deep = RNG.integers(0, 65536, (12, 10, 4)).astype(np.uint16)
    cv2.imencode(".png", deep)[1].tofile(folder / "sub dir" / "deeper" / "sixteen.v2.png")
    Image.new("RGB", (10, 12), "red").save(folder / "flat.gif")
    grey(folder / "flat-masklabel.png", np.tri(12, 10))
    picture(folder / "scaled.webp", (40, 48))
    grey(folder / "scaled_mask.png", EIGHT_BITS)
    picture(folder / "no mask.png", (7, 5))
    picture(folder / "1x1.png", (1, 1))
    grey(folder / "1x1_mask.png", [[0.5]])
    return folder


def picture_of(path):
    return picture(path, (10, 12))


@pytest.mark.parametrize("transform", [MaskTransform(), MaskTransform(invert=True, feather=1.5)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_written_set_loads_back_bit_for_bit(tmp_path, layout, transform):
    source = load_dataset(folder_settings(many_kinds(tmp_path / "my set")), allowed=anywhere).with_transform(transform)
    if layout in (LABEL, SUFFIX):
        # A picture with a sidecar of another name would have two.
        source = without_sidecars(source)
    result = save(source, tmp_path / "out put", layout).dataset
    back = again(tmp_path / "my set", tmp_path / "out put", layout)
    assert sorted(s.name for s in back.samples) == sorted(s.name for s in result.samples)
    by_name = {sample.name: sample for sample in back.samples}
    for old, new in zip(source.samples, result.samples, strict=True):
        before, found = load_sample(old), load_sample(by_name[new.name])
        assert found.has_mask == before.has_mask == load_sample(new).has_mask
        assert np.array_equal(found.mask, weights(fit_mask(before.mask, old.size))), old.name
        assert np.array_equal(load_sample(new).mask, found.mask)
        assert np.array_equal(found.rgb, before.rgb)
        assert new.transform == MaskTransform() and new.size == by_name[new.name].size
        assert new.caption == by_name[new.name].caption


def without_sidecars(dataset):
    """The masks in memory and their files gone, as generators leave them."""
    samples = []
    for sample in dataset.samples:
        kept = sample
        if sample.mask_path is not None:
            kept = replace(sample, mask=load_mask(sample), mask_path=None, transform=MaskTransform())
            sample.mask_path.unlink()
        samples.append(kept)
    return replace(dataset, samples=tuple(samples))


@pytest.mark.parametrize(
    ("mask", "mode"), [(EIGHT_BITS, "L"), (HALF, "L"), (FINE, "I;16"), (np.zeros((3, 3)), "L"), (np.ones((3, 3)), "L")]
)
def test_a_mask_takes_sixteen_bits_only_where_eight_would_change_it(tmp_path, mask, mode):
    image = np.zeros((*mask.shape, 3), np.float32)
    save(from_images([image], [mask.astype(np.float32)]), tmp_path)
    with Image.open(tmp_path / "picture-0001.png") as written:
        assert written.mode == mode
    assert np.abs(read_mask(tmp_path / "picture-0001.png") - mask).max() <= 1 / 131070 + 1e-7


@pytest.mark.parametrize("mask", [EIGHT_BITS, FINE])
def test_colours_under_a_transparent_alpha_survive(tmp_path, mask):
    rgb = RNG.integers(0, 256, (12, 10, 3), np.uint8)
    (tmp_path / "in").mkdir()
    Image.fromarray(rgb).save(tmp_path / "in" / "a.png")
    dataset = loaded(tmp_path / "in")
    samples = tuple(replace(s, mask=mask.astype(np.float32)) for s in dataset.samples)
    save(replace(dataset, samples=samples), tmp_path / "out", ALPHA)
    found = read_image(tmp_path / "out" / "a.png")
    assert np.array_equal(found.rgb, rgb)
    assert np.array_equal(found.alpha, weights(mask.astype(np.float32)))


def test_an_all_white_mask_in_the_alpha_layout_reads_back_as_no_mask_and_is_told(tmp_path):
    grey(picture(tmp_path / "in" / "a.png").parent / "a_mask.png", np.ones((8, 8)))
    saved = save(loaded(tmp_path / "in"), tmp_path / "out", ALPHA)
    found = load_sample(loaded(tmp_path / "out").samples[0])
    assert not found.has_mask and (found.mask == 1).all()
    assert "1 mask is all white" in saved.text and "without a mask: a.png" in saved.text


@pytest.mark.parametrize("layout", [FOLDER, SUFFIX])
def test_a_missing_mask_stays_missing_and_is_told(tmp_path, layout):
    with_alpha(tmp_path / "in" / "a.png", HALF)
    picture(tmp_path / "in" / "b.png")
    with_alpha(tmp_path / "in" / "opaque.png", np.ones((8, 8)))
    saved = save(loaded(tmp_path / "in"), tmp_path / "out", layout)
    assert "1 mask written" in saved.text
    assert "2 pictures have no mask, nothing was written for them: b.png, opaque.png." in saved.text
    assert saved.dataset.report.missing == ("b.png", "opaque.png")
    assert len(files_of(tmp_path)) == 4


def test_missing_masks_are_written_white_when_asked(tmp_path):
    picture(tmp_path / "in" / "b.png", (5, 3))
    result = save(loaded(tmp_path / "in"), tmp_path / "out", without_mask="white").dataset
    assert load_sample(result.samples[0]).has_mask
    assert (read_mask(tmp_path / "out" / "b.png") == 1).all()


def test_pictures_without_a_mask_are_copied_without_alpha(tmp_path):
    picture(tmp_path / "in" / "b.jpg")
    saved = save(loaded(tmp_path / "in"), tmp_path / "out", ALPHA)
    with Image.open(tmp_path / "out" / "b.png") as copy:
        assert copy.mode == "RGB"
    assert "copied without alpha: b.jpg" in saved.text


def test_a_set_without_any_mask_writes_nothing_and_says_so(tmp_path):
    picture(tmp_path / "in" / "b.png")
    with pytest.raises(MaskError, match=r"None of 1 picture has a mask, beginning with b\.png"):
        save(loaded(tmp_path / "in"), tmp_path / "out")


def masked_set(folder, count=3):
    for i in range(1, count + 1):
        with_alpha(folder / f"cat {i}.png", HALF * i / count)
        (folder / f"cat {i}.txt").write_text(f"a cät, number {i}", encoding="utf-8")
    return loaded(folder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_that_are_there_are_all_listed_and_none_is_changed(tmp_path, layout):
    dataset = masked_set(tmp_path / "in")
    place = tmp_path / ("out" if layout in (FOLDER, ALPHA) else "in")
    ending = ".png" if layout in (FOLDER, ALPHA) else layout
    for i in (2, 3):
        grey(place / f"cat {i}{ending}", np.full((8, 8), 0.2))
    before = files_of(tmp_path)
    with pytest.raises(DataError) as caught:
        save(dataset, tmp_path / "out", layout)
    text = str(caught.value)
    assert text.startswith("Nothing was written:")
    assert all(str(place / f"cat {i}{ending}") in text for i in (2, 3)) and "Turn on overwrite" in text
    assert files_of(tmp_path) == before


def put_in_the_way(tmp_path, layout):
    """A mask, or a copy of the picture with another alpha, under the name of the second picture's file."""
    ending = ".png" if layout in (FOLDER, ALPHA) else layout
    path = tmp_path / ("out" if layout in (FOLDER, ALPHA) else "in") / f"cat 2{ending}"
    if layout == ALPHA:
        path.parent.mkdir(exist_ok=True)
        copy = Image.open(tmp_path / "in" / "cat 2.png").convert("RGBA")
        copy.putalpha(128)
        copy.save(path)
    else:
        grey(path, np.tri(8))
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_switch_replaces_them_and_keeps_what_they_held(tmp_path, layout):
    dataset = masked_set(tmp_path / "in")
    path = put_in_the_way(tmp_path, layout)
    before = path.read_bytes()
    pictures = {i: (tmp_path / "in" / f"cat {i}.png").read_bytes() for i in (1, 2, 3)}
    versions = Versions(tmp_path / "versions")
    saved = save(dataset, tmp_path / "out", layout, overwrite=True, versions=versions)
    found = again(tmp_path / "in", tmp_path / "out", layout).samples[1]
    assert np.array_equal(load_mask(found), load_mask(dataset.samples[1]))
    assert pictures == {i: (tmp_path / "in" / f"cat {i}.png").read_bytes() for i in (1, 2, 3)}
    assert [kept.read_bytes() for kept in versions.all(path)] == [before]
    assert f"1 file was replaced; what it held is kept in {versions.root}" in saved.text


def photograph(path, *, mode="RGB", size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(7).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


FOREIGN = {
    "a photograph": lambda path: photograph(path),
    "a grey photograph": lambda path: photograph(path, mode="L"),
    "a picture with alpha": lambda path: photograph(path, mode="RGBA"),
    "a mask of another size": lambda path: grey(path, np.tri(8)[:, :5]),
    "no picture": lambda path: (path.parent.mkdir(exist_ok=True), path.write_bytes(b"the only copy of something")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("put", FOREIGN.values(), ids=FOREIGN)
def test_files_of_others_are_never_replaced(tmp_path, layout, put):
    dataset = masked_set(tmp_path / "in")
    ending = ".png" if layout in (FOLDER, ALPHA) else layout
    path = tmp_path / ("out" if layout in (FOLDER, ALPHA) else "in") / f"cat 2{ending}"
    put(path)
    before = files_of(tmp_path)
    with pytest.raises(DataError, match="never replaced") as caught:
        save(dataset, tmp_path / "out", layout, overwrite=True)
    assert str(path) in str(caught.value)
    assert files_of(tmp_path) == before


def test_captions_of_pictures_that_are_not_of_this_dataset_are_never_replaced(tmp_path):
    dataset = masked_set(tmp_path / "in")
    caption = tmp_path / "out" / "cat 3.txt"
    caption.parent.mkdir()
    caption.write_text("somebody else's words", encoding="utf-8")
    with pytest.raises(DataError, match="belongs to no picture of this dataset"):
        save(dataset, tmp_path / "out", ALPHA, overwrite=True)
    photograph(tmp_path / "out" / "cat 3.png")
    with pytest.raises(DataError, match="never replaced"):
        save(dataset, tmp_path / "out", ALPHA, overwrite=True)
    assert caption.read_text(encoding="utf-8") == "somebody else's words"


def test_soft_masks_of_this_pack_may_be_replaced_although_they_look_like_photographs(tmp_path):
    dataset = masked_set(tmp_path / "in")
    soft = np.random.default_rng(3).random((8, 8)).astype(np.float32)
    dataset = Dataset(tuple(replace(s, mask=soft, alpha=False) for s in dataset.samples), dataset.report)
    save(dataset, tmp_path / "out")
    turned = Dataset(tuple(replace(s, mask=1 - soft) for s in dataset.samples), dataset.report)
    save(turned, tmp_path / "out", overwrite=True)
    found = again(tmp_path / "in", tmp_path / "out", FOLDER).samples[0]
    assert np.abs(load_mask(found) - (1 - soft)).max() < 1e-5


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_saving_once_more_leaves_every_file_alone(tmp_path, layout, overwrite):
    dataset = masked_set(tmp_path / "in")
    save(dataset, tmp_path / "out", layout, save_captions=True)
    for path in tmp_path.rglob("*.*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    saved = save(dataset, tmp_path / "out", layout, save_captions=True, overwrite=overwrite)
    assert {path.stat().st_mtime for path in tmp_path.rglob("*.*")} == {1_700_000_000}
    assert "3 files held the same already" in saved.text and "0 captions written, 3 were there" in saved.text
    assert np.array_equal(load_mask(saved.dataset.samples[1]), load_mask(dataset.samples[1]))


@pytest.mark.parametrize(("layout", "folder"), [(FOLDER, "in"), (ALPHA, "in"), (FOLDER, "."), (ALPHA, "in/sub")])
def test_a_destination_that_holds_the_pictures_or_would_be_loaded_with_them_is_refused(tmp_path, layout, folder):
    dataset = masked_set(tmp_path / "in")
    before = files_of(tmp_path)
    with pytest.raises(ConfigError, match="destination"):
        save(dataset, tmp_path / folder, layout, overwrite=True)
    assert files_of(tmp_path) == before


def test_a_picture_is_not_replaced_even_through_a_name_of_a_mask(tmp_path):
    dataset = masked_set(tmp_path / "in", 1)
    other = loaded(with_alpha(tmp_path / "in" / "more" / "x.png", HALF).parent)
    stray = replace(other.samples[0], image_path=tmp_path / "in" / "cat 1_mask.png")
    with_alpha(stray.image_path, HALF)
    before = files_of(tmp_path)
    both = replace(dataset, samples=(*dataset.samples, stray))
    with pytest.raises(DataError, match="pictures are never replaced"):
        save(both, layout=SUFFIX, overwrite=True, picture=0)
    assert files_of(tmp_path) == before


def test_two_pictures_that_would_share_a_file_are_named(tmp_path):
    with_alpha(tmp_path / "in" / "a.png", HALF)
    with_alpha(tmp_path / "in" / "a.webp", HALF)
    for layout in LAYOUTS:
        with pytest.raises(DataError, match=r"a\.png and a\.webp would both be written to"):
            save(loaded(tmp_path / "in"), tmp_path / "out", layout)
    assert not (tmp_path / "out").exists()


def test_merged_sets_with_equal_names_are_refused_in_one_folder_and_fine_beside_the_pictures(tmp_path):
    sets = [loaded(with_alpha(tmp_path / name / "a.png", HALF).parent) for name in ("one", "two")]
    with pytest.raises(DataError, match="save the datasets before they are merged"):
        save(merge(sets), tmp_path / "out")
    save(merge(sets), layout=SUFFIX)
    assert (tmp_path / "one" / "a_mask.png").is_file() and (tmp_path / "two" / "a_mask.png").is_file()


def test_accents_in_both_spellings_are_one_name(tmp_path):
    for form in ("NFC", "NFD"):
        with_alpha(tmp_path / "in" / f"{unicodedata.normalize(form, 'ä')}.png", HALF)
    dataset = loaded(tmp_path / "in")
    if len(dataset) == 1:
        pytest.skip("this file system takes both spellings for one")
    with pytest.raises(DataError, match="would both be written"):
        save(dataset, tmp_path / "out")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("layout", "rival"),
    [(FOLDER, "out/cat 2.jpg"), (ALPHA, "out/cat 2.webp"), (LABEL, "in/cat 2_mask.jpg"), (SUFFIX, "in/cat 2.mask.png")],
)
def test_another_file_that_the_loader_would_take_too_is_refused_even_with_the_switch(
    tmp_path, layout, rival, overwrite
):
    dataset = masked_set(tmp_path / "in")
    picture(tmp_path / rival)
    before = files_of(tmp_path)
    with pytest.raises(DataError, match="Move it away") as caught:
        save(dataset, tmp_path / "out", layout, overwrite=overwrite)
    assert str(tmp_path / rival) in str(caught.value)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("layout", [FOLDER, SUFFIX])
def test_a_picture_left_out_of_the_set_that_would_get_the_mask_too_is_refused(tmp_path, layout):
    with_alpha(tmp_path / "in" / "a.png", HALF)
    picture(tmp_path / "in" / "a.jpg")
    dataset = loaded(tmp_path / "in", missing_mask="skip image")
    with pytest.raises(DataError, match=r"a\.jpg has the same name"):
        save(dataset, tmp_path / "out", layout)


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_old_mask_of_a_picture_that_has_none_is_not_left_to_be_loaded(tmp_path, overwrite):
    with_alpha(tmp_path / "in" / "a.png", HALF)
    with_alpha(tmp_path / "in" / "opaque.png", np.ones((8, 8)))
    grey(tmp_path / "out" / "opaque.png", np.zeros((8, 8)))
    with pytest.raises(DataError, match=r"opaque\.png has no mask, but"):
        save(loaded(tmp_path / "in"), tmp_path / "out", overwrite=overwrite)
    save(loaded(tmp_path / "in"), tmp_path / "out", overwrite=True, without_mask="white")


def test_a_copy_that_would_be_taken_for_a_mask_is_refused(tmp_path):
    sets = [loaded(with_alpha(tmp_path / f"{name}" / f"{name}.png", HALF).parent) for name in ("a", "a_mask")]
    with pytest.raises(DataError, match="would be taken for a mask of a"):
        save(merge(sets), tmp_path / "out", ALPHA)


def test_a_mask_of_another_picture_is_not_lost(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    with_alpha(one / "sub" / "x.png", HALF)
    grey(picture(two / "x.png").parent.parent / "masks" / "sub" / "x.png", HALF)
    sets = [loaded(one), loaded(two, mask_source="folder", mask_folder=str(tmp_path / "masks" / "sub"))]
    with pytest.raises(DataError, match=r"is the mask of x\.png, which would be lost"):
        save(merge(sets), tmp_path / "masks", overwrite=True)


@pytest.mark.parametrize("name", ["../out", "a/../../b", "/etc/x", "a//b", ".hidden", "x\0y", "__MACOSX/a"])
@pytest.mark.parametrize("layout", [FOLDER, ALPHA])
def test_a_name_that_leads_out_of_the_destination_is_refused(tmp_path, layout, name):
    dataset = from_images([np.zeros((4, 4, 3), np.float32)], [np.zeros((4, 4), np.float32)], name=name)
    with pytest.raises(PathError, match="cannot be a file inside"):
        save(dataset, tmp_path / "out", layout)
    assert files_of(tmp_path) == {}


def test_a_linked_subfolder_that_leads_out_is_refused(tmp_path):
    dataset = loaded(with_alpha(tmp_path / "in" / "sub" / "a.png", HALF).parent.parent)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    link(tmp_path / "out" / "sub", tmp_path / "elsewhere")
    with pytest.raises(PathError, match="leads out of"):
        save(dataset, tmp_path / "out", allowed=lambda path: path.resolve())
    assert files_of(tmp_path / "elsewhere") == {}


def test_a_link_in_the_place_of_a_file_is_not_written_through(tmp_path):
    dataset = masked_set(tmp_path / "in")
    secret = picture(tmp_path / "secret.png")
    (tmp_path / "out").mkdir()
    link(tmp_path / "out" / "cat 1.png", secret)
    before = files_of(tmp_path)
    with pytest.raises(DataError, match="is a link"):
        save(dataset, tmp_path / "out", overwrite=True)
    assert files_of(tmp_path) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are a thing of POSIX")
@pytest.mark.parametrize("layout", [FOLDER, ALPHA])
def test_a_pipe_in_the_place_of_a_file_is_named_and_never_opened(tmp_path, layout):
    dataset = masked_set(tmp_path / "in")
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "cat 1.png")
    with pytest.raises(DataError, match=r"cat 1\.png is no regular file"):
        save(dataset, tmp_path / "out", layout=layout, overwrite=True)


@pytest.mark.parametrize("name", ["y" * 300, "\u5f71" * 90, "y/" * 2500], ids=["letters", "bytes", "path"])
@pytest.mark.parametrize("layout", [FOLDER, ALPHA])
def test_a_destination_that_no_disk_takes_names_the_widget(tmp_path, layout, name):
    with pytest.raises(ConfigError, match=r"^destination: .*Name another\.$"):
        save(masked_set(tmp_path / "in"), tmp_path / name, layout=layout)


@pytest.mark.parametrize("stem", ["x" * 250, "\u5f71" * 82 + "ab"], ids=["letters", "bytes"])
@pytest.mark.parametrize("layout", [LABEL, SUFFIX])
def test_a_mask_whose_name_would_be_too_long_is_refused_before_anything_is_written(tmp_path, layout, stem):
    with_alpha(tmp_path / "a.png", HALF)
    with_alpha(tmp_path / f"{stem}.png", HALF)
    before = files_of(tmp_path)
    with pytest.raises(DataError, match=r"Nothing was written:\n.*bytes long, expected at most \d+\. Give the picture"):
        save(loaded(tmp_path), layout=layout)
    assert files_of(tmp_path) == before
    assert len(save(loaded(tmp_path), tmp_path / "out").dataset) == 2


def link(place, target):
    try:
        place.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:
        pytest.skip("links need rights on this system")


def test_the_mask_of_a_linked_picture_lies_beside_the_link(tmp_path):
    real = with_alpha(tmp_path / "store" / "0815.png", HALF)
    (tmp_path / "in").mkdir()
    link(tmp_path / "in" / "cat.png", real)
    dataset = load_dataset(folder_settings(tmp_path / "in"), allowed=lambda path: path.resolve())
    assert dataset.samples[0].name == "cat.png"
    save(dataset, layout=SUFFIX, allowed=lambda path: path.resolve())
    assert np.array_equal(load_mask(again(tmp_path / "in", None, SUFFIX).samples[0]), HALF)


def test_every_folder_is_asked_for_before_anything_is_written(tmp_path):
    dataset = loaded(with_alpha(tmp_path / "in" / "a.png", HALF).parent)

    def allowed(path):
        if path.is_relative_to(tmp_path / "out"):
            raise PathError("out lies outside the folders")
        return path

    with pytest.raises(PathError, match="lies outside"):
        save(dataset, tmp_path / "out", allowed=allowed)
    with pytest.raises(ConfigError, match="destination: the layout mask folder needs a folder"):
        save(dataset)


def test_a_stopped_save_leaves_whole_files_and_can_be_repeated(tmp_path):
    dataset = masked_set(tmp_path / "in", 5)

    class Stop(BaseException):
        pass

    def stop_at_the_third():
        if len(list((tmp_path / "out").glob("*.png"))) == 2:
            raise Stop

    with pytest.raises(Stop):
        save(dataset, tmp_path / "out", check_cancel=stop_at_the_third)
    assert sorted(files_of(tmp_path / "out")) == ["cat 1.png", "cat 2.png"]
    saved = save(dataset, tmp_path / "out")
    assert saved.text.startswith("3 masks written") and "2 files held the same" in saved.text
    found = again(tmp_path / "in", tmp_path / "out", FOLDER)
    assert all(np.array_equal(load_mask(a), load_mask(b)) for a, b in zip(found.samples, dataset.samples, strict=True))


def test_a_file_in_the_place_of_a_subfolder_is_a_clear_error(tmp_path):
    dataset = masked_set(tmp_path / "in")
    deeper = replace(dataset.samples[2], name="sub/cat 3.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_bytes(b"")
    with pytest.raises(DataError, match="sub: the folder cannot be read"):
        save(replace(dataset, samples=(*dataset.samples[:2], deeper)), tmp_path / "out")
    assert list(files_of(tmp_path / "out")) == ["sub"]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="limits on the size of files are a thing of POSIX")
def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path):
    import resource
    import signal

    noise = RNG.random((200, 200)).astype(np.float32)
    dataset = from_images([np.zeros((200, 200, 3), np.float32)] * 2, [np.zeros((200, 200), np.float32), noise])
    grey(tmp_path / "picture-0002.png", np.zeros((200, 200)))
    old = (tmp_path / "picture-0002.png").read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(RunError, match=r"picture-0002\.png: could not be written .* Of 2 pictures, 1 was saved"):
            save(dataset, tmp_path, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (tmp_path / "picture-0002.png").read_bytes() == old
    assert sorted(files_of(tmp_path)) == ["picture-0001.png", "picture-0002.png"]


def test_pictures_in_memory_are_saved_by_their_names(tmp_path):
    images = [RNG.random((12, 10, 3)).astype(np.float32)] * 2
    dataset = from_images(images, [EIGHT_BITS.astype(np.float32)] * 2, ["one", "two"], name="v1.5/set")
    save(dataset, tmp_path / "masks")
    assert sorted(files_of(tmp_path / "masks")) == ["v1.5/set-0001.png", "v1.5/set-0002.png"]
    result = save(dataset, tmp_path / "alpha", ALPHA).dataset
    back = loaded(tmp_path / "alpha")
    assert [s.caption for s in back.samples] == ["one", "two"]
    assert [s.name for s in back.samples] == ["v1.5/set-0001.png", "v1.5/set-0002.png"]
    assert [(s.name, s.key) for s in result.samples] == [(s.name, s.key) for s in back.samples]
    assert np.array_equal(load_sample(back.samples[0]).rgb, load_sample(dataset.samples[0]).rgb)


@pytest.mark.parametrize("layout", [LABEL, SUFFIX])
def test_pictures_in_memory_have_no_place_beside_them(tmp_path, layout):
    dataset = from_images([np.zeros((4, 4, 3), np.float32)], [np.zeros((4, 4), np.float32)])
    with pytest.raises(ConfigError, match="picture-0001 is in memory"):
        save(dataset, tmp_path, layout)


def test_captions_are_written_beside_the_pictures_only_when_asked(tmp_path):
    dataset = masked_set(tmp_path / "in")
    new = tuple(replace(s, caption=f"naïve 猫 {i}\nsecond line") for i, s in enumerate(dataset.samples))
    edited = replace(dataset, samples=new)
    before = {i: (tmp_path / "in" / f"cat {i}.txt").read_bytes() for i in (1, 2, 3)}
    save(edited, tmp_path / "out")
    assert before == {i: (tmp_path / "in" / f"cat {i}.txt").read_bytes() for i in (1, 2, 3)}
    with pytest.raises(DataError, match=r"cat 1\.txt exists and holds another text"):
        save(edited, tmp_path / "out 2", save_captions=True)
    assert not (tmp_path / "out 2").exists()
    saved = save(edited, tmp_path / "out", save_captions=True, overwrite=True)
    assert "3 captions written" in saved.text
    back = loaded(tmp_path / "in")
    assert [s.caption for s in back.samples] == [f"naïve 猫 {i}, second line" for i in range(3)]
    assert [s.caption for s in saved.dataset.samples] == [s.caption for s in back.samples]


def test_a_caption_extension_is_that_of_the_dataset_and_never_a_program_s(tmp_path):
    image, mask = np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.float32)
    for extension in (".caption", ".json", ".png"):
        settings = DatasetSettings(caption=CaptionSettings(extension=extension))
        if extension == ".caption":
            dataset = from_images([image], [mask], ["x"], settings)
            save(dataset, tmp_path / "out", ALPHA)
            assert (tmp_path / "out" / "picture-0001.caption").read_text(encoding="utf-8") == "x\n"
        else:
            with pytest.raises(ConfigError, match="caption_extension"):
                from_images([image], [mask], ["x"], settings)


def test_a_caption_in_another_case_of_the_extension_is_a_rival(tmp_path):
    dataset = masked_set(tmp_path / "in", 1)
    (tmp_path / "in" / "cat 1.txt").rename(tmp_path / "in" / "cat 1.TXT")
    if (tmp_path / "in" / "cat 1.txt").exists():
        pytest.skip("this file system does not tell the two apart")
    edited = replace(dataset, samples=(replace(dataset.samples[0], caption="new"),))
    with pytest.raises(DataError, match=r"cat 1\.TXT would be taken for its caption"):
        save(edited, tmp_path / "out", save_captions=True, overwrite=True)


def test_the_report_ends_with_the_settings_that_load_it_back(tmp_path):
    dataset = masked_set(tmp_path / "in")
    last = {way: save(dataset, tmp_path / way, way).text.splitlines()[-1] for way in (FOLDER, ALPHA, LABEL)}
    head, folder = f"Load Dataset: folder {tmp_path / 'in'}", tmp_path / FOLDER
    assert last[FOLDER].startswith(f"{head}, mask_source folder, mask_folder {folder},")
    assert last[ALPHA] == f"Load Dataset: folder {tmp_path / ALPHA}, mask_source alpha."
    assert last[LABEL].startswith(f"{head}, mask_source sidecar, ")


def test_transforms_written_over_their_own_source_are_told(tmp_path):
    grey(picture(tmp_path / "in" / "a.png").parent / "masks" / "a.png", EIGHT_BITS[:8, :8])
    dataset = loaded(tmp_path / "in", mask_folder="masks").with_transform(MaskTransform(invert=True))
    saved = save(dataset, tmp_path / "in" / "masks", overwrite=True)
    assert "Take Transform Masks out of the graph" in saved.text
    assert np.array_equal(load_mask(saved.dataset.samples[0]), weights(1 - EIGHT_BITS[:8, :8].astype(np.float32)))
    saved.dataset.with_transform(MaskTransform(grow=2))


def test_masks_inside_the_picture_folder_come_with_advice(tmp_path):
    saved = save(masked_set(tmp_path / "in"), tmp_path / "in" / "masks")
    assert "Name them as mask_folder" in saved.text
    assert len(again(tmp_path / "in", tmp_path / "in" / "masks", FOLDER)) == 3


def test_a_picture_that_changed_its_size_is_named(tmp_path):
    dataset = masked_set(tmp_path / "in")
    with_alpha(tmp_path / "in" / "cat 2.png", HALF[:4])
    with pytest.raises(DataError, match=r"cat 2\.png: the picture is 8×4, but was 8×8"):
        save(dataset, tmp_path / "out", ALPHA)


def test_references_stay_beside_their_pictures_and_are_never_replaced(tmp_path):
    folder = tmp_path / "set"
    picture(folder / "cat.png", (16, 12))
    grey(folder / "cat_mask.png", np.ones((12, 16)))
    picture(folder / "before" / "cat.png", (16, 12), value=7)
    data = loaded(folder, reference_folders="before")
    before = files_of(folder)
    for layout in (FOLDER, ALPHA):
        saved = save(data, tmp_path / layout, layout).dataset
        assert saved.samples[0].references == data.samples[0].references != ()
    with pytest.raises(DataError, match=r"is the picture before/cat\.png, and pictures are never replaced"):
        save(data, folder / "before", overwrite=True)
    assert files_of(folder) == before
    corrected = replace_masks(data, [np.zeros((12, 16), np.float32)])
    assert corrected.samples[0].references == data.samples[0].references
