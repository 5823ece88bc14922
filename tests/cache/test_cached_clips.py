"""Clips in the cache: parts, frames and masks by number, one geometry, keys; beside pictures."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from harness.caching import ClipPooling, Letters
from harness.clip_files import animation, sequence
from harness.clips import write_clip
from masked_lora_pack.nodes.cache import too_few
from masklora.cache.builder import encode_mask
from masklora.cache.cache import build_cache
from masklora.cache.shots import ClipRule
from masklora.dataset.loading import load_dataset
from masklora.errors import ConfigError, DataError, MaskError
from masklora.settings import CacheSettings, DatasetSettings, MaskTransform

SIDE = 64
SETTINGS = CacheSettings(
    resolution=SIDE, bucket_step=16, infill_variants=0, clip_frames=9, storage="memory", upscale=True
)


def numbered(count, size=(SIDE, SIDE)):
    """uint8 (N, H, W, 3): every pixel of frame i is i·3."""
    out = np.zeros((count, size[1], size[0], 3), np.uint8)
    out[:] = (3 * np.arange(count, dtype=np.uint8))[:, None, None, None]
    return out


def moving_masks(count, size=(SIDE, SIDE)):
    """uint8 (N, H, W, 3): a white square that moves to the right, a step of 2 px a frame, under numbered grey."""
    out = np.zeros((count, size[1], size[0], 3), np.uint8)
    for i in range(count):
        out[i, 16:40, 2 * i : 2 * i + 24] = 255
    return out


def lossless(path, frames):
    return write_clip(path, frames, rate=8)


def load(folder, **options):
    return load_dataset(DatasetSettings(folder=str(folder), **options), allowed=lambda path: path)


def build(folder, settings=SETTINGS, *, dataset=None, **options):
    encoder = ClipPooling()
    dataset = load(folder, **options) if dataset is None else dataset
    return build_cache(dataset, settings, encoder=encoder, text=Letters()), encoder


def shown_frames(cache, entry):
    """The frames' numbers that a latent of `numbered` tells, by the mean of each group."""
    latent = cache.latent(entry)
    return (latent.mean(dim=(0, 2, 3)) * 255 / 3).tolist()


@pytest.fixture
def folder(tmp_path):
    lossless(tmp_path / "walk.mkv", numbered(21))
    lossless(tmp_path / "masks" / "walk.mkv", moving_masks(21))
    (tmp_path / "walk.txt").write_text("a walk", encoding="utf-8")
    return tmp_path


def test_a_clip_and_its_mask_come_frame_by_frame(folder):
    cache, encoder = build(folder)
    (entry,) = cache.entries
    assert entry.name == "walk.mkv"
    assert entry.frames == tuple(range(9))
    assert (entry.bucket, entry.latent_frames, entry.moving, entry.has_mask) == ((SIDE, SIDE), 3, True, True)
    assert encoder.shapes == [(9, SIDE, SIDE, 3)]
    assert cache.latent(entry).shape == (3, 3, 8, 8)
    assert shown_frames(cache, entry) == pytest.approx([0, 2.5, 6.5], abs=0.02)
    masks = cache.mask(entry)
    assert masks.shape == (1, 9, SIDE, SIDE)
    assert torch.equal(masks[0], torch.from_numpy(moving_masks(21)[:9, ..., 0] / 255).float())
    assert "64×64 × 9 frames: 1" in cache.summary()
    assert cache.entries[0].captions[0].text == "a walk"


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"clip_chunking": "head"}, [range(9)]),
        ({"clip_chunking": "slide"}, [range(9), range(9, 18)]),
        ({"clip_chunking": "uniform", "clip_chunks": 3}, [range(9), range(6, 15), range(12, 21)]),
        ({"clip_chunking": "whole"}, [range(21)]),
        ({"clip_rate": 4.0}, [range(0, 18, 2)]),
        ({"clip_start": 1.0}, [range(8, 17)]),
        ({"clip_start": 0.5, "clip_end": 1.5}, [range(4, 9)]),
        ({"clip_frames": 6}, [range(5)]),
        ({"clip_frames": 1}, [range(1)]),
    ],
)
def test_masks_follow_their_frames_at_any_rate_trim_and_chunk(folder, changes, wanted):
    cache, _ = build(folder, dataclasses.replace(SETTINGS, **changes))
    assert [entry.frames for entry in cache.entries] == [tuple(one) for one in wanted]
    for entry, numbers in zip(cache.entries, wanted, strict=True):
        masks = cache.mask(entry)[0]
        masks = masks if masks.ndim == 3 else masks[None]
        starts = [int(mask[20].nonzero()[0]) // 2 for mask in masks]
        assert starts == list(numbers)
        assert cache.latent(entry).ndim == (4 if len(numbers) > 1 else 3)
    names = [entry.name for entry in cache.entries]
    assert len(set(names)) == len(names)


def test_a_still_mask_of_a_clip_is_stored_once(folder):
    (folder / "masks" / "walk.mkv").unlink()
    Image.fromarray(moving_masks(1)[0]).save(folder / "masks" / "walk.png")
    cache, _ = build(folder)
    (entry,) = cache.entries
    assert not entry.moving
    assert entry.has_mask
    assert cache.mask(entry).shape == (1, SIDE, SIDE)


def test_parts_of_a_clip_are_held_out_together_and_share_the_crop(folder):
    settings = dataclasses.replace(SETTINGS, clip_chunking="slide", crop="random", resolution=48, variants=3)
    cache, _ = build(folder, settings)
    first, second = cache.entries
    assert first.picture == second.picture
    assert [v.geometry for v in first.variants] == [v.geometry for v in second.variants]
    assert first.variants[0].latent != second.variants[0].latent


def test_clips_and_pictures_stand_side_by_side(folder):
    Image.fromarray(numbered(1)[0]).save(folder / "still.png")
    Image.fromarray(moving_masks(1)[0]).save(folder / "masks" / "still.png")
    cache, encoder = build(folder)
    assert {entry.name: entry.latent_frames for entry in cache.entries} == {"still.png": 0, "walk.mkv": 3}
    assert sorted(encoder.shapes) == [(1, SIDE, SIDE, 3), (9, SIDE, SIDE, 3)]


def test_every_edit_of_a_clip_or_its_mask_makes_the_right_entries_anew(folder, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")

    def made(settings=SETTINGS, transform=None, **options):
        data = load(folder, **options)
        data = data if transform is None else data.with_transform(transform)
        settings = dataclasses.replace(settings, storage="disk")
        cache = build_cache(data, settings, encoder=ClipPooling(), text=Letters(), folder=store)
        return cache.built["latent"], cache.built["mask"]

    assert made() == (1, 1)
    assert made() == (0, 0)
    assert made(transform=MaskTransform(invert=True)) == (0, 1)
    assert made(dataclasses.replace(SETTINGS, clip_start=0.5)) == (1, 1)
    assert made(fill="grey") == (1, 0)
    lossless(folder / "masks" / "walk.mkv", moving_masks(21)[::-1].copy())
    assert made() == (0, 1)
    lossless(folder / "walk.mkv", numbered(21)[::-1].copy())
    assert made() == (1, 0)
    sequence(folder / "walk_mask.frames", frames=moving_masks(21))
    (folder / "masks" / "walk.mkv").unlink()
    assert made(mask_source="sidecar") == (0, 1)
    Image.fromarray(moving_masks(1)[0]).save(folder / "walk_mask.frames" / "0003.png")
    assert made(mask_source="sidecar") == (0, 1)


def test_the_crop_around_a_moving_mask_holds_all_its_frames(folder):
    settings = dataclasses.replace(SETTINGS, resolution=48, crop="around mask", crop_margin=0.0, clip_chunking="whole")
    cache, _ = build(folder, settings)
    (entry,) = cache.entries
    before, after = moving_masks(21)[..., 0] / 255, cache.mask(entry)[0]
    scale = entry.geometry.resized[0] / SIDE
    assert after.flatten(1).sum(dim=1).tolist() == pytest.approx(
        (before.sum(axis=(1, 2)) * scale**2).tolist(), rel=0.05
    )


@pytest.mark.parametrize("kind", ["flat colour", "blur", "inpaint", "other picture"])
def test_replaced_backgrounds_stand_still_behind_what_moves(folder, kind):
    Image.fromarray(np.full((SIDE, SIDE, 3), 200, np.uint8)).save(folder / "other.png")
    settings = dataclasses.replace(SETTINGS, infill=kind, infill_variants=1)
    cache, _ = build(folder, settings)
    entry = next(one for one in cache.entries if one.frames)
    assert len(entry.variants[0].infills) == 1
    own, replaced = cache.latent(entry), cache.latent(entry, 0, 0)
    assert replaced.shape == own.shape
    # The middle of the square is kept in the first frame; a corner is not.
    assert torch.allclose(own[:, 0, 3, 1], replaced[:, 0, 3, 1], atol=0.02)
    if kind in ("flat colour", "other picture"):
        corner = replaced[:, :, 7, 7]
        assert not torch.allclose(corner[:, 0], own[:, 0, 7, 7], atol=0.02)
        assert torch.allclose(corner, corner[:, :1].expand_as(corner), atol=0.01)


def test_a_fill_hides_the_outside_of_every_frame(folder):
    cache, _ = build(folder, fill="grey")
    (entry,) = cache.entries
    latent = cache.latent(entry)
    assert torch.allclose(latent[:, :, 7, 7], torch.full((3, 3), 0.5), atol=0.01)
    assert torch.allclose(latent[:, 0, 3, 1], torch.zeros(3), atol=0.01)


def test_a_mask_of_another_number_of_frames_is_an_error_that_names_both(folder):
    lossless(folder / "masks" / "walk.mkv", moving_masks(20))
    with pytest.raises(MaskError, match=r"walk\.mkv.*20.*21|walk\.mkv.*21.*20"):
        build(folder)


def test_a_mask_that_lost_frames_since_the_folder_was_read_is_an_error_too(folder):
    data = load(folder)
    lossless(folder / "masks" / "walk.mkv", moving_masks(20))
    with pytest.raises(
        MaskError, match=r"walk\.mkv \(mask file walk\.mkv\): the mask has 20 frames but the clip has 21"
    ):
        build(folder, dataset=data)


def test_a_clip_for_a_vae_of_pictures_is_an_error_unless_its_first_frame_is_wanted(folder):
    encoder = ClipPooling()
    encoder.rule = ClipRule()
    with pytest.raises(ConfigError, match=r"clip_frames: walk\.mkv is a clip"):
        build_cache(load(folder), SETTINGS, encoder=encoder, text=Letters())
    cache = build_cache(load(folder), dataclasses.replace(SETTINGS, clip_frames=1), encoder=encoder, text=Letters())
    assert cache.latent(cache.entries[0]).shape == (3, 8, 8)


def test_a_trim_that_leaves_nothing_names_the_clip_and_the_widget(folder):
    with pytest.raises((ConfigError, DataError), match=r"walk\.mkv: .*clip_start"):
        build(folder, dataclasses.replace(SETTINGS, clip_start=60.0))


def test_masks_of_a_clip_are_exact_in_the_store(folder):
    masks = moving_masks(5)[..., 0] / np.float32(255)
    data, values = encode_mask(masks)
    assert values["shape"] == [5, SIDE, SIDE]
    assert values["bits"] == 8
    assert data.numel() < masks.nbytes / 50


def test_transforms_over_time_look_at_the_clips_own_frames(folder):
    """Whatever rate is learned: the square of each frame is joined with those of the frames around it."""
    data = load(folder).with_transform(MaskTransform(frame_union=2))
    cache, _ = build(folder, dataclasses.replace(SETTINGS, clip_rate=4.0), dataset=data)
    (entry,) = cache.entries
    widths = [int((mask[20] > 0).sum()) for mask in cache.mask(entry)[0]]
    # 24 px wide, a step of 2 px a frame; the first frame has none before it.
    assert widths == [28] + [32] * (len(entry.frames) - 1)


def test_masks_are_known_as_before_without_transforms_over_time():
    """A cache of an earlier version stays: its keys do not know these fields."""
    assert "frame_union" not in MaskTransform(grow=3).lasting()
    assert MaskTransform(frame_feather=1.0).lasting()["frame_feather"] == 1.0


def test_folders_of_frames_that_lack_other_numbers_are_an_error_and_never_out_of_step(tmp_path):
    sequence(tmp_path / "walk.frames", frames=numbered(9))
    sequence(tmp_path / "masks" / "walk.frames", frames=moving_masks(9))
    (tmp_path / "walk.frames" / "0003.png").unlink()
    (tmp_path / "masks" / "walk.frames" / "0006.png").unlink()
    with pytest.raises(MaskError, match=r"from 0004\.png on, the masks are numbered otherwise"):
        build(tmp_path)
    # Both lack the same: they are in step.
    (tmp_path / "masks" / "walk.frames" / "0003.png").unlink()
    (tmp_path / "walk.frames" / "0006.png").unlink()
    assert len(build(tmp_path)[0].entries) == 1


def test_what_is_no_picture_in_a_folder_of_frames_changes_nothing(tmp_path, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    sequence(tmp_path / "walk.frames", frames=numbered(9))
    settings = dataclasses.replace(SETTINGS, storage="disk")

    def made():
        return build_cache(load(tmp_path), settings, encoder=ClipPooling(), text=Letters(), folder=store).built[
            "latent"
        ]

    assert made() == 1
    (tmp_path / "walk.frames" / ".DS_Store").write_bytes(b"anything")
    (tmp_path / "walk.frames" / "Thumbs.db").write_bytes(b"anything")
    assert made() == 0


def test_what_the_numbers_of_a_mask_clip_may_mean_is_told_as_of_a_picture(folder):
    lossless(folder / "masks" / "walk.mkv", (moving_masks(21) // 255 * 3).astype(np.uint8))
    cache, _ = build(folder)
    assert any("class" in finding.text and "walk.mkv" in finding.text for finding in cache.findings)


def test_a_mask_that_moves_is_not_shrunk_around_another_point_in_each_frame(folder):
    settings = dataclasses.replace(SETTINGS, mask_shrink=0.3, variants=3)
    cache, _ = build(folder, settings)
    assert [variant.shrink for variant in cache.entries[0].variants] == [None]
    (folder / "masks" / "walk.mkv").unlink()
    Image.fromarray(moving_masks(1)[0]).save(folder / "masks" / "walk.png")
    cache, _ = build(folder, settings)
    assert [variant.shrink is None for variant in cache.entries[0].variants] == [True, False, False]


def test_animated_pictures_for_a_vae_of_pictures_are_told(tmp_path):
    animation(tmp_path / "walk.gif", 5)
    data = load(tmp_path)
    (told,) = too_few(SETTINGS, data, ClipRule())
    assert "learned as pictures, their first frames" in told.text
    assert too_few(SETTINGS, data, ClipRule(True, 4)) == []
    assert "too few" in too_few(dataclasses.replace(SETTINGS, clip_frames=4), data, ClipRule(True, 4))[0].text


def told_by(cache):
    return [finding.text for finding in cache.findings if finding.level == "warning" and "caption" not in finding.text]


def partly(black, count=18, size=(SIDE, SIDE)):
    """Masks whose frames of the numbers `black` are black."""
    out = moving_masks(count, size)
    out[list(black)] = 0
    return out


def test_a_part_of_a_clip_that_teaches_nothing_is_named_beside_those_that_do(tmp_path):
    lossless(tmp_path / "walk.mkv", numbered(18))
    lossless(tmp_path / "walk_mask.mkv", partly(range(9, 18)))
    slide = dataclasses.replace(SETTINGS, clip_chunking="slide")
    cache, _ = build(tmp_path, slide)
    assert [entry.name for entry in cache.entries] == ["walk.mkv [0–8]", "walk.mkv [9–17]"]
    (text,) = told_by(cache)
    assert text.startswith("1 of 2 parts of clips teaches nothing: its mask is black everywhere: walk.mkv [9–17].")
    whole, _ = build(tmp_path)
    assert told_by(whole) == []


def test_a_doubtful_mask_of_a_later_part_is_told(tmp_path):
    lossless(tmp_path / "walk.mkv", numbered(18))
    masks = moving_masks(18)
    masks[9:] = masks[9:] // 255 * 90 + 60
    lossless(tmp_path / "walk_mask.mkv", masks)
    cache, _ = build(tmp_path, dataclasses.replace(SETTINGS, clip_chunking="slide"))
    notes = [finding.text for finding in cache.findings if finding.level == "note"]
    assert any(text.startswith("1 of 2 parts of clips: no part of the mask is black") for text in notes)


def test_parts_of_which_none_teaches_are_an_error_that_counts_them(tmp_path):
    lossless(tmp_path / "walk.mkv", numbered(18))
    lossless(tmp_path / "walk_mask.mkv", partly(range(18)))
    slide = dataclasses.replace(SETTINGS, clip_chunking="slide", more_resolutions="32")
    with pytest.raises(MaskError, match=r"In all 2 parts that are learned the masks are black .* walk\.mkv \[0–8\]"):
        build(tmp_path, slide)
    with pytest.raises(MaskError, match=r"The only mask is black at the training size, beginning with walk\.mkv:"):
        build(tmp_path, dataclasses.replace(SETTINGS, more_resolutions="32"))


def test_clips_are_called_clips(tmp_path):
    lossless(tmp_path / "walk.mkv", numbered(9))
    lossless(tmp_path / "run.mkv", numbered(9))
    lossless(tmp_path / "walk_mask.mkv", partly(range(9), 9))
    cache, _ = build(tmp_path)
    assert cache.summary().startswith("2 clips in 1 bucket:")
    assert any(text.startswith("The only clip teaches nothing: its mask is black") for text in told_by(cache))
