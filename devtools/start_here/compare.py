"""Group 5: the same seed without and with the LoRA, sampled as the official graph of the model samples."""

from .layout import (
    GAP,
    HEAD,
    LEFT_GUTTER,
    MARGIN,
    ORANGE,
    OUTSIDE,
    PICTURES,
    TITLE,
    TRAIN,
    YOURS,
    Column,
    back,
)
from .models import KSampler

TEXTS, SAMPLERS, DECODERS, WITHOUT, WITH = (490, 380), (930, 300), (1290, 230), (1580, 345), (1965, 345)
TEXT_GUTTER, SAMPLER_GUTTER, DECODER_GUTTER, PICTURE_GUTTER = 900, 1260, 1550, 1945
# Room of one of the two ways to a picture: with one node, with a guider, with a guider and what changes its strength.
SIMPLE, GUIDED, CHANGED = 338, 312, 366
# What lies below both of them, for the links of a guided way.
LANES = 50
NAMES = ("Base model", "With the LoRA")
_PROMPT = "a photo of my subject"


def draw_comparison(graph, model, parts, train, lanes):
    """Prompts, an empty picture, both ways to a picture, and the pictures; where all of it ends."""
    simple = isinstance(model.sampling, KSampler)
    column = Column(graph, TEXTS, lanes.compare + HEAD)
    ways = (_Simple if simple else _Guided)(graph, model, parts, lanes)
    conditions = _draw_texts(column, model, parts, height=190 if simple else 100)
    latent = column.add(model.latent)
    for name in ("width", "height"):
        graph.link(*parts.size, latent, name)
    networks = [
        (*parts.model, [(LEFT_GUTTER, lanes.model), (TEXT_GUTTER, lanes.model)]),
        (train, "model_with_lora", [(OUTSIDE, 140), (OUTSIDE, lanes.lora), (TEXT_GUTTER + 12, lanes.lora)]),
    ]
    ways.prepare(column)
    sampled = [ways.draw(number, network, conditions, latent) for number, network in enumerate(networks)]
    _draw_pictures(graph, parts, sampled, ways, lanes)
    left, right = PICTURES[0] - MARGIN, TRAIN[0] + TRAIN[1] + MARGIN
    bottom = ways.end + (0 if simple else LANES)
    title = "5 Compare: the same seed without and with the LoRA"
    graph.group(title, (left, lanes.compare, right - left, bottom - lanes.compare), ORANGE)
    return bottom


def _draw_texts(column, model, parts, *, height):
    graph = column.graph
    text = column.add("CLIPTextEncode", title="Prompt", height=height, text=_PROMPT, colours=YOURS)
    graph.link(*parts.clip, text, "clip")
    if model.negative:
        negative = column.add("CLIPTextEncode", title="Negative prompt", height=max(90, height - 70))
        graph.link(*parts.clip, negative, "clip")
    else:
        negative = column.add("ConditioningZeroOut")
        back(graph, text, "CONDITIONING", negative, "conditioning")
    return text, negative


class _Simple:
    """Both ways with one sampling node each."""

    def __init__(self, graph, model, parts, lanes):
        self.graph, self.sampling = graph, model.sampling
        self.seed = parts.column.add("PrimitiveInt", title="Seed of both pictures", value=1)
        self.side, self.top = SIMPLE, lanes.compare + HEAD
        self.end = self.top + 2 * self.side

    def prepare(self, column):
        """Nothing is common to both ways but the seed."""

    def draw(self, number, network, conditions, latent):
        """The way `number`: (node, output) of what it paints."""
        graph, chosen = self.graph, self.sampling
        widgets = {"steps": chosen.steps, "cfg": chosen.cfg}
        widgets |= {"sampler_name": chosen.sampler, "scheduler": chosen.scheduler}
        sampler = Column(graph, SAMPLERS, self.top + number * self.side).add("KSampler", title=NAMES[number], **widgets)
        source, output, via = network
        graph.link(source, output, sampler, "model", via=via)
        for text, name in zip(conditions, ("positive", "negative"), strict=True):
            graph.link(text, "CONDITIONING", sampler, name)
        graph.link(latent, "LATENT", sampler, "latent_image")
        below = [(LEFT_GUTTER - 16, self.end - 8), (TEXT_GUTTER - 2, self.end - 8)]
        graph.link(self.seed, "INT", sampler, "seed", via=below)
        return sampler, "LATENT"

    def decoder(self, number, sampled):
        """The decoder of the way `number`, linked to what was sampled."""
        decoded = Column(self.graph, DECODERS, self.top + number * self.side).add("VAEDecode")
        self.graph.link(*sampled, decoded, "samples")
        return decoded


class _Guided:
    """Both ways with a guider and a sampler each; noise, sampler and noise levels are common."""

    def __init__(self, graph, model, parts, lanes):
        self.graph, self.sampling, self.parts, self.lanes = graph, model.sampling, parts, lanes
        self.side, self.top = CHANGED if model.sampling.override else GUIDED, lanes.compare + HEAD
        self.end = self.top + 2 * self.side
        self.common = []

    def prepare(self, column):
        """Draws what is common to both ways."""
        graph, parts = self.graph, self.parts
        noise = parts.column.add("RandomNoise", title="Seed of both pictures", noise_seed=1)
        chosen = parts.column.add("KSamplerSelect", sampler_name=self.sampling.sampler)
        kind, widgets = self.sampling.schedule
        schedule = column.add(kind, **widgets)
        if "model" in schedule.sockets:
            graph.link(*parts.model, schedule, "model")
        else:
            for name in ("width", "height"):
                graph.link(*parts.size, schedule, name)
        self.common = [(noise, "NOISE", "noise"), (chosen, "SAMPLER", "sampler"), (schedule, "SIGMAS", "sigmas")]

    def draw(self, number, network, conditions, latent):
        """The way `number`: (node, output) of what it paints."""
        graph, top = self.graph, self.top + number * self.side
        guider = self._guider(Column(graph, SAMPLERS, top), network, conditions)
        sampler = Column(graph, DECODERS, top).add("SamplerCustomAdvanced", title=NAMES[number])
        graph.link(guider, "GUIDER", sampler, "guider")
        for lane, (source, output, name) in enumerate([*self.common, (latent, "LATENT", "latent_image")]):
            y = self.end + 4 + 11 * lane
            gutter = LEFT_GUTTER if source.left < PICTURES[0] else TEXT_GUTTER
            via = [(gutter - 16 + 6 * lane, y), (SAMPLER_GUTTER - 12 + 8 * lane, y)]
            graph.link(source, output, sampler, name, via=via)
        return sampler, "output"

    def decoder(self, number, sampled):
        """The decoder of the way `number`, linked to what was sampled."""
        decoded = Column(self.graph, DECODERS, sampled[0].bottom + GAP).add("VAEDecode")
        back(self.graph, *sampled, decoded, "samples")
        return decoded

    def _guider(self, column, network, conditions):
        graph, chosen = self.graph, self.sampling
        source, output, via = network
        if chosen.override:
            override = column.add("CFGOverride", **chosen.override)
            graph.link(source, output, override, "model", via=via)
        guider = column.add("DualModelGuider" if chosen.unconditional else "CFGGuider", cfg=chosen.cfg)
        if chosen.override:
            back(graph, override, "MODEL", guider, "model")
        else:
            graph.link(source, output, guider, "model", via=via)
        for text, name in zip(conditions, ("positive", "negative"), strict=True):
            graph.link(text, "CONDITIONING", guider, name)
        if chosen.unconditional:
            y = self.lanes.vae + 6
            lane = [(LEFT_GUTTER + 8, y), (TEXT_GUTTER - 12, y)]
            graph.link(*self.parts.unconditional, guider, "model_negative", via=lane)
        return guider


def _draw_pictures(graph, parts, sampled, ways, lanes):
    decoded = [ways.decoder(number, one) for number, one in enumerate(sampled)]
    for one in decoded:
        graph.link(*parts.vae, one, "vae", via=[(LEFT_GUTTER + 4, lanes.vae), (SAMPLER_GUTTER + 14, lanes.vae)])
    tall = ways.end - ways.top - TITLE - 2 * MARGIN
    base = Column(graph, WITHOUT, ways.top).add("PreviewImage", title=NAMES[0], height=tall)
    lora = Column(graph, WITH, ways.top).add("PreviewImage", title=NAMES[1], height=tall)
    graph.link(decoded[0], "IMAGE", base, "images")
    low = ways.end - MARGIN
    below = [(DECODER_GUTTER, low), (PICTURE_GUTTER, low), (PICTURE_GUTTER, ways.top + 60)]
    graph.link(decoded[1], "IMAGE", lora, "images", via=below)
