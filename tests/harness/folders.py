"""Folders of tiny pictures for the tests of data sets."""

import numpy as np
from PIL import Image

from masklora.settings import CaptionSettings, DatasetSettings


def anywhere(path):
    return path


def picture(path, size=(8, 8), mode="RGB", value=120):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "1") else (value,) * len(mode)).save(path)
    return path


def grey(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(np.asarray(values, np.float32) * 255).astype(np.uint8)).save(path)
    return path


def with_alpha(path, alpha):
    rgba = np.full((*np.shape(alpha), 4), 90, np.uint8)
    rgba[..., 3] = np.rint(np.asarray(alpha) * 255)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgba).save(path)
    return path


def folder_settings(folder, *, caption=None, **values):
    return DatasetSettings(folder=str(folder), caption=CaptionSettings(**(caption or {})), **values)
