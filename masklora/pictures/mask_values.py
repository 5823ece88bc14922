"""What the numbers of a mask file mean: the one place that judges its scale, its colours and its alpha.

Tools write masks in many ways: 0 and 1, 255 in sixteen bits, red on black, the shape in the alpha. What can only mean
one thing is read so; what may mean several stays as it is stored, and is told with what to choose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Up to here a value of eight bits is a number of something, not a shade that anybody could see.
LARGEST_CLASS = 32
# Masks whose largest weight stays below this are told: white was probably meant.
DIM = 0.9
# Differences of bands that JPEG makes of grey.
GREY_TOLERANCE = 24
# Shares of the largest band that count as on and off in the colours of a map.
_ON, _OFF = 0.6, 0.35
_SAMPLE = 1 << 18
# An alpha has a shape where its values differ by more; it is that of the colours where they differ by less on average.
_LEAST_SHAPE, _ALIKE = 0.02, 0.05
# Spread of the bands' shares up to which a colour is that of a marker and not of a thing in a photograph.
_FLAT = 0.08


@dataclass(frozen=True, eq=False)
class MaskValues:
    """A mask as weights and what was made of its file.

    Attributes:
        weights: float32 (H, W) in 0..1, 1 = learn.
        read: How the file was read where that is not as it is stored; one of `READ`, empty otherwise.
        doubt: What the file may be instead; one of `DOUBTS`, empty without a doubt.
        stored: Stands for what reading the file did that earlier versions of the pack did not; usually empty.
    """

    weights: np.ndarray
    read: str = ""
    doubt: str = ""
    stored: str = ""

    @property
    def mark(self) -> str:
        """Part of the mask's identity: empty where an earlier version of the pack read the file alike."""
        return " ".join(part for part in (self.read, self.stored) if part)


READ = {
    "alpha": "the mask is in the file's alpha, and was taken from there",
    "zero and one": "the values are 0 and 1 instead of 0 and 255, and 1 was taken for white",
    "eight of sixteen bits": "sixteen bits with 255 as white, which was taken for white",
    "one colour": "one colour on black, which was taken for white",
}
DOUBTS = {
    "class numbers": "the values are a few small numbers, as of classes, and weigh next to nothing. To learn all of "
    "them, turn on binarize in Transform Masks with a threshold of {threshold}; to learn one, save it as a mask of its "
    "own",
    "several colours": "several colours, as of a map of things, of which each weighs by its brightness. Save the one "
    "that is to be learned as white on black, or set mask_channel to the colour that it has",
    "grey and alpha": "both its grey values and its alpha change. Its grey values were taken; if the mask is the "
    "alpha, set mask_channel to alpha",
    "dim": "the largest weight is {peak:.2f}. If that is meant as white, turn on binarize in Transform Masks with a "
    "threshold of {threshold}",
}


def understand(colours: np.ndarray, alpha: np.ndarray | None, scale: int, channel: str) -> MaskValues:
    """The weights of a mask file.

    Args:
        colours: (H, W, 1) grey or (H, W, 3), unsigned integers as stored.
        alpha: (H, W) of the same scale, None without a band.
        scale: what full scale is stored as: 255 or 65535.
        channel: one of `config.MASK_CHANNELS`. With luminance, the default, alpha and colours are judged too; a
            channel that was chosen is taken as it is, but for its scale. "alpha" needs a band.
    """
    if channel == "alpha":
        assert alpha is not None
        return _scaled(alpha, scale, parts=alpha)
    if channel != "luminance":
        return _scaled(band_of(colours, channel), scale * (3 if channel == "rgb average" else 1), parts=colours)
    if alpha is None or not _has_shape(alpha):
        return _luminance(colours, scale)
    if not _is_grey(colours) or _is_flat(colours, scale):
        shape = _scaled(alpha, scale, parts=alpha)
        return MaskValues(shape.weights, "alpha", shape.doubt)
    grey = _luminance(colours, scale)
    if np.abs(grey.weights - unit(alpha, scale)).mean() < _ALIKE:
        return grey
    return MaskValues(grey.weights, grey.read, "grey and alpha")


def _has_shape(alpha: np.ndarray) -> bool:
    # Beside its own largest value: an alpha may be of another scale, as the colours may.
    high = int(alpha.max(initial=0))
    return high > 0 and (high - int(alpha.min(initial=high))) / high >= _LEAST_SHAPE


def _luminance(colours: np.ndarray, scale: int) -> MaskValues:
    if _is_grey(colours):
        return _scaled(grey_of(colours), 1000 * scale if colours.shape[2] == 3 else scale, parts=colours)
    colour = _ColourUse.of(colours)
    grey = unit(grey_of(colours), 1000 * scale)
    if colour.alone:
        brightest = colours.max(axis=2)
        return MaskValues(unit(brightest, int(brightest.max())), "one colour")
    if colour.hues:
        return MaskValues(grey, doubt="several colours")
    return MaskValues(grey, doubt="dim" if 0 < grey.max(initial=0) < DIM else "")


def _scaled(values: np.ndarray, full: int, *, parts: np.ndarray) -> MaskValues:
    """`values` (H, W), of which `full` is white, with the scale that they really have."""
    top = int(parts.max(initial=0))
    stored = full * top // int(np.iinfo(parts.dtype).max)
    if parts.dtype == np.uint16 and 0 < top <= 255:
        eight = _scaled(values, full // 257, parts=parts.astype(np.uint8))
        return MaskValues(eight.weights, eight.read or "eight of sixteen bits", eight.doubt)
    if top == 1:
        return MaskValues(unit(values, max(1, stored)), "zero and one")
    weights = unit(values, full)
    if parts.dtype == np.uint8 and _are_class_numbers(parts, top):
        return MaskValues(weights, doubt="class numbers")
    return MaskValues(weights, doubt="dim" if 0 < weights.max(initial=0) < DIM else "")


def _are_class_numbers(parts: np.ndarray, top: int) -> bool:
    """Whether values of eight bits are numbers of classes, beside which 255 may mark what is of none."""
    if top <= LARGEST_CLASS:
        return top > 1
    counts = np.bincount(parts.reshape(-1), minlength=256)
    numbers, rest = counts[1 : LARGEST_CLASS + 1].sum(), counts[LARGEST_CLASS + 1 : 255].sum()
    return rest == 0 and numbers > max(counts[255], 0.02 * parts.size)


def band_of(colours: np.ndarray, channel: str) -> np.ndarray:
    """(H, W) of (H, W, 1 or 3): the band named by a channel; of "rgb average" the sum of three."""
    if channel == "rgb average":
        return colours.sum(axis=2, dtype=np.uint32) * (3 // colours.shape[2])
    return colours[..., 0 if colours.shape[2] == 1 else ("red", "green", "blue").index(channel)]


def grey_of(colours: np.ndarray) -> np.ndarray:
    """(H, W); of three bands the Rec. 601 luminance times 1000: integer weights keep greys exact."""
    if colours.shape[2] == 1:
        return colours[..., 0]
    mixed = np.zeros(colours.shape[:2], np.uint32)
    for band, weight in enumerate((299, 587, 114)):
        mixed += colours[..., band] * np.uint32(weight)
    return mixed


def _is_grey(colours: np.ndarray) -> bool:
    if colours.shape[2] == 1:
        return True
    tolerance = GREY_TOLERANCE * (257 if colours.dtype == np.uint16 else 1)
    return int((colours.max(axis=2) - colours.min(axis=2)).max(initial=0)) <= tolerance


def _is_flat(colours: np.ndarray, scale: int) -> bool:
    """Whether all colours are alike, as where only the alpha has a shape."""
    spread = colours.reshape(-1, colours.shape[2])
    return int((spread.max(axis=0).astype(int) - spread.min(axis=0)).max(initial=0)) <= 2 * (scale // 255)


def is_one_colour(colours: np.ndarray) -> bool:
    """Whether there is one flat colour in (H, W, 3), and nothing but black beside it."""
    return not _is_grey(colours) and _ColourUse.of(colours).alone


@dataclass(frozen=True)
class _ColourUse:
    """How a mask uses colours.

    Attributes:
        hues: The bands that are on in each clear colour, such as {(2, 0, 0)} for red on black.
        alone: Whether there is just one colour, flat, however pale, and nothing but black beside it.
    """

    hues: frozenset[tuple[int, ...]]
    alone: bool

    @classmethod
    def of(cls, colours: np.ndarray) -> _ColourUse:
        flat = colours.reshape(-1, 3)
        flat = flat[:: max(1, len(flat) // _SAMPLE)].astype(np.float32) / np.iinfo(colours.dtype).max
        top = flat.max(axis=1)
        dark = top <= 0.25 * top.max(initial=0)
        clear = ~dark & (top - flat.min(axis=1) > 0.5 * top)
        shares = flat[clear] / top[clear, None]
        # What lies between on and off is a mixed colour, told apart from those that it mixes.
        steps = np.where(shares > _ON, 2, np.where(shares < _OFF, 0, 1))
        kinds, counts = np.unique(steps, axis=0, return_counts=True)
        # Edges between two colours mix them; a thing takes up more than an edge.
        hues = frozenset(tuple(map(int, k)) for k, n in zip(kinds, counts, strict=True) if n > 0.002 * len(flat))
        others = 1 - dark.mean() - clear.mean()
        even = len(shares) > 0 and float(shares.std(axis=0).max()) < _FLAT
        pale = not hues and bool(dark.any()) and _is_one_pale_colour(flat[~dark])
        return cls(hues, pale or (len(hues) == 1 and bool(dark.any()) and others < 0.02 and even))


def _is_one_pale_colour(rest: np.ndarray) -> bool:
    """Whether what is not black, (n, 3) in 0..1, is one flat colour that is no grey, but for a few pixels at edges."""
    main = np.median(rest, axis=0)
    alike = np.abs(rest - main).max(axis=1) < 0.02
    return bool(np.ptp(main) > 0.1 * main.max() and alike.mean() > 0.9)


def unit(values: np.ndarray, scale: int) -> np.ndarray:
    """Integers of which `scale` is white, as float32 in 0..1."""
    return values.astype(np.float32) / np.float32(scale)
