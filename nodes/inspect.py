"""The node that shows what the masks of a data set do: a browser in the page, a sheet and a report for other nodes."""

import torch
from comfy_api.latest import io

from ..masklora.cache.plan import check_settings
from ..masklora.cache.shots import ClipRule
from ..masklora.goals import decide, loss_by_goal
from ..masklora.host.model.encoders import VaeEncoder
from ..masklora.host.page.edits import EDITS
from ..masklora.host.page.opened import OPENED, OpenedDataset
from ..masklora.host.page.progress import NodeProgress
from ..masklora.host.page.telling import tell
from ..masklora.settings import BY_GOAL, CacheSettings, LossSettings
from ..masklora.viewing.browsing import Lens
from ..masklora.viewing.sheet import INFILL_VIEW, VIEWS, dataset_sheet, infill_sheet
from .cache import infill_inputs
from .types import DATA_CATEGORY, MLT_CACHE, MLT_DATASET, MLT_LOSS, advanced, drop_down, number

USUAL_STRIDE = 8
# What the view infill shows: the cache's usual number where it makes any.
_SHOWN = CacheSettings(infill_variants=3)


class InspectDataset(io.ComfyNode):
    """Browser, overlay sheet and report of a data set."""

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
            hidden=[io.Hidden.unique_id],
            inputs=[
                MLT_DATASET.Input("dataset", tooltip="Dataset to look at; every mask is read once."),
                io.Vae.Input("vae", optional=True, tooltip="Gives the pixels per latent cell; 8 without a VAE."),
                *cls._sockets(),
                number(
                    CacheSettings,
                    "resolution",
                    "Resolution of the training in pixels, which gives crop and latent grid; 0 = pictures as they are.",
                    min=0,
                    step=8,
                ),
                drop_down(
                    "view",
                    (*VIEWS, INFILL_VIEW),
                    VIEWS[0],
                    "What the sheet shows. overlay: what is ignored is tinted. cut-out: what is learned. mask: white = "
                    "learn. latent grid: the weight of each latent cell. infill: the backgrounds that the cache will "
                    "put behind each picture.",
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
                        *infill_inputs(_SHOWN),
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
                io.String.Output(
                    "report",
                    tooltip="Coverage and latent cells per picture as it is trained, and warnings; with cache also "
                    "what Cache Dataset found in its masks.",
                ),
            ],
        )

    @staticmethod
    def _sockets():
        return [
            MLT_CACHE.Input(
                "cache",
                optional=True,
                tooltip="From Cache Dataset, of the same dataset: buckets, crops and backgrounds are then those of the "
                "training, and stale entries are told. It replaces vae and resolution.",
            ),
            MLT_LOSS.Input(
                "loss",
                optional=True,
                tooltip="From Masked Loss: the latent grid then shows its weights, 0 to 1, cell for cell.",
            ),
            io.Model.Input(
                "sam3", optional=True, tooltip="A SAM 3 model: the mask editor can then select things by a click."
            ),
        ]

    @classmethod
    def fingerprint_inputs(cls, **_values):
        """Changes when a mask was edited in the page, and when an opened data set had to make room for others."""
        return EDITS.count, OPENED.forgotten

    @classmethod
    def execute(cls, dataset, resolution, view, max_pictures=24, infill_seed=0, **values):
        """Reads every mask once and the shown pictures once."""
        vae, cache, loss, sam3 = (values.pop(name, None) for name in ("vae", "cache", "loss", "sam3"))
        values, _ = decide(dataset.goal, {"infill_variants": _SHOWN.infill_variants, **values}, ["infill"])
        settings = CacheSettings(resolution=max(resolution, 64), seed=infill_seed, **values)
        check_settings(settings)
        progress = NodeProgress()
        encoder = None if vae is None else VaeEncoder(vae)
        stride, rule = (USUAL_STRIDE, ClipRule()) if encoder is None else (encoder.stride, encoder.rule)
        if cache is not None:
            stride, rule, resolution = cache.stride, cache.encoders.rule, cache.settings.resolution
        opened = OpenedDataset(
            dataset,
            node_id=cls.hidden.unique_id,
            lens=Lens(loss_by_goal(dataset.goal, loss or LossSettings(preset=BY_GOAL)), stride, rule),
            resolution=resolution,
            settings=settings if cache is None else cache.settings,
            cache=cache,
            segmenter=sam3,
        )
        cancel = progress.check_cancel
        # The bar only: what there is to say stands on the node.
        report = opened.measure(lambda done, total, _: progress(done, total), cancel)
        OPENED.add(opened)
        shown = dataset.samples[:max_pictures]
        if view == INFILL_VIEW:
            sheet = infill_sheet(dataset, settings, limit=max_pictures, check_cancel=cancel)
        else:
            stats, geometries = report.pictures[: len(shown)], opened.plan.geometries[: len(shown)]
            sheet = dataset_sheet(shown, stats, view=view, geometries=geometries, check_cancel=cancel)
        image = torch.from_numpy(sheet).float().div_(255)[None]
        report = opened.told()
        text = report.to_text()
        told = tell(report.findings(), text=text)
        return io.NodeOutput(image, text, ui={"masked_lora_dataset": [opened.id]} | told)
