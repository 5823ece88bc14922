"""Whether the masks of a data set make sense, judged where the loss will look, before anything is trained.

The curves of a training cannot show it: an inverted set has the curves of a good one, and a picture whose mask the
crop took away teaches nothing without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import cv2
import numpy as np

from ..dataset.geometry import Geometry
from ..errors import MaskError
from ..findings import Finding, note, warning, worded
from ..pictures.mask_values import DIM, DOUBTS, READ
from .plan import Entry, Variant

NAMES_SHOWN = 5
# A mask whose smallest weight is above this has no black, and is told.
PALE = 0.1
# JPEG masks are seldom exactly 0 or 255.
NEARLY = 2.5 / 255
# A variant that keeps less of its mask's weight than this is told.
MOST = 0.5
# Leaning of a single mask that counts, and of a whole set that is told, or told where the kept parts are the less alike
# too. Set by hand, fitted to no data; `tests/cache/test_mask_sense.py` tries them on made-up sets.
LEANS, LEANING, PERHAPS = 0.3, -0.3, -0.15
MOSTLY = 0.7
# How much less alike the kept parts must be than the others to be taken for surroundings.
UNLIKE = 1.5
LOOKED_AT = 48
# Whole sentences, for those who translate them.
LOST = (
    "{which} [teaches nothing: its mask is|teach nothing: their masks are] black everywhere: {names}. Look at the "
    "files, or take [it|them] out.",
    "{which} [teaches nothing: the crop cuts its|teach nothing: the crop cuts their] whole mask away: {names}. Set "
    "crop in Cache Dataset to around mask, or turn on bucketing.",
    "{which} [teaches|teach] nothing in some of [its|their] crops, which leave nothing of the mask: {names}. Set crop "
    "in Cache Dataset to around mask, or turn on bucketing.",
    "{which} [loses most of its|lose most of their] mask to the crop: {names}. Set crop in Cache Dataset to around "
    "mask, or turn on bucketing.",
)

Read = Callable[[Entry], tuple[np.ndarray, np.ndarray]]


def mask_findings(entries: Sequence[Entry], weights: Mapping[str, float], read: Read) -> list[Finding]:
    """What a person should know of the masks, warnings first.

    Args:
        entries: Of a cache.
        weights: Mean weight at the training size by mask key.
        read: Gives an entry's latent (C, h, w) and mask (H, W), both float32, at the training geometry.
    """
    masked = [entry for entry in entries if entry.facts is not None]
    once = shown(masked)
    found = [*lost_weight(masked, weights), *doubtful(once), *inverted(once, read), *leaving_nothing_out(once)]
    return sorted(found, key=lambda finding: finding.level != "warning")


def shown(entries: Iterable[Entry]) -> list[Entry]:
    """The first entry of each picture and of each part of a clip: further resolutions show the same masks."""
    found: dict[tuple[int, tuple[int, ...]], Entry] = {}
    for entry in entries:
        found.setdefault((entry.index, entry.frames), entry)
    return list(found.values())


def require_weight(entries: Sequence[Entry], weights: Mapping[str, float]) -> None:
    """Nothing if some picture has weight to learn from; regularisation pictures alone teach nothing.

    Args:
        entries: Of a cache.
        weights: Mean weight at the training size by mask key; a mask that is not there yet counts before its crop.

    Raises:
        MaskError: No picture has; says where the weight went and what to do.
    """
    taught = [entry for entry in entries if not entry.regularisation]
    judged = [(entry.facts, variant.mask) for entry in taught for variant in entry.variants]
    if not taught or any(facts is None or weights.get(key, facts.mean) > 0 for facts, key in judged):
        return
    # Where weight is lost on the way, that is what helps.
    facts = max((entry.facts for entry in taught if entry.facts is not None), key=lambda one: (one.mean, one.raw_peak))
    once = shown(taught)
    which = f"All {len(once)} masks are" if len(once) > 1 else "The only mask is"
    if len(once) > len({entry.index for entry in once}):
        which = f"In all {len(once)} parts that are learned the masks are"
    head = f"{which} black at the training size, beginning with {once[0].name}: nothing would be learned."
    if facts.mean > 0:
        raise MaskError(
            f"{head} The masks have weight before the crop, which cuts it away: set crop in Cache Dataset to around "
            "mask, turn on bucketing, or grow the masks if they are tiny."
        )
    if facts.raw_peak > 0:
        raise MaskError(
            f"{head} Their files have weight (at most {facts.raw_peak:.2f}), and Transform Masks takes it away: lower "
            "threshold or min_area, shrink less, or turn invert off."
        )
    raise MaskError(
        f"{head} Their files are black everywhere. White means learn; look whether the mask is in another channel "
        "(mask_channel in Load Dataset), and at the files themselves."
    )


def lost_weight(entries: Sequence[Entry], weights: Mapping[str, float]) -> list[Finding]:
    """What teaches nothing, at all or in some of its crops, and what loses most of its mask."""
    # One name for each, at whatever resolution it is first met.
    black, cut, sometimes, sliver = {}, {}, {}, {}
    for entry in entries:
        key = entry.index, entry.frames
        shares = [kept_share(entry, variant, weights) for variant in entry.variants]
        if entry.facts.mean <= 0:
            black.setdefault(key, entry.name)
        elif max(shares) <= 0:
            cut.setdefault(key, entry.name)
        elif min(shares) <= 0:
            sometimes.setdefault(key, entry.name)
        elif (least := min(s for s, shrink in zip(shares, _shrinks(entry), strict=True) if not shrink)) < MOST:
            sliver.setdefault(key, f"{entry.name} (keeps {least:.0%})")
    return [
        warning(told(list(found.values()), entries, what))
        for found, what in zip((black, cut, sometimes, sliver), LOST, strict=True)
        if found
    ]


def _shrinks(entry: Entry) -> Iterable[bool]:
    """Per variant whether its mask was shrunk on purpose; where all were, none counts as such."""
    shrunk = [variant.shrink is not None for variant in entry.variants]
    return [False] * len(shrunk) if all(shrunk) else shrunk


def kept_share(entry: Entry, variant: Variant, weights: Mapping[str, float]) -> float:
    """`share_left` by a variant's geometry; 1 without a mask."""
    facts = entry.facts
    if facts is None:
        return 1.0
    after = weights[variant.mask]
    return share_left(facts.mean, after, geometry=variant.geometry, lowest=facts.lowest)


def share_left(before: float, after: float, *, geometry: Geometry, lowest: float) -> float:
    """How much of a mask's weight a geometry leaves, in [0, 1]; 1 of a mask that has nothing to lose.

    A white mask, like a picture without one, is learned wherever the crop lies; a black one is learned nowhere.

    Args:
        before: mean weight of the whole mask.
        after: mean weight in the training picture.
        geometry: what lies between the two.
        lowest: the smallest weight of the whole mask.
    """
    (width, height), (full_w, full_h) = geometry.size, geometry.resized
    whole = before * full_w * full_h
    return 1.0 if whole <= 0 or is_white(lowest) else min(1.0, after * width * height / whole)


def is_white(lowest: float) -> bool:
    """Whether a mask of which this is the smallest weight is white everywhere, or as near to it as JPEG writes."""
    return lowest >= 1 - NEARLY


def doubtful(entries: Sequence[Entry]) -> list[Finding]:
    """How mask files were read where that is not as they are stored, and what they may mean instead."""
    read: dict[str, list[str]] = {}
    doubts: dict[str, list[Entry]] = {}
    for entry in entries:
        for kind in dict.fromkeys(entry.facts.read):
            read.setdefault(kind, []).append(entry.name)
        for kind in dict.fromkeys(entry.facts.doubts):
            # What the transforms have made white is no longer in doubt.
            if entry.facts.peak < DIM or kind in ("several colours", "grey and alpha"):
                doubts.setdefault(kind, []).append(entry)
    found = [note(f"{count(names, entries)}: {READ[kind]}. Found in: {listed(names)}.") for kind, names in read.items()]
    pale = [entry for entry in entries if entry.facts.lowest > PALE and not is_white(entry.facts.lowest)]
    if pale:
        names = [entry.name for entry in pale]
        least = min(entry.facts.lowest for entry in pale)
        found.append(
            note(
                f"{count(names, entries)}: no part of the {worded(len(names), '[mask|masks]')} is black, and the "
                f"darkest weighs {least:.2f}: {listed(names)}. Black means leave out; if that was meant, turn on "
                "binarize in Transform Masks with a threshold above it."
            )
        )
    for kind, those in doubts.items():
        peak = max(entry.facts.raw_peak for entry in those)
        what = DOUBTS[kind].format(peak=peak, threshold=f"{peak / 2:.2g}")
        names = [entry.name for entry in those]
        found.append(warning(_doubt(names, entries, what)))
    return found


def leaving_nothing_out(entries: Sequence[Entry]) -> list[Finding]:
    """A warning where masks change nothing, because all are white; some may well be."""
    judged = [entry for entry in entries if not entry.regularisation]
    if not judged or not all(is_white(entry.facts.lowest) for entry in judged):
        return []
    which = f"All {len(judged)} masks are" if len(judged) > 1 else "The only mask is"
    return [
        warning(
            f"{which} white everywhere, beginning with {judged[0].name}: the pictures are learned whole, as if they "
            "had no masks. Black means leave out; look whether the masks are in other files or in another channel, or "
            "are grown or binarized away in Transform Masks."
        )
    ]


def inverted(entries: Sequence[Entry], read: Read) -> list[Finding]:
    """A warning with two pictures where the masks seem to keep the surroundings and leave out the subject."""
    judged = [entry for entry in entries if not entry.regularisation and 0 < entry.facts.mean < 1]
    leans = {entry.name: leaning(entry) for entry in judged}
    clear = [lean for lean in leans.values() if abs(lean) >= LEANS]
    if not clear or np.mean([lean <= -LEANS for lean in clear]) < MOSTLY:
        return []
    mean = np.mean(list(leans.values()))
    unlike = len(judged) > 2 and mean <= PERHAPS and likeness(judged, read) >= UNLIKE
    if mean > (PERHAPS if unlike else LEANING):
        return []
    first, second = (sorted(leans, key=leans.__getitem__) * 2)[:2]
    which = first if first == second else f"{first} and {second}"
    also = " What they keep also differs more from picture to picture than what they leave out." if unlike else ""
    return [
        warning(
            f"The masks look inverted: they keep the borders of the pictures and leave out the middle, as in {which}."
            f"{also} White means learn. If the subject is black in yours, turn on invert in Transform Masks, or "
            "invert_masks in Dataset From Images for masks from Load Image. What was painted in ComfyUI's mask editor "
            "is transparent, which means left out: invert too. If the surroundings are what you train, all is well."
        )
    ]


def leaning(entry: Entry) -> float:
    """Where a mask's weight lies, -1 (at the border) to 1 (in the middle), whatever it covers; 0 for evenly."""
    facts = entry.facts
    return float(np.clip((facts.middle - facts.border) / max(min(facts.mean, 1 - facts.mean), 0.02), -1, 1))


def likeness(entries: Sequence[Entry], read: Read) -> float:
    """How far the kept parts differ from picture to picture, as a share of how far the other parts do.

    A subject is alike in all its pictures, their surroundings are not: below 1 the kept parts are the more alike.
    Means and spreads of the latents inside and outside the masks are compared, of at most `LOOKED_AT` pictures.
    """
    step = max(1, len(entries) // LOOKED_AT)
    kept, left = [], []
    for entry in entries[::step]:
        latent, mask = read(entry)
        w = cv2.resize(mask, latent.shape[:0:-1], interpolation=cv2.INTER_AREA)
        if w.sum() > 0.05 and (1 - w).sum() > 0.05:
            kept.append(_features(latent, w))
            left.append(_features(latent, 1 - w))
    if len(kept) < 3:
        return 1.0
    spread = np.std([*kept, *left], axis=0) + 1e-6
    return _apart(np.array(kept) / spread) / max(_apart(np.array(left) / spread), 1e-6)


def _features(latent: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Weighted mean and spread of each channel: (2·C,)."""
    mean = (latent * w).sum(axis=(1, 2)) / w.sum()
    spread = np.sqrt(((latent - mean[:, None, None]) ** 2 * w).sum(axis=(1, 2)) / w.sum())
    return np.concatenate([mean, spread])


def _apart(points: np.ndarray) -> float:
    """Mean distance of two different rows."""
    n = len(points)
    return float(np.linalg.norm(points[:, None] - points[None], axis=2).sum() / (n * (n - 1)))


def count(names: Sequence[str], entries: Iterable[Entry]) -> str:
    """«3 of 20 pictures», «The only clip», «1 of 4 parts of clips»: how many of what these entries show."""
    once = shown(entries)
    number, total, clips = len(names), len(once), sum(bool(entry.frames) for entry in once)
    if total == 1:
        return "The only clip" if clips else "The only picture"
    if not clips:
        return f"{number} of {total} pictures"
    if len({entry.index for entry in once}) < total:
        return f"{number} of {total} parts of clips" if clips == total else f"{number} of {total} pictures and parts"
    return f"{number} of {total} clips" if clips == total else f"{number} of {total} pictures and clips"


def told(names: Sequence[str], entries: Iterable[Entry], what: str, **values: str) -> str:
    """The sentence `what` with `values`, of the `names` among what these entries show.

    `{which}` is how many they are, and `{names}` the first of them.
    """
    return worded(len(names), what).format(which=count(names, entries), names=listed(names), **values)


def _doubt(names: Sequence[str], entries: Sequence[Entry], what: str) -> str:
    which = count(names, entries)
    return worded(len(names), "{which} [has a doubtful mask|have doubtful masks] ({names}): {what}.").format(
        which=which, names=listed(names), what=what
    )


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
