"""Faults of other trainers in where a mask lies and in what its values are; each is computed here and is not ours.

Read at kohya-ss/sd-scripts 48d368fa, bghira/SimpleTuner bc8e6ab7, ostris/ai-toolkit 27a03a91 and Nerogar/OneTrainer
23df3832.
"""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from harness.caching import SETTINGS, Bench, save
from harness.folders import anywhere, folder_settings, grey, picture
from masklora.dataset.geometry import apply_mask, plan_geometry
from masklora.dataset.loading import load_dataset
from masklora.errors import MaskError
from masklora.loss.masks import reduce_mask
from masklora.pictures.reading import read_mask

SQUARE = replace(SETTINGS, bucketing=False, resize="area")


def soft_picture(size):
    """Grey hills without a symmetry: uint8 (H, W)."""
    coarse = np.random.default_rng(5).integers(0, 256, (7, 9), dtype=np.uint8)
    return cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)


def as_cells(pixels):
    return reduce_mask(torch.from_numpy(pixels).float()[None, None] / 255, grid=(8, 8))[0, 0]


def shown_and_weighed(tmp_path, values, settings):
    """Per variant what the latent shows and what the mask weighs, of a picture that is its own mask; both (8, 8)."""
    folder = tmp_path / "set"
    folder.mkdir()
    save(np.stack([values] * 3, axis=-1), folder / "a.png")
    save(values, folder / "a_mask.png")
    bench = Bench(folder, tmp_path / "store")
    bench.build(settings)
    (entry,) = bench.cache.entries
    shown = [bench.cache.latent(entry, i)[0] for i in range(len(entry.variants))]
    weighed = [reduce_mask(bench.cache.mask(entry, i)[None], grid=(8, 8))[0, 0] for i in range(len(entry.variants))]
    return shown, weighed


def overlap(a, b):
    return (((a > 0.5) & (b > 0.5)).sum() / ((a > 0.5) | (b > 0.5)).sum()).item()


def test_kohya_squashes_the_mask_instead_of_cropping_it_here_both_are_cropped(tmp_path):
    """library/train_util.py:2541-2555: the picture is cropped to its bucket, the mask scaled to it, sides apart."""
    values = soft_picture((200, 140))
    (shown,), (weighed,) = shown_and_weighed(tmp_path, values, SQUARE)
    squashed = as_cells(cv2.resize(values, (64, 64), interpolation=cv2.INTER_AREA))
    assert overlap(squashed, shown) < 0.85
    assert (weighed - shown).abs().max() < 0.01
    assert overlap(weighed, shown) == 1


def test_simpletuner_draws_the_mask_s_random_crop_anew_here_both_have_one(tmp_path):
    """simpletuner/helpers/image_manipulation/training_sample.py:342 and 696: `prepare_like` takes the picture's crop
    over and `crop` draws another; measured, mask and picture drifted apart by up to 364 px.
    """
    settings = replace(SQUARE, crop="random", variants=6)
    shown, weighed = shown_and_weighed(tmp_path, soft_picture((400, 90)), settings)
    drawn_anew = [(w - s).abs().max() for w, s in zip(weighed[1:], shown, strict=False)]
    assert max(drawn_anew) > 0.2
    for w, s in zip(weighed, shown, strict=True):
        assert (w - s).abs().max() < 0.01


def test_ai_toolkit_stretches_a_mask_of_another_aspect_here_it_is_an_error_with_both_sizes(tmp_path):
    """toolkit/dataloader_mixins.py:1638: the mask takes the picture's size, whatever shape it had."""
    disc = cv2.circle(np.zeros((51, 51), np.uint8), (25, 25), 15, 255, -1)
    stretched = np.asarray(Image.fromarray(disc).resize((102, 76), Image.Resampling.BICUBIC)) > 127
    assert stretched.any(axis=0).sum() > 1.3 * stretched.any(axis=1).sum()
    picture(tmp_path / "cat 03.png", (102, 76))
    grey(tmp_path / "cat 03_mask.png", disc / 255)
    with pytest.raises(MaskError, match=r"cat 03\.png .*the mask is 51×51 but the image is 102×76\. Save the mask"):
        load_dataset(folder_settings(tmp_path), allowed=anywhere)


@pytest.mark.parametrize("bucket", [(48, 48), (128, 112)])
def test_ai_toolkit_s_bicubic_masks_overshoot_here_no_kernel_does(bucket):
    """toolkit/dataloader_mixins.py:1638: masks are scaled by BICUBIC. Grey beside black comes out lighter than grey."""
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 20:] = 128
    theirs = np.asarray(Image.fromarray(mask).resize(bucket, Image.Resampling.BICUBIC))
    assert theirs.max() > 128
    for hard in (False, True):
        ours = apply_mask(mask / 255, plan_geometry((64, 64), bucket, upscale=True), hard=hard)
        assert ours.min() >= 0 and ours.max() <= np.float32(128 / 255)


def test_ai_toolkit_and_onetrainer_clip_sixteen_bit_masks_here_they_are_scaled(tmp_path):
    """toolkit/dataloader_mixins.py:1598 `convert('RGB')`, modules/util/image_util.py:7 `convert('L')`: all of a 16-bit
    file above 255, which is nearly black, becomes white.
    """
    values = np.array([[0, 1, 256], [32768, 60000, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as image:
        assert np.asarray(image.convert("L")).tolist() == [[0, 1, 255], [255, 255, 255]]
        assert np.asarray(image.convert("RGB"))[0, 2].tolist() == [255] * 3
    np.testing.assert_allclose(read_mask(tmp_path / "m.png"), values / 65535, atol=1e-7)
