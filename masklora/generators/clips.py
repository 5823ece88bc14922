"""Masks of clips: one still mask, one from each frame, or those of key frames carried over the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from ..clips.reading import read_frames
from ..dataset.moving import examine_frames, load_frames, times_of
from ..dataset.sample import Sample, fit_mask, naming, source_path
from ..errors import ConfigError, MaskError
from ..findings import counted
from ..pictures.packed_mask import PackedFrames, PackedMask, pack_mask
from .finding import Maker, Picture, Things, checked, combine_masks
from .flow import DRIFTED, GONE, Carried, Read, carry

STILL, EACH_FRAME, CARRIED = "still", "each frame", "carried"
# Of the frames in which nothing was found, or a mask may have drifted.
_STRETCHES_SHOWN = 4

Masks = PackedMask | PackedFrames


class FrameWatch(Protocol):
    """Told how many frames of a clip are done of how many, and asked whether to stop, which raises."""

    def __call__(self, done: int, total: int) -> None:
        """Told between frames."""

    def check_cancel(self) -> None:
        """Asked between frames."""


class Track(Protocol):
    """Follows what was found in key frames over a clip; see `host.finders.tracking.track`."""

    def __call__(
        self, read: Read, count: int, keys: Mapping[int, np.ndarray], *, things: Mapping[int, Things], **watch: Any
    ) -> Carried:
        """The masks of all frames; raises what `check_cancel` among `watch` raises."""


@dataclass(frozen=True)
class ClipWay:
    """What a generator does with a clip.

    Attributes:
        how: `STILL` (one mask for all frames, made of the first), `EACH_FRAME`, or `CARRIED` (made of the key frames,
            and moved as the picture moves).
        key_frames: Numbers of frames, counted from 0; those that a clip does not have are passed over.
        of_mask: Whether the generator makes something of the mask that is there. Where that moves, each frame then
            gets a mask of its own instead of a carried one.
        track: What carries the masks; optical flow if None.
    """

    how: str = EACH_FRAME
    key_frames: tuple[int, ...] = (0,)
    of_mask: bool = False
    track: Track | None = None


@dataclass(frozen=True, eq=False)
class ClipFinding:
    """What was found in a clip.

    Attributes:
        masks: None where nothing was found.
        note: For the report.
        warned: What must not be overlooked, empty if nothing.
    """

    masks: Masks | None
    note: str = ""
    warned: str = ""


def parse_key_frames(text: str) -> tuple[int, ...]:
    """The numbers of a text such as "0, 40", ascending, each once.

    Raises:
        ConfigError: It holds none, or something else.
    """
    parts = [part for part in re.split(r"[\s,;]+", text.strip()) if part]
    if not parts or not all(re.fullmatch(r"[0-9]{1,7}", part) for part in parts):
        raise ConfigError(
            f'key_frames: expected numbers of frames from 0 on, separated by commas, such as "0, 40", got {text!r}.'
        )
    return tuple(sorted({int(part) for part in parts}))


def find_in_clip(sample: Sample, make: Maker, way: ClipWay, first: Picture, watch: FrameWatch) -> ClipFinding:
    """What a generator makes of a clip, not joined with the masks that are there.

    Args:
        sample: Of a clip.
        make: The generator.
        way: What it does with clips.
        first: The first frame, as the generator sees it.
        watch: Told of frames.

    Raises:
        ConfigError: The clip has none of the key frames.
        DataError: A frame cannot be read.
        MaskError: A mask cannot be read or made.
    """
    if way.how == STILL:
        if way.of_mask and sample.moves:
            raise MaskError(
                f"{sample.name}: a still mask would be made of its mask, which moves. Put this generator before those "
                "that make moving masks, or choose what needs no mask."
            )
        found = make(first)
        mask = checked(found, sample.name, sample.size)
        return ClipFinding(None if mask is None else pack_mask(mask), found.note)
    if way.how == CARRIED and not (way.of_mask and sample.moves):
        return _carried(sample, make, way, first, watch)
    return _each_frame(sample, make, first, watch)


def _each_frame(sample: Sample, make: Maker, first: Picture, watch: FrameWatch) -> ClipFinding:
    count = len(times_of(sample))
    frames, missed, notes = [], [], []
    black = pack_mask(np.zeros(sample.size[::-1], np.float32))
    for number, picture in enumerate(_pictures(sample, range(count), first, watch)):
        watch(number, count)
        found = make(picture)
        mask = checked(found, picture.name, sample.size)
        frames.append(black if mask is None else pack_mask(mask))
        if mask is None:
            missed.append(number)
            notes.append(found.note)
    if len(missed) == count:
        return ClipFinding(None, f"in none of {counted(count, '[frame|frames]')}; in the first: {notes[0]}")
    told = f"{counted(count, '[frame|frames]')}"
    if missed:
        told += f", of which frame {_stretches(missed)} have nothing: {notes[0]}"
    return ClipFinding(PackedFrames(tuple(frames)), told)


def _carried(sample: Sample, make: Maker, way: ClipWay, first: Picture, watch: FrameWatch) -> ClipFinding:
    count = len(times_of(sample))
    numbers = [number for number in way.key_frames if number < count]
    if not numbers:
        raise ConfigError(
            f"key_frames: {sample.name} has {counted(count, '[frame|frames]')}, numbered from 0 to {count - 1}, and "
            "none of those that are named. Name one of them."
        )

    def read(wanted: Sequence[int]) -> Iterator[np.ndarray]:
        path = source_path(sample)
        with naming(path, sample.name):
            for data in read_frames(path, wanted, check_cancel=watch.check_cancel):
                yield data.rgb

    keys, things, notes, doubts = {}, {}, [], []
    for number, picture in zip(numbers, _pictures(sample, numbers, first, watch), strict=True):
        if way.of_mask and keys:
            # What was painted is where it was in the first of them.
            picture, doubt = _with_carried(picture, read, keys, number, watch)
            doubts.append(doubt)
        found = make(picture)
        mask = checked(found, picture.name, sample.size)
        if mask is not None:
            keys[number] = mask
            if found.things is not None:
                things[number] = found.things
        notes.append(f"frame {number}: {found.note}" if len(numbers) > 1 else found.note)
        if mask is None and len(numbers) > 1:
            notes[-1] = f"nothing found in frame {number} ({found.note})"
    note = ", ".join(part for part in notes if part)
    if not keys:
        return ClipFinding(None, note)
    frames = ", ".join(map(str, keys))
    missed = [number for number in numbers if number not in keys]
    if way.track is None:
        carried = carry(read, count, keys, check_cancel=watch.check_cancel, progress=watch)
        over = f"carried from frame {frames} over {counted(count, '[frame|frames]')}"
        warned = [_cut(carried, missed), _gone(carried), _drift(carried, list(keys)), *doubts]
        missed = [number for number in missed if number not in carried.cut]
    else:
        carried = way.track(read, count, keys, things=things, check_cancel=watch.check_cancel, progress=watch)
        over = f"followed from frame {frames} over {counted(count, '[frame|frames]')}"
        warned = [_lost(carried)]
    if missed:
        warned.append(
            f"nothing was found in frame {_stretches(missed)}, which has what is carried from the other key frames"
        )
    return ClipFinding(carried.masks, f"{note}, {over}" if note else over, "; ".join(filter(None, warned)))


def _with_carried(
    picture: Picture, read: Read, keys: Mapping[int, np.ndarray], number: int, watch: FrameWatch
) -> tuple[Picture, str]:
    """A later key frame with what is carried to it for its rough mask, and what is to be told of that."""
    before = max(keys)
    way = carry(
        lambda wanted: read([before + one for one in wanted]),
        number - before + 1,
        {0: keys[before]},
        check_cancel=watch.check_cancel,
    )
    if way.cut:
        # Nothing else says where in the new scene the subject is.
        return picture, (
            f"the scene is cut between key frames {before} and {number}, and the rough mask was taken for frame "
            f"{number} as it is: look whether it fits there, or give the clip a mask that moves"
        )
    doubt = ""
    if max(way.gone[-1], way.drift[-1]) > GONE:
        doubt = (
            f"the mask that was cut in frame {number} may be wrong, because on the way from frame {before} most of its "
            "subject was out of sight: give the clip a mask that moves, or correct it in a folder of frames"
        )
    return replace(picture, mask=way.masks.unpack(number - before)), doubt


def _cut(carried: Carried, missed: Sequence[int]) -> str:
    """What is told of frames that a cut of the scene parts from all key frames; empty if there are none.

    In those of `missed` the generator found nothing: they are named as key frames already.
    """
    cut = carried.cut
    if not cut:
        return ""
    open_ = [number for number in cut if number not in missed] or list(cut)
    begins = [str(number) for number in open_ if number - 1 not in open_][:_STRETCHES_SHOWN]
    return (
        f"frame {_stretches(cut)} is of another scene than the key frames, and its mask is black: add "
        f"{', '.join(begins)} to key_frames, or leave it out with clip_start and clip_end in Cache Dataset"
    )


def _gone(carried: Carried) -> str:
    """What is told of frames in which what the mask was of is not seen any more; empty if there are none."""
    numbers = np.flatnonzero(carried.gone > GONE).tolist()
    if not numbers:
        return ""
    worst = int(carried.gone.argmax())
    return (
        f"in frame {_stretches(numbers)} the subject seems to be hidden or to have left the picture, and the mask lies "
        f"on something else ({carried.gone[worst]:.0%} of it in frame {worst}): save the masks as a folder of frames "
        "and correct them there, or leave such frames out with clip_start and clip_end in Cache Dataset"
    )


def _drift(carried: Carried, keys: Sequence[int]) -> str:
    """What is told of frames in which a carried mask may be wrong; empty if there are none."""
    numbers = np.flatnonzero((carried.drift > DRIFTED) & (carried.gone <= GONE)).tolist()
    if not numbers:
        return ""
    nearest = min(numbers, key=lambda number: min(abs(number - key) for key in keys))
    worst = max(numbers, key=lambda number: carried.drift[number])
    return (
        f"in frame {_stretches(numbers)} the mask may have drifted (sight of {carried.drift[worst]:.0%} of it was lost "
        f"on the way to frame {worst}): add {nearest} to key_frames, or save the masks as a folder of frames and "
        f"correct frame {nearest} there"
    )


def _lost(carried: Carried) -> str:
    """What is told of frames in which nothing was found any more; empty if there are none."""
    numbers = np.flatnonzero(carried.drift > DRIFTED).tolist()
    if not numbers:
        return ""
    return (
        f"in frame {_stretches(numbers)} what was followed is no longer seen, and the masks are black: if it is there, "
        f"add {numbers[0]} to key_frames"
    )


def _pictures(sample: Sample, numbers: Sequence[int], first: Picture, watch: FrameWatch) -> Iterator[Picture]:
    for number, shown in zip(numbers, load_frames(sample, numbers, watch.check_cancel), strict=True):
        existing = fit_mask(shown.mask, sample.size) if shown.has_mask else None
        name = f"{sample.name} (frame {number})"
        yield Picture(name, shown.rgb, existing, first.seed, first.index, first.count, first.rgb)


def masks_of(sample: Sample, watch: FrameWatch) -> Iterator[np.ndarray | None]:
    """The masks of a clip's frames, transforms applied, at its size; None for an opaque frame of one with alpha."""
    for found in examine_frames(sample, range(len(times_of(sample))), watch.check_cancel):
        yield None if found.mask is None else fit_mask(found.mask, sample.size)


def packed_masks(sample: Sample, watch: FrameWatch) -> PackedFrames:
    """The masks of a clip whose mask moves, transforms applied, packed."""
    white = np.ones(sample.size[::-1], np.float32)
    return PackedFrames(tuple(pack_mask(white if mask is None else mask) for mask in masks_of(sample, watch)))


def join(sample: Sample, still: np.ndarray | None, new: Masks, how: str, watch: FrameWatch) -> Masks:
    """New masks joined with those that are there, frame by frame where one of the two moves.

    Args:
        sample: Of a clip.
        still: Its mask if that does not move, None without one.
        new: What was made.
        how: One of `finding.COMBINES`.
        watch: Asked whether to stop.
    """
    if how == "replace" or (still is None and not sample.moves and how != "subtract"):
        return new
    if isinstance(new, PackedMask) and not sample.moves:
        return pack_mask(combine_masks(still, new.unpack(), how))
    existing: Iterable[np.ndarray | None]
    existing = masks_of(sample, watch) if sample.moves else (still for _ in range(len(new)))  # type: ignore[arg-type]
    frames = []
    for number, old in enumerate(existing):
        made = new.unpack() if isinstance(new, PackedMask) else new.unpack(number)
        frames.append(pack_mask(combine_masks(old, made, how)))
    return PackedFrames(tuple(frames))


def coverage(masks: Masks) -> float:
    """Mean weight of all frames, 0..1; 0 only where nothing is learned at all."""
    frames = [masks] if isinstance(masks, PackedMask) else masks.frames
    return float(np.mean([one.unpack().mean(dtype=np.float64) for one in frames]))


def _stretches(numbers: Sequence[int]) -> str:
    """Ascending numbers as "3–17, 40", no longer than a line."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    shown = ["–".join(map(str, part)) for part in parts[:_STRETCHES_SHOWN]]
    return ", ".join(shown) + (" …" if len(parts) > _STRETCHES_SHOWN else "")
