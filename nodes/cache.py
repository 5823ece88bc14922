"""The node that encodes a data set once, for all steps of all runs."""

from comfy_api.latest import io

from ..masklora.config import CROPS, CacheSettings
from ..masklora.data.cache import build_cache
from ..masklora.data.weight_check import require_weight
from ..masklora.host import paths
from ..masklora.host.encode import ClipTextEncoder, VaeEncoder
from ..masklora.host.progress import NodeProgress
from .types import DATA_CATEGORY, MLT_CACHE, MLT_DATASET, advanced, choice

D = CacheSettings()
RESIZES = ("lanczos", "area")
STORAGES = ("disk", "memory")


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
            inputs=[*cls._visible(), *advanced(cls._advanced())],
            outputs=[
                MLT_CACHE.Output("cache", tooltip="Everything that training reads."),
                io.String.Output(
                    "report", tooltip="Sizes of the buckets and what was encoded now. Plain text."
                ),
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
            io.Int.Input(
                "resolution",
                default=D.resolution,
                min=16,
                max=8192,
                step=8,
                tooltip="Side in pixels, 16 to 8192, of the square whose area the training pictures have "
                "at most.",
            ),
            choice("crop", CROPS, D.crop, "Which part is kept where a picture does not fit its bucket."),
            io.Boolean.Input(
                "flip",
                default=D.flip,
                tooltip="Also train on mirrored pictures. Not for faces, text or logos.",
            ),
            io.Int.Input(
                "batch_size",
                default=D.batch_size,
                min=1,
                max=1024,
                tooltip="Pictures per VAE call, 1 to 1024; lower it if memory runs out. Does not change "
                "training.",
            ),
            io.Int.Input(
                "bucket_step",
                default=D.bucket_step,
                min=1,
                max=1024,
                tooltip="Pixels, 1 to 1024, that the sides of every bucket divide by. Must be a multiple "
                "of the "
                "VAE's stride (and of the model's patch: 16 suits all families).",
            ),
        ]

    @staticmethod
    def _advanced():
        return [
            io.Boolean.Input(
                "bucketing",
                default=D.bucketing,
                tooltip="Let pictures keep their aspect; off = crop all to squares.",
            ),
            io.Boolean.Input(
                "upscale", default=D.upscale, tooltip="Enlarge pictures that are smaller than the resolution."
            ),
            choice(
                "resize", RESIZES, D.resize, "Filter for shrinking pictures; area is softer than lanczos."
            ),
            io.Int.Input(
                "variants",
                default=D.variants,
                min=1,
                max=1000,
                tooltip="Random crops and caption orders to keep per picture, 1 to 1000.",
            ),
            choice(
                "storage",
                STORAGES,
                D.storage,
                "Keep the cache on disk for later runs, or in memory for this one.",
            ),
            io.Float.Input(
                "max_gigabytes",
                default=D.max_gigabytes,
                min=0.0,
                max=1_000_000.0,
                step=1.0,
                tooltip="Size in gigabytes above which entries that were not used for longest are deleted.",
            ),
            io.Int.Input(
                "seed",
                default=D.seed,
                control_after_generate=False,
                min=0,
                max=0xFFFFFFFF,
                tooltip="Decides random crops and caption orders, 0 to 4294967295.",
            ),
        ]

    @classmethod
    def execute(cls, dataset, vae, clip=None, **widgets):
        """Stops at once with a message where a picture, mask or the VAE does not fit."""
        progress = NodeProgress()
        cache = build_cache(
            dataset,
            CacheSettings(**widgets),
            encoder=VaeEncoder(vae),
            text=None if clip is None else ClipTextEncoder(clip),
            folder=paths.cache_folder(),
            progress=progress,
            check_cancel=progress.check_cancel,
        )
        require_weight(cache)
        report = cache.summary()
        if clip is None:
            report += "\nNo CLIP is connected: the cache holds no captions, and training will ask for them."
        progress.status(report)
        return io.NodeOutput(cache, report)
