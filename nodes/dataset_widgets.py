"""Widgets that every node which makes a data set has, and the settings they stand for."""

from comfy_api.latest import io

from ..masklora.folder.folder_names import tidied
from ..masklora.settings import CAPTION_LINES, CAPTION_POLICIES, FILLS, MISSING_MASK, CaptionSettings, DatasetSettings
from .types import choice, number

SET = DatasetSettings()
CAPTION = CaptionSettings()

# Widget name → field of CaptionSettings.
_CAPTION_WIDGETS = {
    "trigger_word": "trigger",
    "caption_extension": "extension",
    "caption_prefix": "prefix",
    "caption_suffix": "suffix",
    "caption_separator": "separator",
    "shuffle_tags": "shuffle",
    "keep_first_tags": "keep_first",
    "caption_dropout": "dropout",
    "missing_captions": "missing",
    "lines": "lines",
}
_SET_WIDGETS = (
    "folder",
    "subfolders",
    "mask_source",
    "mask_folder",
    "mask_channel",
    "missing_mask",
    "fill",
    "repeats",
    "loss_multiplier",
    "regularisation",
    "together",
    "subjects",
    "folder_repeats",
)


def trigger_input():
    """The trigger word."""
    return io.String.Input(
        "trigger_word",
        default=CAPTION.trigger,
        tooltip="Put before every caption that does not hold it yet. Empty = none. Any length.",
    )


def counting_inputs():
    """Missing mask, fill, repeats and loss multiplier."""
    return [
        choice(
            "missing_mask",
            MISSING_MASK,
            SET.missing_mask,
            "What a picture without a mask means: learned as a whole, left out, or an error.",
        ),
        choice(
            "fill",
            FILLS,
            SET.fill,
            "What replaces the ignored pixels before the VAE sees them, which smears them into edge cells. "
            "keep = nothing; inpaint is slow.",
        ),
        io.Int.Input(
            "repeats",
            default=SET.repeats,
            min=1,
            max=10_000,
            tooltip="How often one epoch shows each picture, 1 to 10000.",
        ),
        io.Float.Input(
            "loss_multiplier",
            default=SET.loss_multiplier,
            min=0.0,
            max=1000.0,
            step=0.05,
            tooltip="Factor on the loss of these pictures, 0 to 1000.",
        ),
    ]


def regularisation_input():
    """Whether these are class pictures."""
    return io.Boolean.Input(
        "regularisation",
        default=SET.regularisation,
        tooltip="These are class pictures: shown beside the others so that the model keeps what it knows.",
    )


def caption_inputs():
    """How captions are put together and varied."""
    return [
        io.String.Input("caption_prefix", default=CAPTION.prefix, tooltip="Text put before every caption."),
        io.String.Input("caption_suffix", default=CAPTION.suffix, tooltip="Text put after every caption."),
        io.String.Input(
            "caption_separator",
            default=CAPTION.separator,
            tooltip="What stands between two tags of a caption.",
        ),
        io.Boolean.Input(
            "shuffle_tags",
            default=CAPTION.shuffle,
            tooltip="Show the tags in random order; the cache keeps as many orders as its variants.",
        ),
        io.Int.Input(
            "keep_first_tags",
            default=CAPTION.keep_first,
            min=0,
            max=10_000,
            tooltip="Number of first tags that shuffling leaves in place, 0 to 10000.",
        ),
        io.Float.Input(
            "caption_dropout",
            default=CAPTION.dropout,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Share of the steps, 0 to 1, that see the empty caption instead.",
        ),
        choice(
            "missing_captions",
            CAPTION_POLICIES,
            CAPTION.missing,
            "What a picture without a caption file gets.",
        ),
    ]


def subject_inputs():
    """How the subjects of pictures with several masks count."""
    return [
        number(
            SET,
            "together",
            0.0,
            1.0,
            "Pictures with masks of several subjects: share of their repeats, 0 to 1, that shows all subjects at "
            "once. The rest shows one subject each.",
            step=0.05,
        ),
        io.String.Input(
            "subjects",
            default=SET.subjects,
            multiline=True,
            placeholder="anna: 2: a photo of anna",
            tooltip="Weights, above 0, of subjects whose masks are named <picture>.<name>.png, one a line: "
            "name: weight, or name: weight: caption. Subjects that are not listed have weight 1.",
        ),
    ]


def folder_inputs():
    """What the names of folders and the lines of caption files mean."""
    return [
        io.Boolean.Input(
            "folder_repeats",
            default=SET.folder_repeats,
            tooltip="A folder named like 10_zib dog shows its pictures 10 times an epoch, times repeats, and "
            "zib dog is the caption of those that have none.",
        ),
        choice(
            "lines",
            CAPTION_LINES,
            CAPTION.lines,
            "What several lines of a caption file are: captions of which each step draws one, tags, or one text. auto: "
            "captions if the lines are sentences, else tags; the report tells.",
        ),
    ]


def dataset_settings(widgets):
    """`DatasetSettings` from the widgets of a node; those that are absent keep their defaults."""
    caption = {field: widgets[name] for name, field in _CAPTION_WIDGETS.items() if name in widgets}
    fields = {name: widgets[name] for name in _SET_WIDGETS if name in widgets}
    return tidied(DatasetSettings(**fields, caption=CaptionSettings(**caption)))
