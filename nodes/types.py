"""The pack's own socket types, and how schemas show dataclass fields."""

from comfy_api.latest import io

from ..masklora.goals import FEATHER_BY_GOAL, goal
from ..masklora.settings import BY_GOAL, GOALS, MaskTransform, about, widgets_of

MLT_DATASET = io.Custom("MLT_DATASET")
MLT_CACHE = io.Custom("MLT_CACHE")
MLT_LOSS = io.Custom("MLT_LOSS")
MLT_ADAPTER = io.Custom("MLT_ADAPTER")
MLT_OPTIMIZER = io.Custom("MLT_OPTIMIZER")
MLT_SAMPLES = io.Custom("MLT_SAMPLES")
MLT_TEXT_ENCODER = io.Custom("MLT_TEXT_ENCODER")

ROOT_CATEGORY = "masked lora"
DATA_CATEGORY = f"{ROOT_CATEGORY}/data"
MASK_CATEGORY = f"{ROOT_CATEGORY}/masks"
TRAIN_CATEGORY = f"{ROOT_CATEGORY}/training"


# Of a drop-down of files: none of them.
NO_FILE = "none"


def drop_down(name, options, default, tooltip):
    """A drop-down of texts that are no choices of a field."""
    return io.Combo.Input(name, options=list(options), default=default, tooltip=tooltip)


def choice(settings, name, tooltip):
    """A drop-down for a field that takes one of some texts."""
    one = about(settings, name)
    return _with_use(one, drop_down(*widgets_of(one), one.metadata["choices"], one.default, tooltip))


def choice_by_goal(settings, name, tooltip):
    """A drop-down for a field that takes one of some texts, which the data set's goal decides unless a person does."""
    one = about(settings, name)
    tooltip = f"{tooltip} {BY_GOAL}: as the goal of Load Dataset has it; with the goal own, {one.default}."
    made = drop_down(*widgets_of(one), (BY_GOAL, *one.metadata["choices"]), BY_GOAL, tooltip)
    made.extra_dict["by_goal"] = {each: getattr(goal(each), name) for each in GOALS}
    return _with_use(one, made)


def number(settings, name, tooltip, **extra):
    """A widget for a float or int field, with its default and its range, which the tooltip tells too.

    `extra` is what the page wants to know besides, or otherwise than the field has it; the step of a float is a
    hundredth unless it is given.
    """
    one = about(settings, name)
    (widget,) = widgets_of(one)
    return _number(one, widget, one.default, {"tooltip": tooltip} | extra)


def numbers(settings, name, tooltips, **extra):
    """A widget for each number of a field that holds several."""
    one = about(settings, name)
    each = zip(widgets_of(one), one.default, tooltips, strict=True)
    return [_number(one, widget, usual, {"tooltip": tooltip} | extra) for widget, usual, tooltip in each]


def _number(one, widget, usual, extra):
    kind, step = (io.Int, {}) if isinstance(usual, int) else (io.Float, {"step": 0.01})
    low, high = one.metadata.get("shown", one.metadata["range"])
    return _with_use(one, kind.Input(widget, **{"default": usual, "min": low, "max": high} | step | extra))


def _with_use(one, made):
    """The input, with the ways in which it comes to have an effect: the page hides it in all others."""
    if used := one.metadata.get("used"):
        made.extra_dict["used_when"] = used
    return made


def seed(settings, tooltip):
    """A widget for a field that decides all chance; it stays as it is between runs."""
    return number(settings, "seed", tooltip, control_after_generate=False)


def switch(settings, name, tooltip):
    """A widget for a bool field."""
    one = about(settings, name)
    return _with_use(one, io.Boolean.Input(*widgets_of(one), default=one.default, tooltip=tooltip))


def text(settings, name, tooltip, **extra):
    """A widget for a text field."""
    one = about(settings, name)
    return io.String.Input(*widgets_of(one), default=one.default, tooltip=tooltip, **extra)


def advanced(inputs):
    """The inputs, hidden behind the node's advanced switch; a graph in API form may leave them out."""
    for one in inputs:
        one.advanced = True
        one.optional = True
    return inputs


def transform_inputs(*, by_goal=False):
    """One widget per field of `MaskTransform`, in the order in which the transforms are applied.

    With `by_goal` the feather is the one that the data set's goal says, unless a person sets it.
    """
    feather, open_feather = "Soften the edge last of all: Gaussian σ in picture pixels, 0 to 256.", {}
    if by_goal:
        feather += " -1: as the goal of Load Dataset has it; 0 with the goal own."
        open_feather = {"default": FEATHER_BY_GOAL, "min": FEATHER_BY_GOAL}
    return [
        switch(MaskTransform, "invert", "Swap learned and ignored first of all: 1 − mask. White = learn."),
        switch(MaskTransform, "binarize", "Make every pixel 0 or 1: above the threshold is learned."),
        number(
            MaskTransform,
            "threshold",
            "Mask value, 0 to 1, above which (not at) a pixel is learned. Used by binarize only.",
        ),
        switch(MaskTransform, "fill_holes", "Fill holes that the mask encloses completely."),
        number(
            MaskTransform,
            "min_area",
            "Drop connected parts of fewer pixels than this (picture pixels; 0 = keep all).",
        ),
        number(
            MaskTransform,
            "grow",
            "Grow the mask by this many picture pixels, round; negative shrinks. −512 to 512.",
        ),
        number(
            MaskTransform,
            "feather",
            feather,
            step=0.5,
            **open_feather,
        ),
    ]
