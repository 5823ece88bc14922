"""Nodes around a model that describes pictures: what it is shown of a data set, and its texts as captions."""

import torch
from comfy_api.latest import io

from ..masklora.dataset.sample import Dataset, told_kinds
from ..masklora.errors import ConfigError
from ..masklora.findings import note, warning
from ..masklora.host.outputs import allow_writing
from ..masklora.host.page.edits import caption_versions, take_captions
from ..masklora.host.page.progress import NodeProgress
from ..masklora.host.page.telling import tell
from ..masklora.saving.given_captions import save_given_captions
from ..masklora.settings import check
from ..masklora.viewing.caption_pictures import CaptionPictures, draw_caption_picture, without_caption
from .types import DATA_CATEGORY, MLT_DATASET, advanced, choice, number, switch

D = CaptionPictures()


class PicturesToCaption(io.ComfyNode):
    """The pictures of a data set for a model that describes them."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return io.Schema(
            node_id="MLT_PicturesToCaption",
            display_name="Pictures to Caption (masked LoRA)",
            category=DATA_CATEGORY,
            description="Pictures of a dataset for a node that describes them, whole or their masked part. "
            "Save Captions writes its texts beside the pictures.",
            search_aliases=["caption", "vlm", "describe", "auto caption", "tagger"],
            inputs=[
                MLT_DATASET.Input("dataset", tooltip="Dataset whose pictures are described."),
                choice(
                    D,
                    "part",
                    "What of each picture is seen: all of it, the box around what the mask learns, or that with "
                    "everything else in grey. Without a mask: all of it.",
                ),
                switch(D, "only_missing", "Only pictures without a caption. Off: all of them."),
                number(
                    D,
                    "most",
                    "How many pictures at most, 1 to 100000. With only_missing, queue again for the next ones.",
                ),
                *advanced([number(D, "side", "Longer side of the pictures in pixels at most, 64 to 4096.")]),
            ],
            outputs=[
                io.Image.Output("images", is_output_list=True, tooltip="The pictures, each 1×H×W×3 in 0 to 1."),
                MLT_DATASET.Output("dataset", tooltip="The same pictures as a dataset, for Save Captions."),
                io.String.Output(
                    "report", tooltip="How many pictures are described, and how many are left. Plain text."
                ),
            ],
        )

    @classmethod
    def execute(cls, dataset, **widgets):
        """Decodes only the pictures that are handed on."""
        settings = check(CaptionPictures(**widgets))
        wanted = [s for s in dataset.samples if not settings.only_missing or without_caption(s)]
        if not wanted:
            raise ConfigError(
                f"only_missing: each of {dataset.told} has a caption: nothing is left to describe. "
                "Turn only_missing off to describe them all anew."
            )
        chosen, progress, images = wanted[: settings.most], NodeProgress(), []
        for done, sample in enumerate(chosen):
            progress.check_cancel()
            progress(done, len(chosen), sample.name)
            rgb = draw_caption_picture(sample, settings)
            images.append(torch.from_numpy(rgb).float().div_(255)[None])
        report = f"{told_kinds(chosen)} to describe, of {len(dataset)}."
        if left := len(wanted) - len(chosen):
            report += f" {left} more are left: queue again when these have their captions, or raise most."
        progress.status(report)
        return io.NodeOutput(images, Dataset(tuple(chosen), dataset.report), report, ui=tell([note(report)]))


class SaveCaptions(io.ComfyNode):
    """Texts written as captions beside the pictures."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return io.Schema(
            node_id="MLT_SaveCaptions",
            display_name="Save Captions (masked LoRA)",
            category=DATA_CATEGORY,
            description="Writes a text for each picture of a dataset into its caption file. Captions that are there "
            "stay, unless you say otherwise.",
            search_aliases=["write captions", "caption", "vlm", "auto caption"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                MLT_DATASET.Input("dataset", tooltip="Dataset whose pictures get the captions."),
                io.String.Input(
                    "captions",
                    force_input=True,
                    tooltip="A text for each picture, in order. Its lines become one; an empty one is not written.",
                ),
                io.Boolean.Input(
                    "replace",
                    default=False,
                    tooltip="Replace captions that are there; the former texts are kept in "
                    "user/masked_lora/previous_captions.",
                ),
            ],
            outputs=[
                MLT_DATASET.Output("dataset", tooltip="The same pictures with their captions as they are now."),
                io.String.Output("report", tooltip="What was written, what stayed, and what could not be. Plain text."),
            ],
        )

    @classmethod
    def execute(cls, dataset, captions, replace):
        """Every input arrives as a list; a widget's is of one value."""
        if len(dataset) != 1:
            raise ConfigError(f"dataset: expected one, got {len(dataset)}. Merge them, or save each by itself.")
        progress = NodeProgress()
        saved = save_given_captions(
            dataset[0],
            captions,
            replace_existing=replace[0],
            allowed=allow_writing,
            versions=caption_versions(),
            progress=progress,
            check_cancel=progress.check_cancel,
        )
        take_captions(saved.edits)
        lines = saved.text.splitlines()
        progress.status(lines[0])
        found = [*map(note, lines), *map(warning, saved.problems)]
        return io.NodeOutput(saved.dataset, "\n".join([saved.text, *saved.problems]), ui=tell(found))
