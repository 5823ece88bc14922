"""What a sample is before geometry: digests of its picture and mask, its box and weights; remembered by files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ..dataset.geometry import mask_box
from ..dataset.moving import examine_frames, examine_opaque
from ..dataset.references import reference_path
from ..dataset.sample import ExaminedMask, Reference, Sample, examine_mask, source_path
from ..pictures.packed_mask import PackedFrames, PackedMask
from .keys import Memo, array_digest, digest, mask_identity
from .shots import Frames

# Raise it when what is noted of a mask changes its meaning.
FACTS = 1
_NOTED = ("has", "box", "mark", "mean", "peak", "lowest", "raw_peak", "border", "middle", "read", "doubts")
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class MaskFacts:
    """What a mask weighs before the geometry, transforms applied, and what was made of its files.

    Of a mask that moves, over the frames that are shown: means of means, the largest and the smallest of them.

    Attributes:
        mean: Of its weights, in 0..1.
        peak, lowest: The largest and the smallest of them.
        raw_peak: The largest before the transforms.
        border: Median over the four sides of the mean weight along the side, an eighth of the picture wide; a
            subject that one side cuts does not count, as it does not for a person's eye.
        middle: Mean weight inside of these.
        read, doubts: As in `ExaminedMask`.
    """

    mean: float
    peak: float
    lowest: float
    raw_peak: float
    border: float
    middle: float
    read: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class SampleFacts:
    """A picture, or a part of a clip, before geometry.

    Attributes:
        image: Digest of what is shown: of a picture its bytes, of a clip's part its file and the frames.
        source: Digest of the picture or of the whole clip.
        identity: Of its mask, see `keys.mask_identity`; None without one.
        box: The mask's bounding box, over all frames, as fractions; None where nobody asks.
        mask: What the mask weighs; None without one.
        moving: Whether the mask has a frame of its own for each that is shown.
        references: Digests of the references, in order.
    """

    image: str
    source: str
    identity: str | None = None
    box: Box | None = None
    mask: MaskFacts | None = None
    moving: bool = False
    references: tuple[str, ...] = ()


def facts_of(
    sample: Sample,
    frames: Frames = (),
    *,
    memo: Memo,
    boxed: bool,
    check_cancel: Callable[[], None] = lambda: None,
) -> SampleFacts:
    """The facts of a picture, or of these frames of a clip.

    Args:
        sample: With the files.
        frames: Numbers of the clip's frames; () for a picture.
        memo: What is known is taken from it, what is learnt noted in it.
        boxed: Whether the box counts.
        check_cancel: Called between frames; raises to stop.

    Raises:
        DataError, MaskError: A file cannot be read, or a mask is not the picture's.
    """
    stored = _image_digest(sample, memo)
    image = digest("frames", stored, frames) if frames else stored
    references = tuple(_digest_of(one, memo) for one in sample.references)
    source, channel = _mask_source(sample, stored, memo)
    if source is None:
        return SampleFacts(image, stored, references=references)
    moving = bool(frames) and sample.moves
    if moving:
        source = digest("moving", source, frames)
    # Transforms count in pixels of the picture, so what they leave hangs on its size as well.
    about = digest("mask facts", FACTS, source, channel, sample.transform.lasting(), sample.size)
    known = memo.facts(about)
    if known is None or not set(_NOTED) <= set(known):
        seen = examine_frames(sample, frames, check_cancel) if moving else [examine_mask(sample)]
        known = memo.note(about, **_together(sample, seen))
    if not known["has"]:
        return SampleFacts(image, stored, references=references)
    mark = known["mark"]
    identity = mask_identity(f"{source} as {mark}" if mark else source, channel=channel, transform=sample.transform)
    box = known["box"] if boxed else None
    weights = (known[name] for name in ("mean", "peak", "lowest", "raw_peak", "border", "middle"))
    facts = MaskFacts(*weights, tuple(known["read"]), tuple(known["doubts"]))
    place = (box[0], box[1], box[2], box[3]) if box else None
    return SampleFacts(image, stored, identity, place, facts, moving, references)


def _together(sample: Sample, seen: Iterable[ExaminedMask]) -> dict[str, Any]:
    """What the memo keeps of a mask, `_NOTED`: of its only frame, or of all that are shown."""
    each = [_examined(sample, found) for found in seen]
    if len(each) == 1:
        return each[0]
    if not any(one["has"] for one in each):
        return dict.fromkeys(_NOTED) | {"has": False}
    white = _examined(sample, examine_opaque(sample)) if not all(one["has"] for one in each) else {}
    those = [one if one["has"] else white for one in each]
    boxes = [one["box"] for one in those if one["box"]]
    return {
        "has": True,
        "box": [*np.min(boxes, axis=0)[:2].tolist(), *np.max(boxes, axis=0)[2:].tolist()] if boxes else None,
        "mark": max(one["mark"] for one in those),
        "peak": max(one["peak"] for one in those),
        "lowest": min(one["lowest"] for one in those),
        "raw_peak": max(one["raw_peak"] for one in those),
        **{name: float(np.mean([one[name] for one in those])) for name in ("mean", "border", "middle")},
        **{name: list(dict.fromkeys(k for one in those for k in one[name])) for name in ("read", "doubts")},
    }


def _examined(sample: Sample, found: ExaminedMask) -> dict[str, Any]:
    mask = found.mask
    if mask is None:
        return dict.fromkeys(_NOTED) | {"has": False}
    fields = cv2.resize(mask, (8, 8), interpolation=cv2.INTER_AREA)
    sides = [fields[0], fields[-1], fields[:, 0], fields[:, -1]]
    return {
        "has": True,
        "box": mask_box(mask, least=_least(sample)),
        "mark": found.mark,
        "mean": float(mask.mean(dtype=np.float64)),
        "peak": float(mask.max(initial=0)),
        "lowest": float(mask.min(initial=1)),
        "raw_peak": found.peak,
        "border": float(np.median([side.mean() for side in sides])),
        "middle": float(fields[1:-1, 1:-1].mean()),
        "read": list(found.read),
        "doubts": list(found.doubts),
    }


def _least(sample: Sample) -> float:
    """The smallest relative weight of the subjects in a sample's mask, which its box must not miss."""
    return min((part.weight for part in sample.parts), default=1.0)


def _image_digest(sample: Sample, memo: Memo) -> str:
    if sample.image is not None:
        return array_digest(sample.image)
    stored = memo.file(source_path(sample))
    return digest("read", sample.reading, stored) if sample.reading else stored


def _digest_of(reference: Reference, memo: Memo) -> str:
    if reference.image is not None:
        return array_digest(reference.image)
    stored = memo.file(reference_path(reference))
    return digest("read", reference.reading, stored) if reference.reading else stored


def _mask_source(sample: Sample, image: str, memo: Memo) -> tuple[str | None, str]:
    """Where the mask's values come from, and the channel that is read; None if there is surely no mask."""
    if sample.mask is not None:
        packed = isinstance(sample.mask, (PackedMask, PackedFrames))
        return f"array {sample.mask.digest if packed else array_digest(sample.mask)}", ""
    if sample.parts:
        files = sorted([memo.file(part.path), part.weight] for part in sample.parts)
        return f"union {digest(files)}", sample.settings.mask_channel
    if sample.mask_path is not None:
        return f"file {memo.file(sample.mask_path)}", sample.settings.mask_channel
    return (f"alpha {image}", "") if sample.alpha and sample.image is None else (None, "")
