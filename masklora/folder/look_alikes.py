"""Masks that no name gives away: in black and white or flat colours, and named after pictures in colours."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..clips.reading import read_frames
from ..errors import DataError
from ..pictures.colours import has_colours, has_flat_colours
from ..pictures.mask_values import is_one_colour
from .mask_names import stem_ends
from .tree import File

SIDE = 64
# Files that are decoded and turn out to be pictures; beyond them none is that has a photograph's wealth of bytes.
MOST_PICTURES = 64
MOST_PIXELS = 100_000_000
# Bytes per pixel that are wealth, and what a file may hold beside its pixels.
_RICH, _RICH_JPEG, _HEAD = 0.25, 0.1, 4096
# Share of the pixels that are black or white in a mask, and how far from either they may be.
_MOSTLY, _NEARLY = 0.95, 0.06
_ASPECTS_DIFFER = 1.05


class LookAlikes(NamedTuple):
    """Doubles of pictures in colours without their colours: those that are masks, and those in shades of grey.

    The latter may be masks with soft edges, or photographs in black and white. Beside more of the former they count as
    such.
    """

    masks: tuple[File, ...]
    grey: tuple[File, ...]


def look_alikes(pictures: Iterable[File], has_caption: Callable[[File], bool]) -> LookAlikes:
    """The files that are doubles of pictures in colours without their colours, and so masks under a name of none.

    Such are `a.png` or `a_fg.png` beside `a.jpg`, and all of a folder such as `seg/a.png`, `seg/b_seg.png` where
    `a.jpg` and `b.jpg` lie elsewhere. A folder in which one file has a caption or is in many colours is one of
    pictures.

    Args:
        pictures: every file that would be learned from.
        has_caption: whether a file beside it is its own caption; asked of those that do not share their stem with a
            picture beside them.
    """
    files = list(pictures)
    looks = _Looks()
    beside = {file.relative: file for file in _beside(files, looks, has_caption)}
    rest = [file for file in files if file.relative not in beside]
    found = (*beside.values(), *_elsewhere(rest, looks, has_caption))
    grey = tuple(file for file in found if not looks.of(file).mask)
    if 2 * len(grey) < len(found):
        return LookAlikes(found, ())
    return LookAlikes(tuple(file for file in found if looks.of(file).mask), grey)


def _beside(files: list[File], looks: _Looks, has_caption: Callable[[File], bool]) -> Iterator[File]:
    """Those that lie beside a picture in colours whose stem is theirs, or either end of theirs."""
    by_stem: dict[tuple[str, str], list[File]] = {}
    for file in files:
        by_stem.setdefault((file.place, file.stem.casefold()), []).append(file)
    for here in by_stem.values():
        doubles = [file for file in here if looks.of(file).bare] if len(here) > 1 else []
        yield from doubles if len(doubles) < len(here) else ()
    for file in files:
        pictures = [one for end in stem_ends(file.stem) for one in by_stem.get((file.place, end.casefold()), ())]
        # Names that only begin or end alike say less, so the file itself must say more.
        if pictures and looks.of(file).plain and not has_caption(file):
            yield from [file] if any(_may_be_of(looks.of(file), looks.of(p)) for p in pictures) else ()


def _may_be_of(mask: _Look, picture: _Look) -> bool:
    """Whether a picture is in colours, and of the mask's aspect; either may be stored lying on its side."""
    if picture.moving and 0 in picture.size:
        return True
    if picture.bare or 0 in picture.size or 0 in mask.size:
        return False
    one, other = (max(look.size) / min(look.size) for look in (mask, picture))
    return max(one, other) < _ASPECTS_DIFFER * min(one, other)


def _elsewhere(files: list[File], looks: _Looks, has_caption: Callable[[File], bool]) -> Iterator[File]:
    """Whole folders most of whose files have the names of pictures in colours in other folders."""
    by_stem: dict[str, list[File]] = {}
    by_place: dict[str, list[File]] = {}
    for file in files:
        by_stem.setdefault(file.stem.casefold(), []).append(file)
        by_place.setdefault(file.place, []).append(file)
    if len(by_place) == 1:
        return
    for here in by_place.values():
        doubles = [double for file in here for double in _doubles(file, by_stem)[:1]]
        if 2 * len(doubles) < len(here) or any(map(has_caption, here)):
            continue
        if all(looks.of(file).bare for file in here):
            yield from () if any(looks.of(double).bare for double in doubles) else here


def _doubles(file: File, by_stem: dict[str, list[File]]) -> list[File]:
    names = [file.stem, *stem_ends(file.stem)]
    return [f for name in names for f in by_stem.get(name.casefold(), ()) if f.place != file.place]


class _Look(NamedTuple):
    """What a file looks like.

    Attributes:
        mask: In black and white, or in flat colours on either.
        plain: Without clear colours, or in black and one colour.
        grey: Without clear colours.
        size: As it is stored, (0, 0) of a file that cannot be read.
        moving: A clip, of which the first frame is looked at; one of unknown looks counts as one in many colours.
    """

    mask: bool = False
    plain: bool = False
    grey: bool = False
    size: tuple[int, int] = (0, 0)
    moving: bool = False

    @property
    def bare(self) -> bool:
        """Not in many colours."""
        return self.mask or self.grey


class _Looks:
    """What files look like, each looked at once and at few pixels."""

    def __init__(self) -> None:
        self._known: dict[Path, _Look] = {}
        self._pictures = 0

    def of(self, file: File) -> _Look:
        if file.path not in self._known:
            self._known[file.path] = self._look_at_clip(file.path) if file.closed else self._look(file.path)
        return self._known[file.path]

    def _look_at_clip(self, path: Path) -> _Look:
        if self._pictures >= MOST_PICTURES:
            return _Look(moving=True)
        try:
            first = Image.fromarray(next(iter(read_frames(path, [0]))).rgb)
        # Loading tells what is the matter with it.
        except DataError:
            return _Look(moving=True)
        sample = first.resize((SIDE, SIDE), Image.Resampling.NEAREST)
        look = _judged(sample, lossy=True)._replace(size=first.size, moving=True)
        self._pictures += not look.bare
        return look

    def _look(self, path: Path) -> _Look:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                with Image.open(path) as image:
                    pixels = image.width * image.height
                    rich = _HEAD + pixels * (_RICH_JPEG if image.format == "JPEG" else _RICH)
                    spent = self._pictures >= MOST_PICTURES and path.stat().st_size > rich
                    if spent or pixels >= MOST_PIXELS:
                        return _Look(size=image.size)
                    size = image.size
                    image.draft("RGB", (SIDE, SIDE))
                    lossy = image.format != "PNG"
                    sample = image.resize((SIDE, SIDE), Image.Resampling.NEAREST)
                    look = _judged(sample, lossy=lossy)._replace(size=size)
                    self._pictures += not look.bare
                    return look
        # Of damaged files Pillow's readers raise anything; loading tells what it is.
        except Exception:
            return _Look()


def _judged(sample: Image.Image, *, lossy: bool) -> _Look:
    black_and_white = _is_black_and_white(sample)
    if black_and_white or sample.mode.startswith(("I", "F")):
        return _Look(mask=black_and_white, plain=True, grey=True)
    rgba = np.asarray(sample.convert("RGBA"))
    pixels = rgba[..., :3].reshape(-1, 3)
    if int(np.ptp(rgba[..., 3])) > _NEARLY * 255:
        # With a shape in its alpha it is a picture with a mask, unless there is nothing to see in it.
        flat = int(np.ptp(pixels, axis=0).max()) <= 2
        return _Look(mask=flat, plain=flat)
    grey, one = not has_colours(pixels), is_one_colour(rgba[..., :3])
    return _Look(mask=one or has_flat_colours(pixels, lossy=lossy), plain=one or grey, grey=grey)


def _is_black_and_white(sample: Image.Image) -> bool:
    bands = sample if sample.mode.startswith(("I", "F")) else sample.convert("RGB")
    values = np.asarray(bands, np.float32)
    spread, top = values - values.min(), float(np.ptp(values))
    if top == 0 or (values.ndim == 3 and float(np.ptp(values, axis=2).max()) > 0.1 * top):
        return False
    share = spread / top
    return bool(((share < _NEARLY) | (share > 1 - _NEARLY)).mean() >= _MOSTLY)
