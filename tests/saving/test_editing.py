"""Masks edited by hand: what was painted loads back bit for bit, and nothing that was there is lost."""

import hashlib
import os
import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from harness.folders import anywhere, folder_settings, grey, picture, with_alpha
from masklora.dataset.loading import from_images, load_dataset
from masklora.dataset.sample import load_sample, merge
from masklora.errors import ConfigError, DataError, MaskConflictError, MaskError, PathError
from masklora.pictures.reading import read_image
from masklora.saving.editing import NO_FILE, affected, mask_target, previous_mask, raw_mask, save_mask, shown_levels
from masklora.saving.versions import MOST_KEPT, Versions
from masklora.settings import MaskTransform

RNG = np.random.default_rng(11)
SIZE = (10, 12)
PAINTED = RNG.integers(0, 256, SIZE[::-1]).astype(np.uint8)
OLD = RNG.integers(0, 256, SIZE[::-1]).astype(np.uint8)


def loaded(folder, **values):
    """The data set of a folder; where the source asked for has no mask yet, as it was before the last one went."""
    settings = folder_settings(folder, **values)
    try:
        return load_dataset(settings, allowed=anywhere)
    except MaskError:
        if settings.mask_source not in ("alpha", "sidecar"):
            raise
    dataset = load_dataset(replace(settings, mask_source="auto"), allowed=anywhere)
    return replace(dataset, samples=tuple(replace(sample, settings=settings) for sample in dataset.samples))


def photo(path, size=SIZE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path, **options)
    return path


def mask_file(path, levels=OLD):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imencode(path.suffix, levels)[1].tofile(path) is None
    return path


def edit(sample, levels=PAINTED, *, versions, allowed=anywhere, token=None):
    token = raw_mask(sample, allowed=allowed).token if token is None else token
    return save_mask(sample, levels, token, allowed=allowed, versions=versions)


def exact(levels):
    return levels.astype(np.float32) / np.float32(np.iinfo(levels.dtype).max)


def files_of(folder):
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


@pytest.fixture
def versions(tmp_path):
    return Versions(tmp_path / "kept")


@pytest.fixture
def pictures(tmp_path):
    return tmp_path / "Bilder mit Übung 🐈"


def a_sidecar(folder):
    photo(folder / "sub dir" / "cät 1.png")
    mask_file(folder / "sub dir" / "cät 1_mask.png")
    return {}


def a_lossy_sidecar(folder):
    photo(folder / "cat.v2.png")
    mask_file(folder / "cat.v2_mask.jpg")
    return {}


def a_mask_folder(folder):
    photo(folder / "sub" / "cat 1.webp")
    mask_file(folder / "masks" / "sub" / "cat 1.png")
    return {"mask_folder": "masks"}


def a_lossy_mask_folder(folder):
    photo(folder / "sub" / "cat 1.webp")
    mask_file(folder / "masks" / "sub" / "cat 1.webp")
    return {"mask_folder": "masks"}


def a_mask_of_another_scale(folder):
    photo(folder / "cat.png")
    mask_file(folder / "cat_mask.png", np.kron(OLD, np.ones((2, 2), np.uint8)))
    return {}


def an_alpha(folder):
    with_alpha(folder / "cat.png", exact(OLD))
    return {}


def an_alpha_and_a_mask_folder(folder):
    with_alpha(folder / "cat.png", exact(OLD))
    with_alpha(folder / "dog.png", exact(OLD))
    mask_file(folder / "masks" / "dog.png")
    return {"mask_folder": "masks"}


def an_alpha_only(folder):
    with_alpha(folder / "cat.png", exact(OLD))
    return {"mask_source": "alpha"}


def no_alpha_yet(folder):
    photo(folder / "cat.png")
    return {"mask_source": "alpha"}


def nothing(folder):
    photo(folder / "cat.jpg")
    return {}


def nothing_in_a_mask_folder(folder):
    photo(folder / "sub" / "cat.jpg")
    photo(folder / "dog.jpg")
    mask_file(folder / "masks" / "dog.png")
    return {"mask_folder": "masks", "mask_source": "folder"}


def nothing_beside(folder):
    photo(folder / "cat.jpg")
    return {"mask_source": "sidecar"}


def a_mask_in_green(folder):
    photo(folder / "cat.png")
    mask_file(folder / "cat_mask.png", RNG.integers(0, 256, (*SIZE[::-1], 3)).astype(np.uint8))
    return {"mask_channel": "green", "mask_source": "sidecar"}


def a_mask_in_alpha(folder):
    photo(folder / "cat.png")
    mask_file(folder / "cat_mask.png", RNG.integers(0, 256, (*SIZE[::-1], 4)).astype(np.uint8))
    return {"mask_channel": "alpha"}


def nothing_but_alpha_is_read(folder):
    photo(folder / "cat.png")
    return {"mask_channel": "alpha"}


LAYOUTS = [
    a_sidecar,
    a_lossy_sidecar,
    a_mask_folder,
    a_lossy_mask_folder,
    a_mask_of_another_scale,
    an_alpha,
    an_alpha_and_a_mask_folder,
    an_alpha_only,
    no_alpha_yet,
    nothing,
    nothing_in_a_mask_folder,
    nothing_beside,
    a_mask_in_green,
    a_mask_in_alpha,
    nothing_but_alpha_is_read,
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda make: make.__name__)
def test_what_was_painted_loads_back_bit_for_bit(layout, pictures, versions):
    settings = layout(pictures)
    before = loaded(pictures, **settings)
    index = next(i for i, sample in enumerate(before.samples) if "cat" in sample.name or "cät" in sample.name)
    rgb = [load_sample(sample).rgb for sample in before.samples]
    transformed = replace(before.samples[index], transform=MaskTransform(invert=True))
    saved = edit(transformed, versions=versions)
    assert saved.transform == transformed.transform
    again = loaded(pictures, **settings)
    assert [sample.name for sample in again.samples] == [sample.name for sample in before.samples]
    for sample in (replace(saved, transform=MaskTransform()), again.samples[index]):
        found = load_sample(sample)
        assert found.has_mask
        assert np.array_equal(found.mask, exact(PAINTED))
    assert all(np.array_equal(load_sample(s).rgb, was) for s, was in zip(again.samples, rgb, strict=True))
    assert np.array_equal(raw_mask(saved, allowed=anywhere).weights, exact(PAINTED))
    assert not [path.name for path in pictures.rglob(".*")]


def test_the_editor_opens_what_is_loaded_without_transforms(pictures):
    a_sidecar(pictures)
    (sample,) = loaded(pictures).with_transform(MaskTransform(invert=True)).samples
    raw = raw_mask(sample, allowed=anywhere)
    assert np.array_equal(raw.weights, exact(OLD))
    assert np.array_equal(shown_levels(raw.weights), OLD)
    photo(pictures / "bare.jpg")
    bare = raw_mask(loaded(pictures).samples[0], allowed=anywhere)
    assert (bare.weights == 1).all() and bare.token == NO_FILE


def test_pixels_that_were_not_painted_keep_their_sixteen_bits(pictures, versions):
    fine = RNG.integers(0, 65536, SIZE[::-1]).astype(np.uint16)
    photo(pictures / "cat.png")
    mask_file(pictures / "cat_mask.png", fine)
    (sample,) = loaded(pictures).samples
    levels = shown_levels(raw_mask(sample, allowed=anywhere).weights)
    levels[3:5, 2:6] = 255 - levels[3:5, 2:6]
    painted = np.zeros(levels.shape, bool)
    painted[3:5, 2:6] = True
    mask = load_sample(edit(sample, levels, versions=versions)).mask
    assert np.array_equal(mask[~painted], exact(fine)[~painted])
    assert np.array_equal(mask[painted], exact(levels)[painted])


def test_saving_what_is_there_changes_no_file(pictures, versions):
    a_sidecar(pictures)
    (sample,) = loaded(pictures).samples
    before = files_of(pictures)
    assert edit(sample, OLD, versions=versions).mask_path == sample.mask_path
    assert files_of(pictures) == before
    assert previous_mask(sample, allowed=anywhere, versions=versions) is None


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda make: make.__name__)
def test_the_later_of_two_editors_is_told(layout, pictures, versions):
    settings = layout(pictures)
    sample = next(s for s in loaded(pictures, **settings).samples if "cat" in s.name or "cät" in s.name)
    first = raw_mask(sample, allowed=anywhere)
    edit(sample, PAINTED, versions=versions, token=first.token)
    after = files_of(pictures)
    with pytest.raises(MaskConflictError, match=r"changed elsewhere.*Load that mask"):
        edit(sample, 255 - PAINTED, versions=versions, token=first.token)
    assert files_of(pictures) == after
    theirs = raw_mask(sample, allowed=anywhere)
    assert np.array_equal(theirs.weights, exact(PAINTED))
    saved = edit(sample, 255 - PAINTED, versions=versions, token=theirs.token)
    assert np.array_equal(load_sample(saved).mask, exact(255 - PAINTED))


def test_of_two_saves_at_once_one_is_told(pictures, versions):
    a_sidecar(pictures)
    (sample,) = loaded(pictures).samples
    token = raw_mask(sample, allowed=anywhere).token
    told, ready = [], threading.Barrier(8)

    def save(value):
        ready.wait()
        try:
            edit(sample, np.full(SIZE[::-1], value, np.uint8), versions=versions, token=token)
        except MaskConflictError:
            told.append(value)

    threads = [threading.Thread(target=save, args=(value,)) for value in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 7


def test_a_change_by_another_program_is_noticed(pictures, versions):
    a_mask_folder(pictures)
    (sample,) = loaded(pictures, mask_folder="masks").samples
    token = raw_mask(sample, allowed=anywhere).token
    mask_file(pictures / "masks" / "sub" / "cat 1.png", 255 - OLD)
    with pytest.raises(MaskConflictError, match=r"sub/cat 1\.webp"):
        edit(sample, versions=versions, token=token)


@pytest.mark.parametrize("layout", [a_sidecar, a_lossy_mask_folder, a_mask_in_alpha, an_alpha_only])
def test_the_previous_version_is_kept_whole(layout, pictures, versions):
    settings = layout(pictures)
    (sample,) = loaded(pictures, **settings).samples
    old = mask_target(sample, allowed=anywhere).existing
    whole, weights = old.read_bytes(), load_sample(sample).mask
    saved = edit(sample, versions=versions)
    (kept,) = versions.all(mask_target(saved, allowed=anywhere).path)
    assert kept.read_bytes() == whole and kept.name.endswith(f"-{old.name}")
    for now in (sample, saved):
        assert np.array_equal(previous_mask(now, allowed=anywhere, versions=versions), weights)
    again = edit(saved, shown_levels(weights), versions=versions)
    assert np.array_equal(previous_mask(again, allowed=anywhere, versions=versions), exact(PAINTED))


def test_twenty_versions_are_kept_of_each_file(pictures, versions):
    a_sidecar(pictures)
    photo(pictures / "dog.png")
    mask_file(pictures / "dog_mask.png")
    cat, dog = loaded(pictures).samples if "dog" in loaded(pictures).samples[1].name else loaded(pictures).samples[::-1]
    edit(dog, versions=versions)
    for value in range(MOST_KEPT + 3):
        cat = edit(cat, np.full(SIZE[::-1], value, np.uint8), versions=versions)
    kept = versions.all(cat.mask_path)
    assert len(kept) == MOST_KEPT
    assert np.asarray(Image.open(kept[0])).max() == MOST_KEPT + 1
    assert len(versions.all(dog.mask_path)) == 1


def test_a_lossy_mask_makes_way_for_its_png(pictures, versions):
    a_lossy_sidecar(pictures)
    (sample,) = loaded(pictures).samples
    saved = edit(sample, versions=versions)
    assert sorted(path.name for path in pictures.iterdir()) == ["cat.v2.png", "cat.v2_mask.png"]
    assert saved.mask_path == pictures / "cat.v2_mask.png"


def test_alpha_stays_in_the_picture_only_where_masks_are_looked_for_only_there(pictures, versions):
    an_alpha(pictures)
    before = (pictures / "cat.png").read_bytes()
    (sample,) = loaded(pictures).samples
    saved = edit(sample, versions=versions)
    assert saved.mask_path == pictures / "cat-masklabel.png" and not saved.alpha
    assert (pictures / "cat.png").read_bytes() == before


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_keeps_colours_metadata_and_orientation(orientation, pictures, versions):
    exif = Image.Exif()
    exif[0x0112] = orientation
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", '{"nodes": []}')
    photo(pictures / "cat.png", exif=exif, pnginfo=info, icc_profile=b"a profile " * 20, dpi=(300, 300))
    (sample,) = loaded(pictures, mask_source="alpha").samples
    stored = np.asarray(Image.open(pictures / "cat.png"))
    levels = PAINTED if sample.size == SIZE else np.ascontiguousarray(PAINTED.T)
    saved = edit(sample, levels, versions=versions)
    assert np.array_equal(load_sample(saved).mask, exact(levels))
    after = Image.open(pictures / "cat.png")
    assert np.array_equal(np.asarray(after)[..., :3], stored)
    assert after.getexif()[0x0112] == orientation
    assert after.info["workflow"] == '{"nodes": []}' and after.info["icc_profile"] == b"a profile " * 20
    assert round(after.info["dpi"][0]) == 300


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "I;16", "RGB16", "RGBA16"])
def test_pictures_of_every_depth_keep_their_colours(mode, pictures, versions):
    path = photo(pictures / "cat.png")
    if mode.endswith("16"):
        shape = SIZE[::-1] if mode == "I;16" else (*SIZE[::-1], 3 if mode == "RGB16" else 4)
        cv2.imencode(".png", RNG.integers(0, 65536, shape).astype(np.uint16))[1].tofile(path)
    elif mode == "P":
        Image.open(path).quantize(20).save(path, transparency=3)
    else:
        Image.open(path).convert(mode).save(path)
    rgb = read_image(path).rgb
    (sample,) = loaded(pictures, mask_source="alpha").samples
    saved = edit(sample, versions=versions)
    assert np.array_equal(read_image(path).rgb, rgb)
    assert np.array_equal(shown_levels(load_sample(saved).mask), PAINTED)


def test_the_other_bands_of_a_mask_file_stay_as_they_are(pictures, versions):
    a_mask_in_green(pictures)
    before = cv2.imread(str(pictures / "cat_mask.png"), cv2.IMREAD_UNCHANGED)
    (sample,) = loaded(pictures, mask_channel="green").samples
    edit(sample, versions=versions)
    after = np.asarray(Image.open(pictures / "cat_mask.png"))
    assert np.array_equal(after[..., 0], before[..., 2]) and np.array_equal(after[..., 2], before[..., 0])
    assert np.array_equal(after[..., 1], PAINTED)
    a_mask_in_alpha(pictures)
    before = np.asarray(Image.open(pictures / "cat_mask.png"))
    (sample,) = loaded(pictures, mask_channel="alpha").samples
    edit(sample, versions=versions)
    assert np.array_equal(np.asarray(Image.open(pictures / "cat_mask.png"))[..., :3], before[..., :3])


def two_subjects(folder):
    photo(folder / "us 1.jpg")
    mask_file(folder / "masks" / "us 1.anna.jpg")
    mask_file(folder / "masks" / "us 1.bo.png", 255 - OLD)
    return loaded(folder, mask_folder="masks", together=0.5)


def test_a_subject_is_edited_and_the_union_follows(pictures, versions):
    dataset = two_subjects(pictures)
    anna, bo, union = dataset.samples
    saved = edit(anna, versions=versions)
    assert saved.mask_path == pictures / "masks" / "us 1.anna.png"
    changed = affected(dataset.samples, anna, saved)
    assert sorted(changed) == [0, 2]
    assert np.array_equal(load_sample(changed[2]).mask, np.maximum(exact(PAINTED), exact(255 - OLD)))
    again = loaded(pictures, mask_folder="masks", together=0.5)
    assert [s.name for s in again.samples] == [s.name for s in dataset.samples]
    assert np.array_equal(load_sample(again.samples[2]).mask, load_sample(changed[2]).mask)
    with pytest.raises(DataError, match=r"us 1\.jpg \[together\].*Edit the subjects one by one"):
        raw_mask(union, allowed=anywhere)
    assert np.array_equal(load_sample(bo).mask, exact(255 - OLD))


def test_a_picture_that_is_in_the_data_set_twice_follows(pictures, versions):
    photo(pictures / "cat.jpg")
    photo(pictures / "dog.jpg")
    dataset = loaded(pictures)
    twice = merge([dataset, dataset])
    saved = edit(twice.samples[0], versions=versions)
    changed = affected(twice.samples, twice.samples[0], saved)
    assert sorted(changed) == [0, 2]
    assert [changed[i].key for i in (0, 2)] == [twice.samples[i].key for i in (0, 2)]
    assert changed[2].mask_path == saved.mask_path


def test_masks_without_a_file_say_what_to_do(pictures):
    photo(pictures / "cat.png")
    (sample,) = loaded(pictures).samples
    made = replace(sample, mask=np.ones(SIZE[::-1], np.float32), made_by="GrabCut")
    with pytest.raises(DataError, match=r"cat\.png: its mask was made in this graph.*Save Masks"):
        mask_target(made, allowed=anywhere)
    (memory,) = from_images([np.zeros((4, 4, 3), np.float32)]).samples
    with pytest.raises(DataError, match=r"picture-0001.*Save Masks"):
        mask_target(memory, allowed=anywhere)
    (without,) = loaded(pictures, mask_source="none").samples
    with pytest.raises(ConfigError, match=r"mask_source is none.*auto"):
        mask_target(without, allowed=anywhere)


@pytest.mark.parametrize("name", ["cat.jpg", "cat.webp"])
def test_alpha_is_written_into_png_only(name, pictures):
    photo(pictures / name)
    (sample,) = loaded(pictures, mask_source="alpha").samples
    with pytest.raises(DataError, match=rf"{name}.*only a PNG.*auto"):
        mask_target(sample, allowed=anywhere)


def test_an_animation_or_a_disguised_jpeg_is_not_overwritten(pictures, versions):
    frames = [Image.new("RGB", SIZE, colour) for colour in ("red", "blue")]
    pictures.mkdir()
    frames[0].save(pictures / "moving.png", save_all=True, append_images=frames[1:])
    photo(pictures / "other.jpg").rename(pictures / "other.png")
    before = files_of(pictures)
    moving, other = loaded(pictures, mask_source="alpha").samples
    with pytest.raises(DataError, match=r"moving\.png is a clip, and its mask is its own transparency"):
        edit(moving, versions=versions)
    with pytest.raises(DataError, match=r"other\.png.*no PNG"):
        edit(other, versions=versions)
    assert files_of(pictures) == before


def test_an_opaque_alpha_that_would_be_a_missing_mask_is_refused(pictures, versions):
    an_alpha_only(pictures)
    white = np.full(SIZE[::-1], 255, np.uint8)
    (sample,) = loaded(pictures, mask_source="alpha", missing_mask="skip image").samples
    with pytest.raises(DataError, match="missing_mask is skip image"):
        edit(sample, white, versions=versions)
    (sample,) = loaded(pictures, mask_source="alpha").samples
    assert (load_sample(edit(sample, white, versions=versions)).mask == 1).all()


def test_a_mask_of_another_size_or_depth_is_refused(pictures, versions):
    a_sidecar(pictures)
    (sample,) = loaded(pictures).samples
    for levels in (np.zeros((3, 3), np.uint8), PAINTED.T, PAINTED.astype(np.uint16)):
        with pytest.raises(MaskError, match="expected a mask of 10×12"):
            edit(sample, levels, versions=versions)


def test_a_file_that_would_be_the_mask_of_two_pictures_is_not_written(pictures, versions):
    photo(pictures / "cat.png")
    photo(pictures / "cat.jpg")
    before = files_of(pictures)
    with pytest.raises(DataError, match="same name"):
        edit(loaded(pictures).samples[0], versions=versions)
    assert files_of(pictures) == before


def within(root):
    def allowed(path):
        real = path.resolve()
        if not real.is_relative_to(root.resolve()):
            raise PathError(f"{path} lies outside.")
        return real

    return allowed


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_that_leads_outside_is_refused(pictures, tmp_path, versions):
    photo(pictures / "cat.png")
    mask_file(pictures / "masks" / "cat.png")
    (sample,) = loaded(pictures, mask_folder="masks").samples
    outside = mask_file(tmp_path / "outside" / "cat.png")
    before = outside.read_bytes()
    sample.mask_path.unlink()
    sample.mask_path.symlink_to(outside)
    with pytest.raises(DataError, match="is a link"):
        edit(sample, versions=versions, allowed=within(pictures))
    sample.mask_path.unlink()
    (pictures / "masks").rmdir()
    (pictures / "masks").symlink_to(tmp_path / "outside")
    with pytest.raises(PathError, match="outside"):
        edit(sample, versions=versions, allowed=within(pictures))
    assert outside.read_bytes() == before


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_lossy_mask_behind_a_link_is_left_alone(pictures, tmp_path, versions):
    photo(pictures / "cat.png")
    elsewhere = mask_file(tmp_path / "elsewhere" / "its mask.jpg")
    (pictures / "masks").mkdir()
    (pictures / "masks" / "cat.jpg").symlink_to(elsewhere)
    settings = folder_settings(pictures, mask_folder="masks")
    (sample,) = load_dataset(settings, allowed=lambda path: path.resolve()).samples
    with pytest.raises(DataError, match="through a link"):
        edit(sample, versions=versions, allowed=lambda path: path.resolve())
    assert elsewhere.is_file()


def test_a_full_disk_is_told_and_leaves_the_mask(pictures, versions):
    resource = pytest.importorskip("resource")
    size = (300, 300)
    picture(pictures / "cat.png", size)
    grey(pictures / "cat_mask.png", np.zeros(size))
    (sample,) = loaded(pictures).samples
    before = files_of(pictures)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"cat\.png: .*could not be written.*untouched"):
            edit(sample, RNG.integers(0, 256, size).astype(np.uint8), versions=versions)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files_of(pictures) == before


def test_where_the_former_version_cannot_be_kept_nothing_is_written(pictures, tmp_path):
    a_sidecar(pictures)
    (sample,) = loaded(pictures).samples
    before = files_of(pictures)
    (tmp_path / "a file").write_text("in the way")
    with pytest.raises(DataError, match="could not be written"):
        edit(sample, versions=Versions(tmp_path / "a file"))
    assert files_of(pictures) == before


def test_a_file_with_the_extension_mask_is_edited_in_place_and_never_becomes_the_picture(tmp_path, versions):
    picture_file = photo(tmp_path / "p" / "i.png")
    mask_file(tmp_path / "p" / "x.png").rename(tmp_path / "p" / "i.mask")
    before = picture_file.read_bytes()
    (sample,) = loaded(tmp_path / "p").samples
    edit(sample, versions=versions)
    assert picture_file.read_bytes() == before
    (sample,) = loaded(tmp_path / "p").samples
    assert np.array_equal(load_sample(sample).mask, exact(PAINTED)) and sample.mask_path.name == "i.mask"


@pytest.mark.parametrize("extension", [".png", ".bmp"])
def test_a_mask_in_a_folder_named_for_masks_is_edited_where_it_lies(tmp_path, versions, extension):
    photo(tmp_path / "p" / "sub" / "i.jpg")
    mask_file(tmp_path / "p" / "sub" / "masks" / f"i{extension}")
    (sample,) = loaded(tmp_path / "p").samples
    edit(sample, versions=versions)
    (sample,) = loaded(tmp_path / "p").samples
    assert np.array_equal(load_sample(sample).mask, exact(PAINTED))
    assert sorted(files_of(tmp_path / "p")) == ["sub/i.jpg", "sub/masks/i.png"]


def test_numbered_masks_of_one_picture_are_no_mask_to_edit(tmp_path, versions):
    photo(tmp_path / "p" / "i.jpg")
    for number in (0, 1):
        mask_file(tmp_path / "p" / f"i_mask_{number}.png")
    (sample,) = loaded(tmp_path / "p").samples
    with pytest.raises(DataError, match=r"several numbered masks.*i_mask_0\.png, i_mask_1\.png"):
        mask_target(sample, allowed=anywhere)
