"""First frames in the cache: what is kept of them, for which models, by which keys; backgrounds that stand still."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from harness.caching import ClipPooling, Letters
from harness.clips import write_clip
from harness.models import small_model
from masklora.cache.cache import build_cache
from masklora.cache.facts import facts_of
from masklora.cache.fill import apply_fill, fill_clip
from masklora.cache.infill import Infill, apply_infill, infill_clip
from masklora.cache.keys import Memo, latent_key
from masklora.dataset.loading import from_images, load_dataset
from masklora.dataset.sample import LoadedSample
from masklora.errors import MaskError
from masklora.host.model.fitting import wants_starts
from masklora.settings import CacheSettings, DatasetSettings

SIDE = 64
SETTINGS = CacheSettings(
    resolution=SIDE, bucket_step=16, infill_variants=3, clip_frames=9, storage="memory", upscale=True
)


def walk(count=9, side=SIDE, step=3):
    """uint8 (N, S, S, 3) of a subject of its own colours before a still background, and its masks float32."""
    background = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    background = cv2.GaussianBlur(background, (0, 0), 2)
    subject = np.random.default_rng(2).integers(0, 256, (count, 20, 20, 3), dtype=np.uint8)
    frames, masks = np.repeat(background[None], count, axis=0), np.zeros((count, side, side), np.float32)
    for i in range(count):
        left = 4 + step * i
        frames[i, 20:40, left : left + 20] = subject[i]
        masks[i, 20:40, left : left + 20] = 1
    return frames, masks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("walk")
    frames, masks = walk()
    write_clip(made / "walk.mkv", frames, rate=8)
    write_clip(made / "masks" / "walk.mkv", np.repeat((masks * 255).astype(np.uint8)[..., None], 3, axis=-1), rate=8)
    return made


def pooling(starts):
    encoder = ClipPooling()
    encoder.rule = dataclasses.replace(encoder.rule, starts=starts)
    return encoder


def build(folder, *, starts=False, settings=SETTINGS, **options):
    dataset = load_dataset(DatasetSettings(folder=str(folder), **options), allowed=lambda path: path)
    return build_cache(dataset, settings, encoder=pooling(starts), text=Letters())


def test_first_frames_are_kept_before_grey_for_each_background_and_change_no_other_key(folder):
    plain, kept = build(folder), build(folder, starts=True)
    (before,), (entry,) = plain.entries, kept.entries
    bare = dataclasses.replace(entry.variants[0], start="", infill_starts=())
    assert before == dataclasses.replace(entry, variants=(bare,))
    assert plain.fingerprint != kept.fingerprint
    assert len(entry.infills) == len(entry.variants[0].infill_starts) == 3
    for infill in (-1, 0, 1, 2):
        start, clip = kept.start(entry, 0, infill), kept.latent(entry, 0, infill)
        assert start.shape == clip.shape == (3, 3, 8, 8)
        assert torch.equal(start[:, 0], clip[:, 0])
        # ComfyUI's nodes have half of the range, between two values of a byte.
        assert torch.equal(start[:, 1:], torch.full_like(start[:, 1:], 0.5))
    with pytest.raises(KeyError):
        plain.start(before)


def test_what_is_there_of_a_cache_is_not_made_again_and_what_is_lost_is(folder, tmp_path):
    dataset = load_dataset(DatasetSettings(folder=str(folder)), allowed=lambda path: path)
    settings, encoder = dataclasses.replace(SETTINGS, storage="disk", infill_variants=0), ClipPooling()
    build_cache(dataset, settings, encoder=encoder, folder=tmp_path)
    assert len(encoder.shapes) == 1
    encoder = pooling(True)
    kept = build_cache(dataset, settings, encoder=encoder, folder=tmp_path)
    assert len(encoder.shapes) == 1 and kept.built["latent"] == 1
    (entry,) = kept.entries
    want = kept.start(entry)
    (path,) = [path for path in tmp_path.rglob("*") if entry.variants[0].start in path.name]
    path.unlink()
    kept.ensure()
    assert "made anew: 1 latent" in kept.mended[0]
    assert torch.equal(kept.start(entry), want) and len(kept.mended) == 1


def test_pictures_have_no_first_frame():
    pictures = from_images([np.zeros((SIDE, SIDE, 3), np.float32)], [np.ones((SIDE, SIDE), np.float32)], ["a"])
    made = [build_cache(pictures, SETTINGS, encoder=pooling(starts)) for starts in (False, True)]
    assert made[0].entries == made[1].entries and made[0].fingerprint == made[1].fingerprint


@pytest.mark.parametrize(
    ("name", "auto", "always"),
    [("wan21_i2v", True, True), ("wan22_i2v", True, True), ("wan", False, False), ("wan22_5b", False, False)],
)
def test_they_are_kept_for_models_that_are_given_them_so(name, auto, always):
    wanted = [wants_starts(small_model(name), first_frame=one, clips=True) for one in ("auto", "always", "never")]
    assert wanted == [auto, always, False]


def test_without_a_model_they_are_kept_where_that_is_asked_for():
    assert [wants_starts(None, first_frame=f, clips=True) for f in ("auto", "always", "never")] == [False, True, False]
    assert not wants_starts(None, first_frame="always", clips=False)


def outside(clip, masks):
    """What lies outside of the subject in every frame, (F, n, 3)."""
    wide = cv2.dilate((masks.max(axis=0) > 0).astype(np.uint8), np.ones((17, 17), np.uint8)) > 0
    return clip[:, ~wide]


@pytest.mark.parametrize("kind", ["mean colour", "inpaint", "noise", "grey"])
def test_a_fill_stands_still_behind_a_subject_that_moves(kind):
    frames, masks = walk()
    out = fill_clip(frames, masks, kind, seed=3)
    assert out.shape == frames.shape and out.dtype == np.uint8
    np.testing.assert_array_equal(out[masks == 1], frames[masks == 1])
    for k in range(1, len(out)):
        free = (masks[0] == 0) & (masks[k] == 0)
        np.testing.assert_array_equal(out[0][free], out[k][free])
    if kind in ("mean colour", "inpaint"):
        # Made for each frame alone it flickers.
        alone = [apply_fill(frame, mask, kind, seed=3) for frame, mask in zip(frames, masks, strict=True)]
        assert np.abs(outside(np.stack(alone), masks).astype(int) - alone[0].astype(int)[0, 0]).max() > 0
        assert any((one[0, 0] != alone[0][0, 0]).any() for one in alone)


def test_a_blur_moves_with_what_it_is_made_of_only():
    frames, masks = walk()
    out = fill_clip(frames, masks, "blur")
    far = outside(out, masks)
    assert (far == far[:1]).all()


@pytest.mark.parametrize(
    "infill", [Infill("flat colour", 7), Infill("blur"), Infill("inpaint"), Infill("other picture", donor=0)]
)
def test_a_replaced_background_belongs_to_the_clip(infill):
    frames, masks = walk()
    donor = np.random.default_rng(8).integers(0, 256, (80, 70, 3), dtype=np.uint8)
    lender = LoadedSample(donor, np.ones((80, 70), np.float32), False, np.ones((80, 70), np.float32))
    out = infill_clip(frames, masks, infill, donor=lender)
    np.testing.assert_array_equal(out[masks == 1], frames[masks == 1])
    far = outside(out, masks)
    assert (far == far[:1]).all()
    # Nor is the subject of another frame in it: where it has been and is no more, the background is as smooth.
    if infill.kind in ("blur", "inpaint"):
        left = out[-1][22:38, 6:22].astype(int)
        assert (
            np.abs(np.diff(left, axis=1)).max() < 24 < np.abs(np.diff(frames[0][22:38, 6:22].astype(int), axis=1)).max()
        )


def test_a_clip_of_one_still_frame_is_filled_as_that_frame_is():
    frames, masks = walk(step=0)
    frames = np.repeat(frames[:1], 9, axis=0)
    for kind in ("mean colour", "inpaint"):
        np.testing.assert_array_equal(fill_clip(frames, masks, kind)[4], apply_fill(frames[0], masks[0], kind))
    for infill in (Infill("inpaint"), Infill("blur"), Infill("flat colour", 3)):
        made = infill_clip(frames, masks, infill)[4].astype(int)
        assert np.abs(made - apply_infill(frames[0], masks[0], infill)).max() <= 1


@pytest.mark.parametrize("kind", ["mean colour", "inpaint"])
def test_a_clip_whose_masks_are_black_or_white_is_filled_with_grey_or_not_at_all(kind):
    frames, masks = walk()
    assert (fill_clip(frames, np.zeros_like(masks), kind) == 128).all()
    np.testing.assert_array_equal(fill_clip(frames, np.ones_like(masks), kind), frames)
    masks[3] = 1
    np.testing.assert_array_equal(fill_clip(frames, masks, kind)[3], frames[3])


def test_masks_of_another_size_are_an_error():
    frames, masks = walk()
    with pytest.raises(MaskError, match="fill: the mask is 32×64"):
        fill_clip(frames, masks[:, :, :32], "inpaint")
    with pytest.raises(MaskError, match="infill: expected a mask"):
        infill_clip(frames, masks[:, :, :32], Infill("blur"))


@pytest.mark.parametrize(("fill", "changed"), [("keep", False), ("grey", False), ("mean colour", True)])
def test_the_cache_holds_what_stands_still_by_keys_of_its_own(folder, fill, changed):
    cache = build(folder, settings=dataclasses.replace(SETTINGS, infill_variants=0), fill=fill)
    (entry,) = cache.entries
    frames, masks = walk()
    shown = fill_clip(frames, masks, fill) if fill != "keep" else frames
    want = ClipPooling().encode_clip(torch.from_numpy(shown).float() / 255)
    assert torch.allclose(cache.latent(entry), want, atol=1e-6)
    facts = facts_of(cache.samples[entry.index], entry.frames, memo=Memo(), boxed=False)
    told = {"resize": "lanczos", "fill": fill, "fill_mask": facts.identity, "encoder": "pooling"}
    before = latent_key(facts.image, entry.geometry, **told)
    assert (entry.variants[0].latent != before) is changed
