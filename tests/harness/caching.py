"""Caches of real folders with a VAE and a text encoder of one line each, and a count of what was made."""

import os
import time

import numpy as np
import torch
from PIL import Image

from masklora.cache.cache import build_cache
from masklora.cache.shots import ClipRule
from masklora.dataset.loading import load_dataset
from masklora.settings import CacheSettings, DatasetSettings

SETTINGS = CacheSettings(resolution=64, bucket_step=16, batch_size=2, infill_variants=0)


class Pooling:
    """A VAE of one line: colours averaged over 8×8 pixels; counts the pictures it is given."""

    channels, stride, rule = 3, 8, ClipRule()

    def __init__(self, identity="pooling"):
        self.identity, self.batches = identity, []

    def encode(self, images):
        self.batches.append(tuple(images.shape))
        return torch.nn.functional.avg_pool2d(images.movedim(-1, 1), 8)


class ClipPooling:
    """A VAE of one line for clips: colours averaged over 8×8 pixels, and over four frames but for the first."""

    channels, stride, rule, identity = 3, 8, ClipRule(True, 4), "pooling"

    def __init__(self):
        self.shapes = []

    def encode(self, images):
        self.shapes.append(tuple(images.shape))
        return torch.nn.functional.avg_pool2d(images.movedim(-1, 1), 8)

    def encode_clip(self, frames):
        self.shapes.append(tuple(frames.shape))
        small = torch.nn.functional.avg_pool2d(frames.movedim(-1, 1), 8)
        groups = small[1:].unflatten(0, (-1, 4)).mean(dim=1)
        return torch.cat([small[:1], groups]).movedim(0, 1)


class Letters:
    """A text encoder of one line: the code points; counts the texts it is given."""

    pictures = ""

    def __init__(self, identity="letters"):
        self.identity, self.texts = identity, []

    def encode(self, texts):
        self.texts += texts
        return [
            {
                "cond": torch.tensor([[[float(ord(c))] for c in f"^{t}"]]),
                "length": len(t),
                "pooled_output": None,
            }
            for t in texts
        ]


def picture(seed, size=(80, 64), channels=3):
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)


def blob(seed, size=(80, 64)):
    mask = np.zeros((size[1], size[0]), np.uint8)
    corner = np.random.default_rng(seed).integers(0, 24, 2)
    mask[corner[1] : corner[1] + 30, corner[0] : corner[0] + 30] = 255
    return mask


def save(array, path):
    Image.fromarray(array).save(path)
    # Long ago, so that the memo may trust the time stamp; another time for each version of a file.
    stamp = time.time_ns() - 3600 * 10**9 + int(array.astype(np.int64).sum()) * 1000
    os.utime(path, ns=(stamp, stamp))


class Bench:
    """Builds caches of one folder and counts what each build had to make."""

    def __init__(self, folder, store):
        self.folder, self.store = folder, store

    def data(self, *, transform=None, **options):
        settings = DatasetSettings(folder=str(self.folder), **options)
        dataset = load_dataset(settings, allowed=lambda path: path)
        return dataset if transform is None else dataset.with_transform(transform)

    def build(self, settings=SETTINGS, *, vae="pooling", clip="letters", dataset=None, **options):
        self.encoder, self.text = Pooling(vae), Letters(clip)
        self.cache = build_cache(
            self.data(**options) if dataset is None else dataset,
            settings,
            encoder=self.encoder,
            text=self.text,
            folder=self.store,
        )
        counted = (
            sum(shape[0] for shape in self.encoder.batches),
            self.cache.built["mask"],
            len(self.text.texts),
        )
        made = self.cache.built
        assert counted == (made["latent"] + made["reference"], made["mask"], made["text"])
        return counted
