"""The pack's own socket types, and how schemas show dataclass fields."""

from comfy_api.latest import io

from ..masklora.settings import MaskTransform

MLT_DATASET = io.Custom("MLT_DATASET")
MLT_CACHE = io.Custom("MLT_CACHE")
MLT_LOSS = io.Custom("MLT_LOSS")
MLT_ADAPTER = io.Custom("MLT_ADAPTER")
MLT_OPTIMIZER = io.Custom("MLT_OPTIMIZER")
MLT_SAMPLES = io.Custom("MLT_SAMPLES")

ROOT_CATEGORY = "masked lora"
DATA_CATEGORY = f"{ROOT_CATEGORY}/data"
MASK_CATEGORY = f"{ROOT_CATEGORY}/masks"
TRAIN_CATEGORY = f"{ROOT_CATEGORY}/training"


def choice(name, options, default, tooltip, **extra):
    """A drop-down of a tuple of texts."""
    return io.Combo.Input(name, options=list(options), default=default, tooltip=tooltip, **extra)


def number(settings, name, low, high, tooltip, *, step=0.01):
    """A widget for a float or int field, default from the dataclass, range told by the tooltip."""
    default = getattr(settings, name)
    kind = io.Int if isinstance(default, int) else io.Float
    return kind.Input(name, default=default, min=low, max=high, step=step, tooltip=tooltip)


def switch(settings, name, tooltip):
    """A widget for a bool field."""
    return io.Boolean.Input(name, default=getattr(settings, name), tooltip=tooltip)


def advanced(inputs):
    """The inputs, hidden behind the node's advanced switch; a graph in API form may leave them out."""
    for one in inputs:
        one.advanced = True
        one.optional = True
    return inputs


def transform_inputs():
    """One widget per field of `MaskTransform`, in the order in which the transforms are applied."""
    d = MaskTransform()
    return [
        io.Boolean.Input(
            "invert",
            default=d.invert,
            tooltip="Swap learned and ignored first of all: 1 − mask. White = learn.",
        ),
        io.Boolean.Input(
            "binarize", default=d.binarize, tooltip="Make every pixel 0 or 1: above the threshold is learned."
        ),
        io.Float.Input(
            "threshold",
            default=d.threshold,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Mask value, 0 to 1, above which (not at) a pixel is learned. Used by binarize only.",
        ),
        io.Boolean.Input(
            "fill_holes", default=d.fill_holes, tooltip="Fill holes that the mask encloses completely."
        ),
        io.Int.Input(
            "min_area",
            default=d.min_area,
            min=0,
            max=100_000_000,
            tooltip="Drop connected parts of fewer pixels than this (picture pixels; 0 = keep all).",
        ),
        io.Int.Input(
            "grow",
            default=d.grow,
            min=-512,
            max=512,
            tooltip="Grow the mask by this many picture pixels, round; negative shrinks. −512 to 512.",
        ),
        io.Float.Input(
            "feather",
            default=d.feather,
            min=0.0,
            max=256.0,
            step=0.5,
            tooltip="Soften the edge last of all: Gaussian σ in picture pixels, 0 to 256.",
        ),
    ]
