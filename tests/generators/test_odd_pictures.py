"""Files of every odd kind through every generator, the cache and back from disk: it works, or the error tells."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from harness.caching import Letters, Pooling
from harness.damage import many
from harness.folders import anywhere, folder_settings, grey
from harness.grounding_models import boxed, write_florence2, write_sam2
from harness.odd_pictures import (
    DAMAGED,
    scene,
    tells_what_to_do,
    write_damaged_pictures,
    write_sound_pictures,
)
from harness.segmentation_models import core_node, load_birefnet, load_sam3, write_birefnet, write_sam3
from masklora.cache.cache import build_cache
from masklora.dataset.loading import load_dataset
from masklora.dataset.sample import Dataset, fit_mask, load_mask, load_sample
from masklora.errors import DataError, MaskError, MaskLoraError
from masklora.generators.apply import GenerateSettings, generate
from masklora.generators.blobs import BlobSettings, blob_maker
from masklora.generators.colour import ColourSettings, colour_maker
from masklora.generators.finding import COMBINES
from masklora.generators.florence2_sam2 import Florence2Sam2Settings, florence2_sam2_maker
from masklora.generators.grabcut import ROUGH_MASK, GrabCutSettings, grabcut_maker
from masklora.generators.shapes import SHAPES, ShapeSettings, shape_maker
from masklora.host.finders.sam3 import TextMasks, TextSettings
from masklora.host.finders.subject import SubjectMasks, SubjectSettings
from masklora.saving.saving import save_masks
from masklora.saving.targets import LAYOUTS, SaveSettings
from masklora.settings import INFILLS, CacheSettings

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

BOX = "0.2, 0.2, 0.5, 0.5"
PLAIN = {
    "blobs": lambda: blob_maker(BlobSettings()),
    "five blobs": lambda: blob_maker(BlobSettings(count=5)),
    "a blob over everything": lambda: blob_maker(BlobSettings(coverage_min=1, coverage_max=1)),
    **{shape: lambda shape=shape: shape_maker(ShapeSettings(shape, without_mask="whole picture")) for shape in SHAPES},
    **{
        f"{shape} in a box": lambda shape=shape: shape_maker(
            ShapeSettings(shape, without_mask="whole picture", box=BOX, angle_jitter=180, feather=3)
        )
        for shape in SHAPES
    },
    "colours": lambda: colour_maker(ColourSettings("#e62828, #fff", softness=10)),
    "not a colour": lambda: colour_maker(ColourSettings("#e62828", invert=True)),
    "lightness": lambda: colour_maker(ColourSettings("", luminance_min=30)),
    "colour at a point": lambda: colour_maker(ColourSettings(point="0.5, 0.5", colour_from_point=True)),
    "margin": lambda: grabcut_maker(GrabCutSettings()),
    "no margin": lambda: grabcut_maker(GrabCutSettings(margin=0)),
    "widest margin": lambda: grabcut_maker(GrabCutSettings(margin=0.45)),
    "box": lambda: grabcut_maker(GrabCutSettings("box", box=BOX)),
    "rough mask": lambda: grabcut_maker(GrabCutSettings(ROUGH_MASK)),
    "rough mask, widest band": lambda: grabcut_maker(GrabCutSettings(ROUGH_MASK, rough_band=1)),
}
GROWN = {"dilation": 6, "feather": 2, "fill_holes": True}
WITH_MODELS = {
    "SAM 3 by rule": lambda m: TextMasks(*m.ruled_sam3, TextSettings(phrases="red", exclude="green")),
    "SAM 3": lambda m: TextMasks(*m.sam3, TextSettings(phrases="cat", threshold=0.1, instances=1, refine=0)),
    "subject by rule": lambda m: SubjectMasks(m.ruled_birefnet, SubjectSettings(threshold=0.5, largest_only=True)),
    "subject": lambda m: SubjectMasks(m.birefnet, SubjectSettings()),
    "phrases": lambda m: m.florence2_sam2(phrases="cat"),
    "phrases, grown": lambda m: m.florence2_sam2(phrases="cat", **GROWN),
    "phrases, shrunk": lambda m: m.florence2_sam2(phrases="cat", dilation=-5, invert=True),
}
# Where a disc in the picture's middle fills what is looked at, or little is left of what was found.
MADE_AT_LEAST = {"widest margin": 1, "box": 1, "phrases, shrunk": 1}


class Models:
    """Small models of every kind; those by rule find red things or what differs from the picture's rim."""

    def __init__(self, folder):
        core_node("SAM3_Detect", "nodes_sam3.py")
        self.sam3 = load_sam3(write_sam3(folder / "sam3.safetensors"))
        self.ruled_sam3 = load_sam3(write_sam3(folder / "ruled sam3.safetensors", ruled=True))
        self.birefnet = load_birefnet(write_birefnet(folder / "birefnet.safetensors"))
        self.ruled_birefnet = load_birefnet(write_birefnet(folder / "ruled birefnet.safetensors", ruled=True))
        self._folders = {
            "florence2": write_florence2(folder / "florence2", answer="cat" + boxed(100, 200, 500, 600)),
            "sam2": write_sam2(folder / "sam2"),
        }

    def florence2_sam2(self, **settings):
        return florence2_sam2_maker(Florence2Sam2Settings(**settings), **self._folders)


@pytest.fixture(scope="module")
def models(comfy_host, tmp_path_factory):
    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The data set of all sound files and their sizes by name."""
    folder = tmp_path_factory.mktemp("odd") / "Bilder mit  Ümlaut 🐈"
    sizes = write_sound_pictures(folder)
    return load_dataset(folder_settings(folder), allowed=anywhere), sizes


@pytest.fixture(scope="module")
def masked(sound):
    """The same pictures, each with an ellipse for its mask."""
    return generate(sound[0], shape_maker(ShapeSettings()), GenerateSettings("replace"), label="Ellipses")[0]


@pytest.fixture
def damaged(tmp_path):
    """A function that gives the data set of one damaged file beside a sound one, masks drawn."""

    def load(name, **settings):
        write_damaged_pictures(tmp_path)
        for other in DAMAGED:
            if other != name:
                (tmp_path / other).unlink()
        Image.fromarray(scene()).save(tmp_path / "sound.png")
        return load_dataset(folder_settings(tmp_path, **settings), allowed=anywhere)

    return load


def checked(sample, *, size):
    mask = fit_mask(load_mask(sample), sample.size)
    assert mask.shape == size[::-1]
    assert mask.dtype == np.float32
    assert np.isfinite(mask).all()
    assert 0 <= mask.min() <= mask.max() <= 1
    return mask


def outcomes(dataset, make, settings, sizes):
    """How many pictures got a mask when each is a set of its own; every error names its picture and a remedy."""
    made = 0
    for sample in dataset.samples:
        try:
            given, lines = generate(Dataset((sample,)), make, settings, label="Masks")
        except MaskLoraError as error:
            assert sample.name in str(error)
            assert tells_what_to_do(str(error))
        else:
            assert checked(given.samples[0], size=sizes[sample.name]).any()
            assert lines[0].text.startswith(f"{sample.name}: ")
            made += 1
    return made


def test_every_kind_of_file_is_listed_and_decoded_as_it_is_seen(sound):
    dataset, sizes = sound
    assert {sample.name: sample.size for sample in dataset.samples} == sizes
    for sample in dataset.samples:
        loaded = load_sample(sample)
        assert loaded.rgb.dtype == np.uint8
        assert loaded.rgb.shape == (sample.size[1], sample.size[0], 3)
    with_alpha = {sample.name for sample in dataset.samples if load_sample(sample).has_mask}
    assert with_alpha == {
        "grey glass.png",
        "invisible.png",
        "one pixel of glass.png",
        "palette.png",
        "palette gif.gif",
        "sixteen bit alpha.png",
    }


@pytest.mark.parametrize("name", PLAIN)
def test_a_generator_masks_every_odd_picture_or_says_why_not(sound, masked, name):
    settings = GenerateSettings("replace")
    assert outcomes(masked, PLAIN[name](), settings, sound[1]) >= MADE_AT_LEAST.get(name, 15)


# The others are these with other settings.
@pytest.mark.parametrize("name", many(["SAM 3 by rule", "subject by rule", "phrases"], list(WITH_MODELS)))
def test_a_model_masks_every_odd_picture_or_says_why_not(sound, models, name):
    make = WITH_MODELS[name](models)
    assert outcomes(sound[0], make, GenerateSettings("replace"), sound[1]) >= MADE_AT_LEAST.get(name, 15)


@pytest.mark.parametrize("how", COMBINES)
@pytest.mark.parametrize("nothing", ["white", "black", "skip"])
def test_odd_pictures_go_through_together_in_every_way_of_combining(sound, how, nothing):
    dataset, sizes = sound
    made, lines = generate(dataset, PLAIN["margin"](), GenerateSettings(how, nothing), label="Cut")
    assert len(lines) == len(dataset)
    assert len(made) == len(dataset) if nothing != "skip" else 10 < len(made) < len(dataset)
    for sample in made.samples:
        checked(sample, size=sizes[sample.name])


@pytest.mark.parametrize("name", ["rough mask", "circular shrink"])
def test_a_generator_that_needs_a_mask_names_the_picture_without_one(sound, name):
    bare = Dataset(tuple(replace(sample, alpha=False) for sample in sound[0].samples))
    settings = {"circular shrink": ShapeSettings("circular shrink")}
    make = shape_maker(settings[name]) if name in settings else PLAIN[name]()
    assert outcomes(bare, make, GenerateSettings("replace"), sound[1]) == 0


# The cache.


def cached(dataset, folder, **settings):
    """Everything in a cache, checked; gives its entries by name."""
    settings = {"resolution": 64, "bucket_step": 16, "upscale": True, "infill_variants": 4, **settings}
    cache = build_cache(dataset, CacheSettings(**settings), encoder=Pooling(), text=Letters(), folder=folder)
    for entry in cache.entries:
        for variant in range(len(entry.variants)):
            mask = cache.mask(entry, variant)[0].numpy()
            assert mask.shape == entry.bucket[::-1]
            assert 0 <= mask.min() <= mask.max() <= 1
            for infill in (-1, *range(len(entry.infills))):
                latent = cache.latent(entry, variant) if infill < 0 else cache.latent(entry, variant, infill)
                assert bool(((latent >= 0) & (latent <= 1)).all())
    return {entry.name: entry for entry in cache.entries}


@pytest.mark.parametrize("kind", INFILLS)
def test_backgrounds_of_odd_pictures_are_replaced(masked, tmp_path, kind):
    entries = cached(masked, tmp_path, infill=kind)
    numbers = {"mixed": 4, "flat colour": 4, "blur": 1, "inpaint": 1}
    for name, entry in entries.items():
        if kind == "other picture":
            assert 2 <= len(entry.infills) <= 4, name
        else:
            assert len(entry.infills) == numbers[kind], name


@pytest.mark.parametrize(
    "settings",
    [
        {"rotate": 45.0, "variants": 3},
        {"crop": "around mask", "crop_margin_max": 0.5, "rotate": 180.0, "variants": 2},
        {"crop": "masked crop", "rotate": 180.0, "variants": 2},
        {"crop": "mask-centred", "bucketing": False},
        {"crop": "random", "flip": True, "variants": 2, "infill_variants": 1},
        {"mask_shrink": 0.01, "variants": 3},
    ],
    ids=lambda settings: "_".join(settings),
)
@pytest.mark.parametrize("own_masks", [True, False], ids=["drawn masks", "masks of the files"])
def test_odd_pictures_are_turned_zoomed_and_their_masks_shrunk(sound, masked, tmp_path, settings, own_masks):
    dataset = masked if own_masks else sound[0]
    entries = cached(dataset, tmp_path, **settings)
    assert set(entries) == set(sound[1])
    counts = {len(entry.variants) for entry in entries.values() if entry.has_mask}
    assert max(counts) >= settings.get("variants", 1)


def test_odd_pictures_too_small_for_the_cache_are_named(sound, tmp_path):
    with pytest.raises(DataError, match=r"one pixel\.png \(1×1\)") as caught:
        cached(sound[0], tmp_path, upscale=False)
    assert tells_what_to_do(str(caught.value))


# Saved and loaded back.


@pytest.mark.parametrize("layout", LAYOUTS)
def test_masks_of_odd_pictures_load_back_bit_for_bit(masked, tmp_path, layout):
    folder = tmp_path / "pictures"
    source = masked.samples[0].image_path.parent
    shutil.copytree(source, folder)
    moved = Dataset(tuple(replace(one, image_path=folder / one.image_path.name) for one in masked.samples))
    beside = layout not in LAYOUTS[:2]
    target = None if beside else tmp_path / "masks"
    save_masks(moved, SaveSettings(layout), destination=target, allowed=anywhere)
    again = {
        "mask folder": folder_settings(folder, mask_source="folder", mask_folder=str(target)),
        "alpha png": folder_settings(target, mask_source="alpha"),
    }.get(layout) or folder_settings(folder, mask_source="sidecar")
    loaded = load_dataset(again, allowed=anywhere)
    assert len(loaded) == len(masked)
    # The alpha layout makes a PNG of every picture; names keep their order.
    pairs = {stem(sample): sample for sample in loaded.samples}
    for before in masked.samples:
        after = pairs[stem(before)]
        mask, weights = checked(before, size=before.size), load_mask(after)
        # An opaque alpha is no mask, which means weights of one as before.
        np.testing.assert_array_equal(np.ones_like(mask) if weights is None else weights, mask)
        np.testing.assert_array_equal(load_sample(after).rgb, load_sample(before).rgb)


def stem(sample):
    return sample.name.rpartition(".")[0]


# 48 Mpx.


@pytest.fixture(scope="module")
def huge(tmp_path_factory):
    """A picture of 8000×6000 without a mask."""
    folder = tmp_path_factory.mktemp("huge")
    Image.fromarray(scene(600, 800)).resize((8000, 6000), Image.Resampling.NEAREST).save(folder / "huge.jpg")
    return load_dataset(folder_settings(folder), allowed=anywhere)


def truth(height, width):
    rows, columns = np.mgrid[:height, :width]
    return np.hypot(rows - height / 2, columns - width / 2) < min(height, width) / 3


@pytest.mark.parametrize("name", ["colours", "margin", "SAM 3 by rule"])
def test_a_picture_of_48_megapixels_gets_a_mask(huge, models, name):
    make = PLAIN[name]() if name in PLAIN else WITH_MODELS[name](models)
    made, lines = generate(huge, make, GenerateSettings(), label="Masks")
    mask = checked(made.samples[0], size=(8000, 6000))
    assert "covers" in lines[0].text
    found, disc = mask[5::10, 5::10] > 0.5, truth(600, 800)
    assert (found & disc).sum() / (found | disc).sum() > 0.95


def test_a_picture_of_48_megapixels_goes_into_the_cache_with_replaced_backgrounds(huge, tmp_path):
    masked, _ = generate(huge, PLAIN["ellipse"](), GenerateSettings(), label="Masks")
    entry = cached(masked, tmp_path, crop="around mask", rotate=10.0, variants=1)["huge.jpg"]
    assert len(entry.infills) == 4


# Damaged files.


@pytest.mark.parametrize("name", ["empty.png", "text.png"])
def test_a_file_that_is_no_picture_is_named_when_the_folder_is_listed(damaged, name):
    with pytest.raises(DataError) as caught:
        damaged(name)
    assert str(caught.value).startswith(f"{name}: ")
    assert tells_what_to_do(str(caught.value))


@pytest.mark.parametrize("nothing", ["error", "white", "black", "skip"])
@pytest.mark.parametrize("name", ["truncated png.png", "truncated jpeg.jpg"])
def test_a_truncated_picture_is_named_whatever_is_done_where_nothing_is_found(damaged, name, nothing):
    asked = []

    def make(picture):
        asked.append(picture.name)
        return PLAIN["ellipse"]()(picture)

    with pytest.raises(DataError) as caught:
        generate(damaged(name), make, GenerateSettings(nothing_found=nothing), label="Masks")
    assert str(caught.value).startswith(f"{name}: expected a complete picture, but it is truncated")
    assert tells_what_to_do(str(caught.value))
    assert name not in asked


@pytest.mark.parametrize("name", ["truncated png.png", "truncated jpeg.jpg"])
def test_a_truncated_picture_is_named_by_the_cache_and_when_it_is_copied(damaged, tmp_path_factory, name):
    dataset, elsewhere = damaged(name), tmp_path_factory.mktemp("elsewhere")
    with pytest.raises(DataError) as caught:
        cached(dataset, elsewhere / "cache")
    assert str(caught.value).startswith(f"{name}: ")
    drawn = Dataset(tuple(replace(one, mask=np.eye(*one.size[::-1], dtype=np.float32)) for one in dataset.samples))
    with pytest.raises(DataError) as caught:
        save_masks(drawn, SaveSettings("alpha png"), destination=elsewhere / "copies", allowed=anywhere)
    assert str(caught.value).startswith(f"{name}: ")
    assert tells_what_to_do(str(caught.value))


@pytest.mark.parametrize("content", ["truncated", "empty", "text", "another aspect"])
def test_a_mask_file_that_cannot_be_used_is_named_with_its_picture(tmp_path, content):
    Image.fromarray(scene()).save(tmp_path / "a cat.png")
    path = grey(tmp_path / "a cat_mask.png", np.random.default_rng(0).random((40, 48)))
    whole = path.read_bytes()
    if content == "another aspect":
        grey(path, np.eye(40))
    else:
        path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"no mask"}[content])
    with pytest.raises(MaskError) as caught:
        generate(
            load_dataset(folder_settings(tmp_path), allowed=anywhere),
            PLAIN["ellipse"](),
            GenerateSettings("union"),
            label="Masks",
        )
    assert str(caught.value).startswith("a cat.png (mask file a cat_mask.png): ")
    assert tells_what_to_do(str(caught.value))
