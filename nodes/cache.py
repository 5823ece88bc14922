"""The node that encodes a data set once, for all steps of all runs."""

import dataclasses

from comfy_api.latest import io

from ..masklora.cache.cache import build_cache
from ..masklora.cache.references import infills_references
from ..masklora.findings import note, warning
from ..masklora.goals import decide, told
from ..masklora.host import paths
from ..masklora.host.model.encoders import ClipTextEncoder, VaeEncoder
from ..masklora.host.model.fitting import check_before_encoding, own_rate, reference_rule, wants_cut_outs, wants_starts
from ..masklora.host.page.edits import EDITS
from ..masklora.host.page.progress import NodeProgress
from ..masklora.host.page.telling import tell
from ..masklora.settings import AS_TARGET, BY_MODEL, OWN_SIZE, CacheSettings
from .types import DATA_CATEGORY, MLT_CACHE, MLT_DATASET, advanced, choice, choice_by_goal, number, seed, switch, text

D = CacheSettings()


def infill_inputs(defaults=D):
    """Which backgrounds are put behind what is learned."""
    return [
        choice_by_goal(
            defaults, "infill", "What replaces the background in the infill variants: each kind in turn, or one kind."
        ),
        number(
            defaults,
            "infill_variants",
            "Variants with a replaced background to encode per picture with a mask, 0 (none) to 100. "
            "Masked Loss says how often training sees them.",
        ),
    ]


def clip_inputs():
    """Which frames of a clip are learned."""
    return [
        number(
            D,
            "clip_frames",
            "Clips: largest number of frames that are learned together, 1 to 1025; rounded down to what the VAE takes, "
            "such as 33 or 81. 1 = the first frame of each clip, as a picture.",
        ),
        number(
            D,
            "clip_rate",
            "Clips: frames per second to take, 0 to 240. 0 = the model's own where a model is connected, else every "
            "frame of the clip.",
            step=1.0,
        ),
        choice(
            D,
            "clip_chunking",
            "Clips: which parts are learned. head: the beginning. uniform: clip_chunks parts, evenly spaced. slide: "
            "all of it, part after part. whole: all of it at once, however long.",
        ),
        number(D, "clip_chunks", "Clips, uniform: how many parts, 1 to 1000."),
        number(D, "clip_start", "Clips: seconds to leave out at the beginning.", step=0.1),
        number(D, "clip_end", "Clips: seconds to leave out at the end.", step=0.1),
        choice(
            D,
            "first_frame",
            "Clips: whether the model is given each clip's first frame, which is then not learned. auto: models that "
            "only continue a picture (Wan I2V). always: also those that make clips from text too (Wan 2.2 5B, "
            "LTX-Video, HunyuanVideo 1.5). never: all is learned as from text.",
        ),
    ]


def reference_inputs():
    """What is done with references. Last, because saved workflows know the others by their place."""
    return [
        choice(
            D,
            "reference_size",
            "References: as the target = cut, turned and flipped as the picture to learn is. own size = whole, with "
            "about as many pixels. by model: as the connected MODEL's family knows them; without one, as the target.",
        ),
        choice(
            D,
            "infill_reference",
            "References: whether replaced backgrounds are put behind them too, by the target's mask. Needs references "
            "that are cut as the target.",
        ),
    ]


def too_few(settings, dataset, rule):
    """A finding where clips are learned as pictures although more frames were asked for."""
    moving = any(sample.moving for sample in dataset.samples)
    if moving and not rule.clips and settings.clip_frames > 1:
        return [note("Animated pictures are learned as pictures, their first frames: the VAE is one for pictures.")]
    if not rule.clips or not 1 < settings.clip_frames <= rule.step or not moving:
        return []
    return [
        warning(
            f"clip_frames: {settings.clip_frames} frames are too few for this VAE, so that each clip is learned as a "
            f"picture, its first frame. Set clip_frames to {rule.step + 1} or more, or to 1 if that is meant."
        )
    ]


def with_references(settings, dataset, model):
    """The settings with the size of references settled, how the CLIP is shown them, and what a person should know."""
    if all(not sample.references for sample in dataset.samples):
        return settings, "", []
    rule, found = reference_rule(model), []
    if settings.reference_size == BY_MODEL:
        settings = dataclasses.replace(settings, reference_size=OWN_SIZE if rule.own_size else AS_TARGET)
        told = f"reference_size: {settings.reference_size}, as the model's family knows references."
        if model is None:
            told = (
                "reference_size: as the target, because no MODEL is connected to Cache Dataset. Connect it, so that "
                "references are as its family knows them."
            )
        found.append(note(told))
    if settings.reference_size == OWN_SIZE:
        moved = [name for name in ("rotate", "infill_variants") if getattr(settings, name)]
        if settings.crop != "centre":
            moved.insert(0, "crop")
        if moved:
            found.append(
                note(f"References are whole and at their own size: {', '.join(moved)} changes the target only.")
            )
    if rule.pictures and (unseen := unseen_changes(settings)):
        found.append(
            warning(
                f"{', '.join(unseen)}: the CLIP is shown references as they are, also where the network is given them "
                "changed so. Switch off what captions speak of, such as left and right."
            )
        )
    return settings, rule.pictures, found


def unseen_changes(settings):
    """The widgets that change the references of a network and not those that the CLIP is shown."""
    names = ["flip"]
    if settings.reference_size != OWN_SIZE:
        names.append("rotate")
    if infills_references(settings):
        names.append("infill_variants")
    return [name for name in names if getattr(settings, name)]


def at_rate(settings, dataset, model):
    """The settings with the frame rate of clips settled, and what a person should know of it."""
    if settings.clip_rate > 0 or all(sample.moving is None for sample in dataset.samples):
        return settings, []
    rate, title = (0.0, "") if model is None else own_rate(model)
    if rate > 0:
        told = f"clip_rate: clips are learned at {rate:g} frames per second, as {title} was made for."
        return dataclasses.replace(settings, clip_rate=rate), [note(told)]
    return settings, [
        note(
            "clip_rate: every frame of a clip is taken, at whatever rate it is. Connect the MODEL to Cache Dataset, or "
            "set clip_rate, so that what moves has the speed that the model knows."
        )
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
            *clip_inputs(),
            *reference_inputs(),
        ]

    @classmethod
    def fingerprint_inputs(cls, **_values):
        """Changes when a mask was edited in the page, so that what depends on it is built again."""
        return EDITS.count

    @classmethod
    def execute(cls, dataset, vae, clip=None, model=None, **widgets):
        """Stops at once with a message where a picture, mask, size or the VAE does not fit."""
        widgets, by_goal = decide(dataset.goal, widgets, ("crop", "infill"))
        if not widgets.get("infill_variants", D.infill_variants):
            # Told, it would sound as if backgrounds were replaced.
            by_goal.pop("infill", None)
        progress = NodeProgress()
        encoder = VaeEncoder(vae)
        settings, of_clips = at_rate(CacheSettings(**widgets), dataset, model)
        settings, way, of_references = with_references(settings, dataset, model)
        captions = None if clip is None else ClipTextEncoder(clip, pictures=way)
        starts = wants_starts(model, first_frame=settings.first_frame, clips=encoder.clips)
        encoder.rule = dataclasses.replace(encoder.rule, starts=starts, cut_outs=wants_cut_outs(model))
        cache = build_cache(
            dataset,
            settings,
            encoder=encoder,
            text=captions,
            folder=paths.cache_folder(),
            progress=progress,
            check_cancel=progress.check_cancel,
            fits=lambda entries: (
                None
                if model is None
                else check_before_encoding(model, encoder, captions, entries, first_frame=settings.first_frame)
            ),
        )
        few = too_few(settings, dataset, encoder.rule)
        found = [*cache.findings, *few, *of_clips, *of_references, *map(note, told(dataset.goal, by_goal))]
        if clip is None:
            found.append(warning("No CLIP is connected: the cache holds no captions, and training will ask for them."))
        report = "\n".join([*(finding.text for finding in found), cache.summary()])
        progress.status(report)
        return io.NodeOutput(cache, report, ui=tell([*found, *map(note, cache.summary().splitlines())], text=report))
