"""The node that writes masks and captions back to files."""

from comfy_api.latest import io

from ..masklora.dataset.corrections import find_picture, replace_captions, replace_masks
from ..masklora.errors import ConfigError
from ..masklora.findings import note, warning
from ..masklora.host.outputs import allow_writing, save_folder
from ..masklora.host.page.edits import versions
from ..masklora.host.page.progress import NodeProgress
from ..masklora.host.page.telling import tell
from ..masklora.saving.saving import save_masks
from ..masklora.saving.targets import FOLDER_LAYOUTS, SaveSettings
from .dataset import picture_arrays
from .types import MASK_CATEGORY, MLT_DATASET, advanced, choice, switch

D = SaveSettings()
# How the lines of a report begin, or what they hold, that must not be overlooked.
NOTICES, NO_MASK = "Note: ", " no mask, "


class SaveMasks(io.ComfyNode):
    """Masks and captions written back."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return io.Schema(
            node_id="MLT_SaveMasks",
            display_name="Save Masks (masked LoRA)",
            category=MASK_CATEGORY,
            description="Writes the masks of a dataset to files that load back as the same masks, and captions. "
            "Never touches the pictures.",
            search_aliases=["write masks", "export masks", "mask editor", "save captions"],
            is_input_list=True,
            is_output_node=True,
            inputs=[*cls._visible(), *advanced(cls._advanced())],
            outputs=[
                MLT_DATASET.Output("dataset", tooltip="The same pictures with the written files as masks."),
                io.String.Output("report", tooltip="What was written where, and how to load it back. Plain text."),
            ],
        )

    @staticmethod
    def _visible():
        return [
            MLT_DATASET.Input("dataset", tooltip="Dataset whose masks are written, transforms applied."),
            choice(
                D,
                "layout",
                "mask folder: grey PNGs with the pictures' names below destination. alpha png: copies of the "
                "pictures with the mask as alpha below destination, captions beside them. The others: beside "
                "the pictures, as <name>-masklabel.png or <name>_mask.png. A clip's mask that moves is written as "
                "clip_masks says; alpha png takes no clips.",
            ),
            io.String.Input(
                "destination",
                default="",
                placeholder="folder in ComfyUI's output folder",
                tooltip="Folder for mask folder and alpha png: a name below ComfyUI's output folder, or an "
                "absolute path inside an allowed folder. The other layouts need none.",
            ),
            switch(
                D,
                "overwrite",
                "Replace masks and captions that are there. Off: nothing at all is written if one of them is "
                "there with another content. Pictures are never replaced.",
            ),
            io.String.Input(
                "picture",
                default="",
                placeholder="all pictures",
                tooltip="Name of the only picture to save, as the report shows it; masks then holds its "
                "corrected mask. Empty = all pictures.",
            ),
            io.Boolean.Input(
                "invert_masks",
                default=False,
                tooltip="Swap white and black of the masks input. Load Image's masks are white where the "
                "picture is transparent or painted; here white must mean learn.",
            ),
            io.Mask.Input(
                "masks",
                optional=True,
                tooltip="Masks in 0 to 1 to write instead of the dataset's, at the pictures' aspect: one per "
                "picture in order, or one for the named picture; of clips also one per frame. White = learn.",
            ),
            io.String.Input(
                "captions",
                optional=True,
                force_input=True,
                tooltip="Captions to write instead of the dataset's: one per picture in order, or one for the "
                "named picture. An empty text gives no caption to a picture that has none.",
            ),
        ]

    @staticmethod
    def _advanced():
        return [
            switch(
                D,
                "save_captions",
                "Write the dataset's captions too, as text files beside the pictures. Connected captions and "
                "those of alpha png are always written.",
            ),
            choice(
                D,
                "without_mask",
                "What a picture without a mask gets: no file (alpha png: a copy without alpha), or a white mask.",
            ),
            switch(
                D,
                "keep_edited",
                "Keep masks that were edited by hand in the browser since they were saved, also with overwrite. Off: "
                "they are treated like all others.",
            ),
            choice(
                D,
                "clip_masks",
                "What a clip's mask that moves becomes: one grey clip, .mkv, or a folder of numbered grey pictures, "
                ".frames, in which single frames can be corrected with any paint program.",
            ),
        ]

    @classmethod
    def execute(cls, **lists):
        """Every input arrives as a list; a widget's is of one value."""
        datasets, masks, captions = (_given(lists.pop(name, None)) for name in ("dataset", "masks", "captions"))
        if len(datasets) != 1:
            raise ConfigError(f"dataset: expected one, got {len(datasets)}. Merge them, or save each by itself.")
        values = {name: given[0] for name, given in lists.items() if given}
        dataset, picture, notes = _edited(datasets[0], masks, captions, values)
        names = ("layout", "overwrite", "save_captions", "without_mask", "keep_edited", "clip_masks")
        settings = SaveSettings(**{name: values[name] for name in names if name in values} | _captions_too(captions))
        destination = None
        if settings.layout in FOLDER_LAYOUTS:
            destination = save_folder(values.get("destination", ""))
        elif values.get("destination", "").strip():
            notes.append(f"Note: the layout {settings.layout} writes beside the pictures; destination is not used.")
        saved = _save(dataset, settings, destination, picture)
        text = "\n".join([saved.text, *notes])
        return io.NodeOutput(saved.dataset, text, ui=tell(map(_levelled, text.splitlines())))


def _levelled(line):
    return warning(line) if line.startswith(NOTICES) or NO_MASK in line else note(line)


def _given(values):
    return [value for value in values or [] if value is not None]


def _captions_too(captions):
    return {"save_captions": True} if captions else {}


def _edited(dataset, masks, captions, values):
    """The data set with what other nodes gave, the position of the only picture or None, and notes."""
    name = values.get("picture", "").strip()
    picture = find_picture(dataset, name) if name else None
    invert, notes = values.get("invert_masks", False), []
    if masks:
        arrays = picture_arrays(masks, frame_dims=2)
        dataset = replace_masks(dataset, arrays, picture=picture, invert=invert)
    elif invert:
        notes.append("Note: invert_masks has no effect, because no masks are connected.")
    if captions:
        dataset = replace_captions(dataset, captions, picture=picture)
    return dataset, picture, notes


def _save(dataset, settings, destination, picture):
    """Saves with progress; a stop tells how far it came."""
    progress, reached = NodeProgress(), []

    def follow(done, total, text):
        reached[:] = [f"{done} of {total}"] if text.startswith("saving") else []
        progress(done, total, text)

    try:
        saved = save_masks(
            dataset,
            settings,
            destination=destination,
            allowed=allow_writing,
            picture=picture,
            versions=versions(),
            progress=follow,
            check_cancel=progress.check_cancel,
        )
    except BaseException:
        if reached:
            progress.status(f"Stopped: saved {reached[0]}; the files are whole.")
        raise
    progress.status(saved.text.splitlines()[0])
    return saved
