"""The node that shows what the masks of a data set do, before anything is trained."""

import torch
from comfy_api.latest import io, ui

from ..masklora.config import CacheSettings
from ..masklora.data.inspection import inspect
from ..masklora.data.plan import check_settings
from ..masklora.data.tiles import INFILL_VIEW, VIEWS, dataset_sheet, infill_sheet
from ..masklora.host.encode import VaeEncoder
from ..masklora.host.progress import NodeProgress
from .cache import infill_inputs
from .types import DATA_CATEGORY, MLT_DATASET, advanced, choice

USUAL_STRIDE = 8


class InspectDataset(io.ComfyNode):
    """Overlay sheet and report of a data set."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return io.Schema(
            node_id="MLT_InspectDataset",
            display_name="Inspect Dataset (masked LoRA)",
            category=DATA_CATEGORY,
            description="Shows what is learned of each picture and warns of masks that look wrong.",
            search_aliases=["mask preview", "mask overlay", "coverage"],
            is_output_node=True,
            inputs=[
                MLT_DATASET.Input("dataset", tooltip="Dataset to look at; every mask is read once."),
                io.Vae.Input(
                    "vae", optional=True, tooltip="Gives the pixels per latent cell; 8 without a VAE."
                ),
                io.Int.Input(
                    "resolution",
                    default=CacheSettings().resolution,
                    min=0,
                    max=8192,
                    step=8,
                    tooltip="Resolution of the training in pixels, for the latent grid; 0 = pictures as "
                    "they are.",
                ),
                choice(
                    "view",
                    (*VIEWS, INFILL_VIEW),
                    VIEWS[0],
                    "overlay: what is ignored is red. cut-out: what is learned. mask: white = learn. latent "
                    "grid: the weight of each latent cell. infill: the backgrounds that the cache will put "
                    "behind each picture.",
                ),
                *advanced(
                    [
                        io.Int.Input(
                            "max_pictures",
                            default=24,
                            min=1,
                            max=400,
                            tooltip="Pictures on the sheet at most, 1 to 400. The report is about all.",
                        ),
                        *infill_inputs(),
                        io.Int.Input(
                            "infill_seed",
                            default=CacheSettings().seed,
                            control_after_generate=False,
                            min=0,
                            max=0xFFFFFFFF,
                            tooltip="Seed of Cache Dataset, whose backgrounds the view infill shows.",
                        ),
                    ]
                ),
            ],
            outputs=[
                io.Image.Output("sheet", tooltip="The sheet, 1×H×W×3 in 0 to 1."),
                io.String.Output("report", tooltip="Coverage and latent cells per picture, and warnings."),
            ],
        )

    @classmethod
    def execute(cls, dataset, resolution, view, vae=None, max_pictures=24, infill_seed=0, **infill):
        """Reads every mask once and the shown pictures once."""
        settings = CacheSettings(resolution=max(resolution, 64), seed=infill_seed, **infill)
        check_settings(settings)
        progress = NodeProgress()
        stride = USUAL_STRIDE if vae is None else VaeEncoder(vae).stride
        report = inspect(dataset, stride, progress, progress.check_cancel, resolution=resolution)
        shown = dataset.samples[:max_pictures]
        cancel = progress.check_cancel
        if view == INFILL_VIEW:
            sheet = infill_sheet(dataset, settings, limit=max_pictures, check_cancel=cancel)
        else:
            sheet = dataset_sheet(shown, report.pictures[: len(shown)], view=view, check_cancel=cancel)
        image = torch.from_numpy(sheet).float().div_(255)[None]
        text = report.to_text()
        progress.status(text.splitlines()[0])
        shown_to_user = ui.PreviewImage(image, cls=cls).as_dict() | ui.PreviewText(text).as_dict()
        return io.NodeOutput(image, text, ui=shown_to_user)
