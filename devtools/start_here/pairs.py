"""Templates of models that edit pictures: a picture to try them on, and how they are given it in the comparison."""

import math

from .layout import ASIDE, GREEN, HEAD, LEFT_GUTTER, MARGIN, YOURS, Column, back, frame
from .models import KSampler
from .ways import TEXTS, spread

# The column for what is tried, left of the training; and in the comparison that of the instructions, left of the ways.
TRY, INSTRUCTIONS = (1660, 360), (930, 380)
# What begins right of these gives way: above, and in the comparison's rows and in the lanes below these.
_BESIDE_MASKS, _BESIDE_TEXTS, _BELOW_TEXTS = 1610, 880, 1200
_GUTTER, _TRY_GUTTER = 890, 2036
# ComfyUI brings it in its input folder.
PICTURE = "example.png"
_NOTICE = 30
_WORDS = "give my subject a hat"


class Tried:
    """(node, output) of the picture that is edited and of the words that say how."""

    def __init__(self, picture, words):
        self.picture, self.words = (picture, "IMAGE"), (words, "STRING")


def draw_to_try(graph, model, parts, train, lanes):
    """A picture and an instruction for the comparison, and for the sample pictures that are drawn with them."""
    graph.make_room(_BESIDE_MASKS, ASIDE)
    column = Column(graph, TRY, HEAD)
    picture = column.add("LoadImage", title="Picture to edit", tall=330, image=PICTURE, colours=YOURS)
    # Nodes 2.0 says below it where that picture is gone.
    column.top += _NOTICE
    words = column.add("PrimitiveStringMultiline", title="Instruction", tall=120, value=_WORDS, colours=YOURS)
    samples = column.add("MLT_Samples", prompts=_WORDS, **_sampling(model.sampling))
    tried = Tried(picture, words)
    back(graph, *tried.picture, samples, "references")
    back(graph, *tried.words, samples, "prompts")
    lane = [(LEFT_GUTTER - 6, lanes.clip), (TRY[0] - 24, lanes.clip)]
    graph.link(*parts.clip, samples, "clip", via=lane)
    graph.link(*parts.vae, samples, "vae", via=[(LEFT_GUTTER + 4, lanes.vae), (TRY[0] - 18, lanes.vae)])
    for name in ("width", "height"):
        graph.link(*parts.size, samples, name, via=[(LEFT_GUTTER, lanes.size), (TRY[0] - 12, lanes.size)])
    graph.link(samples, "samples", train, "samples")
    frame(graph, "4 A picture to edit", TRY, 0, lanes.above, GREEN)
    return tried


def _sampling(chosen):
    """Widgets of the sample pictures that come nearest to how the official graph samples."""
    simple = isinstance(chosen, KSampler)
    steps = chosen.steps if simple else chosen.schedule[1]["steps"]
    scheduler = chosen.scheduler if simple else "simple"
    return {"steps": steps, "cfg": chosen.cfg, "sampler": chosen.sampler, "scheduler": scheduler}


def draw_edit(column, model, parts, tried, ways, lanes):
    """The conditions of an edit without and with the instruction, and what the result begins with."""
    graph, (kind, widgets) = column.graph, model.pair.scale
    scaled = column.add(kind, **widgets)
    graph.link(*tried.picture, scaled, "image", via=[(_TRY_GUTTER, lanes.picture), (TEXTS[0] - 12, lanes.picture)])
    encoded = column.add("VAEEncode")
    back(graph, scaled, "IMAGE", encoded, "pixels")
    graph.link(*parts.vae, encoded, "vae")
    latent = encoded
    if model.latent != "VAEEncode":
        measured = column.add("GetImageSize")
        back(graph, scaled, "IMAGE", measured, "image")
        latent = column.add(model.latent)
        ways.sides = {name: (measured, name) for name in ("width", "height")}
        for name, side in ways.sides.items():
            back(graph, *side, latent, name)
    beside = Column(graph, INSTRUCTIONS, ways.top)
    told = [_told(beside, model, parts, scaled, encoded, words, lanes) for words in (tried.words, None)]
    spread(ways, beside.bottom + MARGIN)
    return told, (latent, "LATENT")


def _told(column, model, parts, scaled, encoded, words, lanes):
    """(node, output) of the condition with these words, or without any, and with the picture."""
    graph, seen = column.graph, model.pair.seen
    kind, widget = ("TextEncodeQwenImageEditPlus", "prompt") if seen else ("CLIPTextEncode", "text")
    text = column.add(kind, title="With the instruction" if words else "Without one", tall=200 if seen else 90)
    graph.link(*parts.clip, text, "clip", via=[(LEFT_GUTTER - 6, lanes.clip), (_GUTTER, lanes.clip)])
    if words:
        graph.link(*words, text, widget, via=[(_TRY_GUTTER + 6, lanes.words), (_GUTTER + 12, lanes.words)])
    if seen:
        graph.link(*parts.vae, text, "vae", via=[(LEFT_GUTTER + 4, lanes.vae), (_GUTTER + 6, lanes.vae)])
        graph.link(scaled, "IMAGE", text, "image1")
    else:
        shown = column.add("ReferenceLatent")
        back(graph, text, "CONDITIONING", shown, "conditioning")
        graph.link(encoded, "LATENT", shown, "latent")
        text = shown
    if model.pair.method:
        placed = column.add("FluxKontextMultiReferenceLatentMethod", reference_latents_method=model.pair.method)
        back(graph, text, "CONDITIONING", placed, "conditioning")
        text = placed
    return text, "CONDITIONING"


def make_room_for_edit(graph, ways, since):
    """Moves what was drawn since then beside the column of the instructions; by how much."""
    graph.make_room(_BESIDE_TEXTS, ASIDE, rows=(-math.inf, ways.end), since=since)
    # Lines from the first column run below all others.
    graph.make_room(_BELOW_TEXTS, ASIDE, rows=(ways.end, math.inf), since=since)
    return ASIDE
