"""Nodes that make data sets: from a folder, from other nodes' pictures, from several data sets."""

import numpy as np
import torch
from comfy_api.latest import io

from ..masklora.dataset.loading import from_images, load_dataset
from ..masklora.dataset.sample import fit_mask, load_sample, merge
from ..masklora.findings import note
from ..masklora.folder.folder_names import split_folders, tidy
from ..masklora.host import paths
from ..masklora.host.page.progress import NodeProgress
from ..masklora.host.page.telling import tell
from ..masklora.settings import check_range
from .dataset_widgets import (
    CAPTION,
    SET,
    caption_inputs,
    counting_inputs,
    dataset_settings,
    folder_inputs,
    goal_input,
    reference_inputs,
    regularisation_input,
    subject_inputs,
    trigger_input,
)
from .types import DATA_CATEGORY, MLT_DATASET, advanced, choice, switch, text

PREVIEW_IMAGES = 16
PREVIEW_GIGABYTES = 1.0
MERGED = 4


class LoadDataset(io.ComfyNode):
    """A folder as a data set."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return io.Schema(
            node_id="MLT_LoadDataset",
            display_name="Load Dataset (masked LoRA)",
            category=DATA_CATEGORY,
            description="Pictures of a folder with their masks and captions. White in a mask means learn.",
            search_aliases=["training images", "image folder", "masks", "captions"],
            inputs=[*cls._visible(), *advanced(cls._advanced()), goal_input(), *advanced(reference_inputs())],
            outputs=[
                MLT_DATASET.Output("dataset", tooltip="The pictures with masks, captions and how they count."),
                io.Image.Output("images", is_output_list=True, tooltip="The first pictures, each 1×H×W×3 in 0 to 1."),
                io.Mask.Output("masks", is_output_list=True, tooltip="Their masks, each 1×H×W in 0 to 1; 1 = learn."),
                io.String.Output(
                    "captions", is_output_list=True, tooltip="Their captions as read; empty if there is none."
                ),
                io.String.Output("report", tooltip="What was matched, what is missing, and notes. Plain text."),
            ],
        )

    @staticmethod
    def _visible():
        return [
            text(
                SET,
                "folder",
                "Folder of the pictures: a name below ComfyUI's input or datasets folder, or an "
                "absolute path inside an allowed folder.",
                placeholder="folder in ComfyUI's input folder",
            ),
            choice(
                SET,
                "mask_source",
                "Where masks are: a mask folder, files beside the pictures (<name>_mask.png and other usual "
                "names, or a folder masks), the pictures' own alpha, none, or auto: the first of these that "
                "exists, picture by picture.",
            ),
            text(
                SET,
                "mask_folder",
                "Folder of the masks, same names as the pictures, any extension: inside the picture "
                "folder, below the input folder, or absolute. <picture>.<name> is the mask of one of several subjects. "
                "Empty = none.",
            ),
            trigger_input(),
            *counting_inputs(),
        ]

    @staticmethod
    def _advanced():
        return [
            switch(SET, "subfolders", "Also take the pictures in subfolders."),
            choice(SET, "mask_channel", "Which channel of a mask file holds the mask."),
            regularisation_input(),
            text(
                CAPTION,
                "extension",
                "Extension of the caption files, which have the pictures' names. UTF-8. With .txt, "
                "those of other usual extensions and metadata.jsonl are read where a picture has none.",
            ),
            *caption_inputs(),
            io.Int.Input(
                "preview_images",
                default=PREVIEW_IMAGES,
                min=0,
                max=100_000,
                tooltip="How many pictures at most the lists hold, 0 to 100000. The dataset holds all.",
            ),
            io.Float.Input(
                "preview_gigabytes",
                default=PREVIEW_GIGABYTES,
                min=0.0,
                max=1000.0,
                step=0.5,
                tooltip="How much memory at most the lists take, in gigabytes; the first picture always fits.",
            ),
            *subject_inputs(),
            *folder_inputs(),
        ]

    @classmethod
    def fingerprint_inputs(cls, **widgets):
        """Changes with every file in the folders, so that an edited picture is noticed."""
        folder = tidy(str(widgets.get("folder") or ""))
        masks = tidy(str(widgets.get("mask_folder") or ""))
        subfolders = bool(widgets.get("subfolders", SET.subfolders))
        # A mask may be a folder of frames.
        places = {folder: subfolders} | (dict.fromkeys([masks, f"{folder}/{masks}"], True) if masks else {})
        for one in split_folders(str(widgets.get("reference_folders") or "")):
            places |= dict.fromkeys([one, f"{folder}/{one}"], subfolders)
        return [paths.fingerprint(place, subfolders=below) for place, below in places.items() if place.strip()]

    @classmethod
    def execute(cls, **widgets):
        """Match first, then decode only the pictures of the lists."""
        settings = dataset_settings(widgets)
        for name in ("folder", "mask_folder"):
            if getattr(settings, name).strip():
                paths.allow(getattr(settings, name), widget=name)
        for one in split_folders(settings.reference_folders):
            paths.allow(one, widget="reference_folders")
        progress = NodeProgress()
        dataset = load_dataset(settings, allowed=paths.allow, progress=progress, check_cancel=progress.check_cancel)
        count = widgets.get("preview_images", PREVIEW_IMAGES)
        limit = check_range("preview_gigabytes", widgets.get("preview_gigabytes", PREVIEW_GIGABYTES), 0, 1000) * 1e9
        images, masks, captions = _preview_lists(dataset, count, limit, progress)
        report, found = dataset.report.to_text(), list(dataset.report.findings())
        if len(images) < len(dataset):
            held = f"the lists hold the first {len(images)} of {dataset.told}."
            report += f"\nNote: {held}"
            found.append(note(held))
        progress.status(found[0].text)
        return io.NodeOutput(dataset, images, masks, captions, report, ui=tell(found, text=report))


def _preview_lists(dataset, count, limit, progress):
    """The first pictures, masks (1 = learn) and captions as lists of at most `limit` bytes."""
    images, masks, captions, size = [], [], [], 0
    for sample in dataset.samples[:count]:
        progress.check_cancel()
        width, height = sample.size
        size += width * height * 4 * (3 + 1)
        if images and size > limit:
            break
        loaded = load_sample(sample)
        rgb = torch.from_numpy(loaded.rgb.copy()).float().div_(255)
        images.append(rgb[None])
        masks.append(torch.from_numpy(np.ascontiguousarray(fit_mask(loaded.mask, sample.size)))[None])
        captions.append(sample.caption or "")
    return images, masks, captions


class DatasetFromImages(io.ComfyNode):
    """Other nodes' pictures as a data set."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return io.Schema(
            node_id="MLT_DatasetFromImages",
            display_name="Dataset From Images (masked LoRA)",
            category=DATA_CATEGORY,
            description="A dataset of pictures, masks and captions that other nodes hand over.",
            is_input_list=True,
            inputs=[
                io.Image.Input(
                    "images", tooltip="Pictures, single, as a batch or as a list; a fourth channel is alpha."
                ),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip="Masks in 0 to 1: none, one for all, or one per picture, at the picture's aspect.",
                ),
                io.String.Input(
                    "captions",
                    optional=True,
                    force_input=True,
                    tooltip="Captions: none, one for all, or one per picture.",
                ),
                io.Boolean.Input(
                    "invert_masks",
                    default=False,
                    tooltip="Turn on for masks from Load Image, where white means transparent. Here white "
                    "must mean learn.",
                ),
                trigger_input(),
                *counting_inputs()[1:],
                *advanced([counting_inputs()[0], regularisation_input(), *caption_inputs()]),
                *advanced([io.String.Input("name", default="picture", tooltip="Begins the pictures' names.")]),
                goal_input(),
                *advanced(
                    [
                        io.Image.Input(
                            "references",
                            tooltip="Pairs for edit and control models: pictures that the model is given beside the "
                            "captions. None, one for all, or one per picture.",
                        )
                    ]
                ),
            ],
            outputs=[
                MLT_DATASET.Output("dataset", tooltip="The pictures, kept in memory."),
                io.String.Output("report", tooltip="How many pictures have masks and captions. Plain text."),
            ],
        )

    @classmethod
    def execute(cls, **lists):
        """Every input arrives as a list; a widget's is of one value."""
        names = ("images", "masks", "captions", "references")
        pictures, masks, texts, references = (lists.pop(name, None) or [] for name in names)
        widgets = {name: values[0] for name, values in lists.items() if values}
        dataset = from_images(
            picture_arrays(pictures, frame_dims=3),
            picture_arrays(masks, frame_dims=2),
            [text for text in texts if text is not None],
            dataset_settings(widgets),
            name=widgets.get("name", "picture"),
            invert_masks=widgets.get("invert_masks", False),
            references=picture_arrays(references, frame_dims=3),
        )
        return _told(dataset)


def _told(dataset):
    """A data set and its report, which stands on the node too."""
    report = dataset.report.to_text()
    return io.NodeOutput(dataset, report, ui=tell(dataset.report.findings(), text=report))


def picture_arrays(batches, *, frame_dims):
    """One float32 array per picture of a list of batches."""
    out = []
    for batch in batches:
        if batch is not None:
            values = batch.detach().to("cpu", torch.float32)
            out += list((values[None] if values.ndim == frame_dims else values).numpy())
    return out


class MergeDatasets(io.ComfyNode):
    """Several data sets as one."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        sockets = [
            MLT_DATASET.Input(
                f"dataset_{i}",
                optional=i > 2,
                tooltip=f"Dataset number {i}; chain nodes for more than {MERGED}.",
            )
            for i in range(1, MERGED + 1)
        ]
        weights = [
            io.Float.Input(
                f"weight_{i}",
                default=1.0,
                min=0.001,
                max=1000.0,
                step=0.1,
                optional=i > 2,
                tooltip=f"Factor on the repeats of dataset {i}, 0.001 to 1000: 0.5 = every other epoch.",
            )
            for i in range(1, MERGED + 1)
        ]
        return io.Schema(
            node_id="MLT_MergeDatasets",
            display_name="Merge Datasets (masked LoRA)",
            category=DATA_CATEGORY,
            description="One dataset of up to four, each with a weight.",
            inputs=[*sockets, *weights],
            outputs=[
                MLT_DATASET.Output("dataset", tooltip="All pictures, in the order of the inputs."),
                io.String.Output("report", tooltip="The reports of all, as one. Plain text."),
            ],
        )

    @classmethod
    def execute(cls, **inputs):
        """Unplugged data sets are left out together with their weights."""
        used = [i for i in range(1, MERGED + 1) if inputs.get(f"dataset_{i}") is not None]
        datasets = [inputs[f"dataset_{i}"] for i in used]
        merged = merge(datasets, [inputs.get(f"weight_{i}", 1.0) for i in used])
        return _told(merged)
