"""Widgets that every node which makes a data set has, and the settings they stand for."""

import dataclasses

from ..masklora.folder.folder_names import tidied
from ..masklora.settings import CaptionSettings, DatasetSettings, widgets_of
from .types import choice, number, switch, text

SET = DatasetSettings()
CAPTION = CaptionSettings()

CAPTION_WIDGETS = {widgets_of(one)[0]: one.name for one in dataclasses.fields(CaptionSettings)}
SET_WIDGETS = {widgets_of(one)[0]: one.name for one in dataclasses.fields(DatasetSettings) if one.name != "caption"}


def trigger_input():
    """The trigger word."""
    return text(CAPTION, "trigger", "Put before every caption that does not hold it yet. Empty = none. Any length.")


def counting_inputs():
    """Missing mask, fill, repeats and loss multiplier."""
    return [
        choice(SET, "missing_mask", "What a picture without a mask means: learned as a whole, left out, or an error."),
        choice(
            SET,
            "fill",
            "What replaces the ignored pixels before the VAE sees them, which smears them into edge cells. "
            "keep = nothing; inpaint is slow.",
        ),
        number(SET, "repeats", "How often one epoch shows each picture, 1 to 10000."),
        number(SET, "loss_multiplier", "Factor on the loss of these pictures, 0 to 1000.", step=0.05, advanced=True),
    ]


def regularisation_input():
    """Whether these are class pictures."""
    return switch(
        SET,
        "regularisation",
        "These are class pictures: shown beside the others so that the model keeps what it knows.",
    )


def caption_inputs():
    """How captions are put together and varied."""
    return [
        text(CAPTION, "prefix", "Text put before every caption."),
        text(CAPTION, "suffix", "Text put after every caption."),
        text(CAPTION, "separator", "What stands between two tags of a caption."),
        switch(CAPTION, "shuffle", "Show the tags in random order; the cache keeps as many orders as its variants."),
        number(CAPTION, "keep_first", "Number of first tags that shuffling leaves in place, 0 to 10000."),
        number(CAPTION, "dropout", "Share of the steps, 0 to 1, that see the empty caption instead."),
        choice(
            CAPTION,
            "missing",
            "What a picture without a caption file gets: with auto the trigger word, "
            "and in a regularisation set nothing.",
        ),
    ]


def subject_inputs():
    """How the subjects of pictures with several masks count."""
    return [
        number(
            SET,
            "together",
            "Pictures with masks of several subjects: share of their repeats, 0 to 1, that shows all subjects at "
            "once. The rest shows one subject each.",
            step=0.05,
        ),
        text(
            SET,
            "subjects",
            "Weights, above 0, of subjects whose masks are named <picture>.<name>.png, one a line: "
            "name: weight, or name: weight: caption. Subjects that are not listed have weight 1.",
            multiline=True,
            placeholder="anna: 2: a photo of anna",
        ),
    ]


def folder_inputs():
    """What the names of folders and the lines of caption files mean."""
    return [
        switch(
            SET,
            "folder_repeats",
            "A folder named like 10_zib dog shows its pictures 10 times an epoch, times repeats, and "
            "zib dog is the caption of those that have none.",
        ),
        choice(
            CAPTION,
            "lines",
            "What several lines of a caption file are: captions of which each step draws one, tags, or one text. auto: "
            "captions if the lines are sentences, else tags; the report tells.",
        ),
    ]


def goal_input():
    """What is to be learned. Last and optional, because saved workflows know the others by their place."""
    one = choice(
        SET,
        "goal",
        "What the LoRA is to learn. Widgets of later nodes that stand at by goal, a rank or steps of 0, and a loss "
        "that nobody set then follow it; each node tells its value. own: nothing is decided for you.",
    )
    one.optional = True
    return one


def reference_inputs():
    """Pictures that the model is given beside the caption. Last, because saved workflows know the others by place."""
    return [
        text(
            SET,
            "reference_folders",
            "Pairs for edit and control models: the folder of the pictures that the model is given beside the caption, "
            "same names as the pictures to learn, any extension. Several references: one folder a line. Looked for as "
            "mask_folder is.",
            multiline=True,
            placeholder="before",
            # Of a set of pairs it is no advanced matter.
            extra_dict={"first_when": [{"reference_folders": {"not": [""]}}]},
        ),
        choice(
            SET,
            "missing_reference",
            "What a picture that lacks a reference means: an error, left out, or learned with what is there.",
        ),
    ]


def dataset_settings(widgets):
    """`DatasetSettings` from the widgets of a node; those that are absent keep their defaults."""
    caption = {name: widgets[widget] for widget, name in CAPTION_WIDGETS.items() if widget in widgets}
    fields = {name: widgets[widget] for widget, name in SET_WIDGETS.items() if widget in widgets}
    return tidied(DatasetSettings(**fields, caption=CaptionSettings(**caption)))
