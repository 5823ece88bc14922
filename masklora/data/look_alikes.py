"""Masks that no name gives away: black and white, under the very names of pictures in colours."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from .mask_names import hinted_bases
from .tree import File

SIDE = 64
# Files in colour modes that are decoded; those in grey modes always are.
MOST_DECODED = 64
MOST_PIXELS = 100_000_000
_GREY_MODES = frozenset({"1", "L", "LA", "P", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
# Share of the pixels that are black or white in a mask, and how far from either they may be.
_MOSTLY, _NEARLY = 0.95, 0.06


def look_alikes(pictures: Iterable[File], has_caption: Callable[[File], bool]) -> list[File]:
    """The files that are black-and-white doubles of pictures in colours, and so their masks under a name of none.

    Such are `a.png` beside `a.jpg`, and all of a folder such as `seg/a.png`, `seg/b_seg.png` where `a.jpg` and `b.jpg`
    lie elsewhere. A folder in which one file has a caption or is not black and white is one of pictures.

    Args:
        pictures: every file that would be learned from.
        has_caption: whether a file beside it is its caption; asked of doubles in other folders.
    """
    by_stem: dict[str, list[File]] = {}
    by_place: dict[str, list[File]] = {}
    for file in pictures:
        by_stem.setdefault(file.stem.casefold(), []).append(file)
        by_place.setdefault(file.place, []).append(file)
    looks = _Looks()
    return [*_beside(by_stem, looks), *_elsewhere(by_place, by_stem, looks, has_caption)]


def _beside(by_stem: dict[str, list[File]], looks: _Looks) -> Iterator[File]:
    """Those that lie beside a picture in colours of the same name."""
    for files in by_stem.values():
        places = Counter(file.place for file in files) if len(files) > 1 else {}
        for place in (place for place, count in places.items() if count > 1):
            here = [file for file in files if file.place == place]
            black = [file for file in here if looks.black_and_white(file.path)]
            yield from black if len(black) < len(here) else ()


def _elsewhere(
    by_place: dict[str, list[File]],
    by_stem: dict[str, list[File]],
    looks: _Looks,
    has_caption: Callable[[File], bool],
) -> Iterator[File]:
    """Whole folders most of whose files have the names of pictures in colours in other folders."""
    if len(by_place) == 1:
        return
    for files in by_place.values():
        doubles = [double for file in files for double in _doubles(file, by_stem)[:1]]
        if 2 * len(doubles) < len(files) or any(map(has_caption, files)):
            continue
        if all(looks.black_and_white(file.path) for file in files):
            yield from () if any(looks.black_and_white(double.path) for double in doubles) else files


def _doubles(file: File, by_stem: dict[str, list[File]]) -> list[File]:
    names = [file.stem, *hinted_bases(file.stem)]
    return [f for name in names for f in by_stem.get(name.casefold(), ()) if f.place != file.place]


class _Looks:
    """Which files are black and white, each looked at once and at few pixels."""

    def __init__(self) -> None:
        self._known: dict[Path, bool] = {}
        self._decoded = 0

    def black_and_white(self, path: Path) -> bool:
        if path not in self._known:
            self._known[path] = self._look(path)
        return self._known[path]

    def _look(self, path: Path) -> bool:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(path) as image:
                    self._decoded += image.mode not in _GREY_MODES
                    spent = self._decoded > MOST_DECODED and image.mode not in _GREY_MODES
                    if spent or image.width * image.height >= MOST_PIXELS:
                        return False
                    image.draft("RGB", (SIDE, SIDE))
                    sample = image.resize((SIDE, SIDE), Image.Resampling.NEAREST)
                    return _is_black_and_white(sample)
        # Of damaged files Pillow's readers raise anything; loading tells what it is.
        except Exception:
            return False


def _is_black_and_white(sample: Image.Image) -> bool:
    bands = sample if sample.mode.startswith(("I", "F")) else sample.convert("RGB")
    values = np.asarray(bands, np.float32)
    spread, top = values - values.min(), float(np.ptp(values))
    if top == 0 or (values.ndim == 3 and float(np.ptp(values, axis=2).max()) > 0.1 * top):
        return False
    share = spread / top
    return bool(((share < _NEARLY) | (share > 1 - _NEARLY)).mean() >= _MOSTLY)
