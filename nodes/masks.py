"""Nodes that transform masks: those of a whole data set, or one MASK socket."""

import torch
from comfy_api.latest import io

from ..masklora.findings import note
from ..masklora.goals import decide, told
from ..masklora.host.page.progress import NodeProgress
from ..masklora.host.page.telling import tell
from ..masklora.loss.masks import transform_mask
from ..masklora.settings import MaskTransform, check
from .types import MASK_CATEGORY, MLT_DATASET, advanced, number, transform_inputs


def frame_inputs():
    """What is done to the masks of a clip along time."""
    return advanced(
        [
            number(
                MaskTransform(),
                "frame_union",
                "Clips, masks that flicker: each frame keeps what the masks of so many frames before and after it "
                "keep, 0 (off) to 64.",
            ),
            number(
                MaskTransform(),
                "frame_feather",
                "Clips: blend each frame's mask with those around it, by a Gaussian of so many frames, 0 (off) to 32.",
                step=0.5,
            ),
        ]
    )


class TransformMasks(io.ComfyNode):
    """Mask transforms on a data set."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return io.Schema(
            node_id="MLT_TransformMasks",
            display_name="Transform Masks (masked LoRA)",
            category=MASK_CATEGORY,
            description="Invert, binarize, fill, clean, grow and feather every mask of a dataset, in this order.",
            inputs=[
                MLT_DATASET.Input("dataset", tooltip="Dataset whose masks are transformed when they are read."),
                *transform_inputs(by_goal=True),
                *frame_inputs(),
            ],
            outputs=[
                MLT_DATASET.Output("dataset", tooltip="The same pictures with transformed masks; no file changes.")
            ],
        )

    @classmethod
    def execute(cls, dataset, **widgets):
        """Nothing is read: the transforms are applied with each mask."""
        widgets, by_goal = decide(dataset.goal, widgets, ["feather"])
        transformed = dataset.with_transform(check(MaskTransform(**widgets)))
        return io.NodeOutput(transformed, ui=tell(map(note, told(dataset.goal, by_goal))))


class RefineMask(io.ComfyNode):
    """Mask transforms on a MASK."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return io.Schema(
            node_id="MLT_RefineMask",
            display_name="Refine Mask (masked LoRA)",
            category=MASK_CATEGORY,
            description="Invert, binarize, fill, clean, grow and feather masks of any node, in this order.",
            inputs=[
                io.Mask.Input("mask", tooltip="Masks, B×H×W in 0 to 1. White = learn."),
                *transform_inputs(),
            ],
            outputs=[io.Mask.Output("mask", tooltip="The transformed masks, B×H×W in 0 to 1.")],
        )

    @classmethod
    def execute(cls, mask, **widgets):
        """Lengths are pixels of the mask."""
        settings = check(MaskTransform(**widgets))
        progress = NodeProgress()
        batch = mask.detach().to("cpu", torch.float32).clamp(0, 1)
        out = []
        for i, one in enumerate(batch[None] if batch.ndim == 2 else batch):
            progress.check_cancel()
            out.append(torch.from_numpy(transform_mask(one.numpy(), settings)))
            progress(i + 1, batch.shape[0])
        return io.NodeOutput(torch.stack(out))
