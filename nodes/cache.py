"""The node that encodes a data set once, for all steps of all runs."""

from comfy_api.latest import io

from ..masklora.cache.cache import build_cache
from ..masklora.findings import note, warning
from ..masklora.goals import decide, told
from ..masklora.host import paths
from ..masklora.host.model.encoders import ClipTextEncoder, VaeEncoder
from ..masklora.host.model.fitting import check_before_encoding
from ..masklora.host.page.edits import EDITS
from ..masklora.host.page.progress import NodeProgress
from ..masklora.host.page.telling import tell
from ..masklora.settings import CacheSettings
from .types import DATA_CATEGORY, MLT_CACHE, MLT_DATASET, advanced, choice, choice_by_goal, number, seed, switch, text

D = CacheSettings()


def infill_inputs():
    """Which backgrounds are put behind what is learned."""
    return [
        choice_by_goal(
            D, "infill", "What replaces the background in the infill variants: each kind in turn, or one kind."
        ),
        number(
            D,
            "infill_variants",
            "Variants with a replaced background to encode per picture with a mask, 0 (none) to 100. "
            "Masked Loss says how often training sees them.",
        ),
    ]


class CacheDataset(io.ComfyNode):
    """Latents, caption embeddings and masks at the training size."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return io.Schema(
            node_id="MLT_CacheDataset",
            display_name="Cache Dataset (masked LoRA)",
            category=DATA_CATEGORY,
            description="Resizes, crops and encodes pictures, masks and captions once; only what changed is "
            "encoded again.",
            search_aliases=["latents", "buckets", "encode dataset"],
            inputs=[*cls._visible(), *advanced([*cls._advanced(), *cls._model()])],
            outputs=[
                MLT_CACHE.Output("cache", tooltip="Everything that training reads."),
                io.String.Output("report", tooltip="Sizes of the buckets and what was encoded now. Plain text."),
            ],
        )

    @staticmethod
    def _visible():
        return [
            MLT_DATASET.Input("dataset", tooltip="The pictures to train on."),
            io.Vae.Input("vae", tooltip="The VAE of the model to be trained."),
            io.Clip.Input(
                "clip",
                optional=True,
                tooltip="The text encoder of the model to be trained; training needs it.",
            ),
            number(
                D,
                "resolution",
                "Side in pixels, 16 to 8192, of the square whose area the training pictures have at most.",
                step=8,
            ),
            choice_by_goal(
                D,
                "crop",
                "Which part is kept where a picture does not fit its bucket. around mask: the mask's box and a "
                "margin, as large as the picture's own pixels allow. masked crop: the same box at the picture's "
                "usual scale, as a smaller and so cheaper training picture.",
            ),
            switch(D, "flip", "Also train on mirrored pictures. Not for faces, text or logos."),
            number(
                D,
                "batch_size",
                "Pictures per VAE call, 1 to 1024; lower it if memory runs out. Does not change training.",
            ),
            number(
                D,
                "bucket_step",
                "Pixels, 1 to 1024, that the sides of every bucket divide by. Must be a multiple of the "
                "VAE's stride (and of the model's patch: 16 suits all families).",
            ),
        ]

    @staticmethod
    def _advanced():
        return [
            switch(D, "bucketing", "Let pictures keep their aspect; off = crop all to squares."),
            switch(D, "upscale", "Enlarge pictures that are smaller than the resolution."),
            choice(D, "resize", "Filter for shrinking pictures; area is softer than lanczos."),
            number(
                D, "variants", "Random crops, turns, mask shrinks and caption orders to keep per picture, 1 to 1000."
            ),
            choice(D, "storage", "Keep the cache on disk for later runs, or in memory for this one."),
            number(
                D,
                "max_gigabytes",
                "Size in gigabytes above which entries that were not used for longest are deleted. Those used "
                "within the last week stay, also where another dataset used them.",
                step=1.0,
            ),
            seed(D, "Decides random crops, caption orders and backgrounds, 0 to 4294967295."),
            *infill_inputs(),
            number(
                D,
                "crop_margin",
                "crop around mask, masked crop: margin on every side, 0 to 10 times the longer side of the mask's box.",
            ),
            number(
                D,
                "crop_margin_max",
                "crop around mask: above crop_margin, each variant draws its margin between the two.",
            ),
            number(
                D,
                "rotate",
                "Turn each variant at random by up to this many degrees, 0 (off) to 180. Corners beyond the "
                "picture are not learned.",
                step=1.0,
            ),
            number(
                D,
                "mask_shrink",
                "Each variant keeps of its mask a disc around a random point of it, from this share of the "
                "mask's reach up to 1. 1 = off.",
            ),
        ]

    @staticmethod
    def _model():
        # Last, because saved workflows know the others by their place.
        return [
            io.Model.Input(
                "model",
                optional=True,
                tooltip="The model to be trained. With it, a VAE, CLIP or size that it does not take is told before "
                "anything is encoded. It is not loaded.",
            ),
            text(
                D,
                "more_resolutions",
                "Further resolutions at which each picture is trained too, such as 512, 768. Empty: one resolution. "
                "A picture that is too small for one counts at its own size instead.",
            ),
        ]

    @classmethod
    def fingerprint_inputs(cls, **_values):
        """Changes when a mask was edited in the page, so that what depends on it is built again."""
        return EDITS.count

    @classmethod
    def execute(cls, dataset, vae, clip=None, model=None, **widgets):
        """Stops at once with a message where a picture, mask, size or the VAE does not fit."""
        widgets, by_goal = decide(dataset.goal, widgets, ("crop", "infill"))
        progress = NodeProgress()
        encoder, captions = VaeEncoder(vae), None if clip is None else ClipTextEncoder(clip)
        cache = build_cache(
            dataset,
            CacheSettings(**widgets),
            encoder=encoder,
            text=captions,
            folder=paths.cache_folder(),
            progress=progress,
            check_cancel=progress.check_cancel,
            fits=lambda entries: None if model is None else check_before_encoding(model, encoder, captions, entries),
        )
        found = [*cache.findings, *map(note, told(dataset.goal, by_goal))]
        if clip is None:
            found.append(warning("No CLIP is connected: the cache holds no captions, and training will ask for them."))
        report = "\n".join([*(finding.text for finding in found), cache.summary()])
        progress.status(report)
        return io.NodeOutput(cache, report, ui=tell([*found, *map(note, cache.summary().splitlines())], text=report))
