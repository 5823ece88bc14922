"""Group 5: the same seed without and with the LoRA, sampled as the official graph of the model samples."""

from .clips import Sounding, draw_clips, draw_empty_clip, with_rate
from .layout import HEAD, LEFT_GUTTER, MARGIN, ORANGE, OUTSIDE, PICTURES, TITLE, TRAIN, YOURS, Column, back
from .models import KSampler
from .pairs import draw_edit, make_room_for_edit
from .ways import (
    DECODER_GUTTER,
    LANES,
    NAMES,
    PICTURE_GUTTER,
    SAMPLER_GUTTER,
    TEXT_GUTTER,
    TEXTS,
    WITH,
    WITHOUT,
    Guided,
    Simple,
    spread,
)

_PICTURE, _CLIP = "a photo of my subject", "my subject walks through a park"


def draw_comparison(graph, model, parts, train, lanes, *, tried=None):
    """Prompts, an empty picture, both ways to a picture, and the pictures; where all of it ends.

    `tried` is what a model that edits pictures is tried on.
    """
    simple, sounds = isinstance(model.sampling, KSampler), bool(model.clip and model.clip.sound)
    column = Column(graph, TEXTS, lanes.compare + HEAD)
    ways = (Simple if simple else Sounding if sounds else Guided)(graph, model, parts, lanes)
    if model.pair:
        conditions, empty = draw_edit(column, model, parts, tried, ways, lanes)
    else:
        conditions = _draw_texts(column, model, parts, height=190 if simple else 100)
        if sounds:
            conditions = with_rate(column, conditions, model.clip.rate)
        empty = draw_empty_clip(column, model, parts) if model.clip else _draw_empty_picture(column, model, parts)
    since = graph.mark()
    latent = ways.prepare(column, empty)
    if model.pair:
        spread(ways, column.bottom + MARGIN)
    networks = [
        (*parts.model, [(LEFT_GUTTER, lanes.model), (TEXT_GUTTER, lanes.model)]),
        (train, "model_with_lora", [(OUTSIDE, 140), (OUTSIDE, lanes.lora), (TEXT_GUTTER + 12, lanes.lora)]),
    ]
    sampled = [ways.draw(number, network, conditions, latent) for number, network in enumerate(networks)]
    (draw_clips if model.clip else _draw_pictures)(graph, model, parts, sampled, ways, lanes)
    left, right = PICTURES[0] - MARGIN, TRAIN[0] + TRAIN[1] + MARGIN
    if model.pair:
        right += make_room_for_edit(graph, ways, since)
    bottom = ways.end + (0 if simple else LANES)
    # Links run down beyond it.
    title = f"{6 if model.pair else 5} Compare without and with the LoRA"
    graph.group(title, (left, lanes.compare, right - left, bottom - lanes.compare), ORANGE)
    return bottom


def _draw_texts(column, model, parts, *, height):
    graph = column.graph
    words = _CLIP if model.clip else _PICTURE
    text = column.add("CLIPTextEncode", title="Prompt", tall=height, text=words, colours=YOURS)
    graph.link(*parts.clip, text, "clip")
    if model.negative:
        negative = column.add("CLIPTextEncode", title="Negative prompt", tall=max(90, height - 70))
        graph.link(*parts.clip, negative, "clip")
    else:
        negative = column.add("ConditioningZeroOut")
        back(graph, text, "CONDITIONING", negative, "conditioning")
    return [(one, "CONDITIONING") for one in (text, negative)]


def _draw_empty_picture(column, model, parts):
    latent = column.add(model.latent)
    for name in ("width", "height"):
        column.graph.link(*parts.size, latent, name)
    return latent, "LATENT"


def _draw_pictures(graph, model, parts, sampled, ways, lanes):
    decoded = [ways.decoder(number, one) for number, one in enumerate(sampled)]
    for one in decoded:
        graph.link(*parts.vae, one, "vae", via=[(LEFT_GUTTER + 4, lanes.vae), (SAMPLER_GUTTER + 14, lanes.vae)])
    tall = ways.end - ways.top - TITLE - 2 * MARGIN
    base = Column(graph, WITHOUT, ways.top).add("PreviewImage", title=NAMES[0], tall=tall)
    lora = Column(graph, WITH, ways.top).add("PreviewImage", title=NAMES[1], tall=tall)
    graph.link(decoded[0], "IMAGE", base, "images")
    low = ways.end - MARGIN
    below = [(DECODER_GUTTER, low), (PICTURE_GUTTER, low), (PICTURE_GUTTER, ways.top + 60)]
    graph.link(decoded[1], "IMAGE", lora, "images", via=below)
