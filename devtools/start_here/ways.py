"""The two ways to a picture in group 5, sampled as the official graph of the model samples: their nodes and links."""

import math

from .layout import GAP, HEAD, LEFT_GUTTER, PICTURES, Column, back

TEXTS, SAMPLERS, DECODERS, WITHOUT, WITH = (490, 380), (930, 300), (1290, 230), (1580, 345), (1965, 345)
TEXT_GUTTER, SAMPLER_GUTTER, DECODER_GUTTER, PICTURE_GUTTER = 900, 1260, 1550, 1945
# Room of one of the two ways to a picture: with one node, with a guider, with a guider and what changes its strength.
SIMPLE, GUIDED, CHANGED = 338, 312, 366
# What lies below both of them, for the links of a guided way.
LANES = 50
NAMES = ("Base model", "With the LoRA")


def kind_of(model):
    """What a model makes, in words."""
    return "clips" if model.clip else "pictures"


def spread(ways, bottom):
    """Makes both ways as high as what lies beside them, down to `bottom`."""
    ways.side = max(ways.side, math.ceil((bottom - ways.top) / 2))
    ways.end = ways.top + 2 * ways.side


class Simple:
    """Both ways with one sampling node each."""

    def __init__(self, graph, model, parts, lanes):
        self.graph, self.sampling = graph, model.sampling
        self.seed = parts.column.add("PrimitiveInt", title=f"Seed of both {kind_of(model)}", value=1)
        self.side, self.top = SIMPLE, lanes.compare + HEAD
        self.end = self.top + 2 * self.side

    def prepare(self, column, latent):
        """Nothing more is common to both ways; `latent` is the (node, output) of an empty one, which is returned."""
        return latent

    def draw(self, number, network, conditions, latent):
        """The way `number`: (node, output) of what it paints."""
        graph, chosen = self.graph, self.sampling
        widgets = {"steps": chosen.steps, "cfg": chosen.cfg}
        widgets |= {"sampler_name": chosen.sampler, "scheduler": chosen.scheduler}
        sampler = Column(graph, SAMPLERS, self.top + number * self.side).add("KSampler", title=NAMES[number], **widgets)
        source, output, via = network
        graph.link(source, output, sampler, "model", via=via)
        for text, name in zip(conditions, ("positive", "negative"), strict=True):
            graph.link(*text, sampler, name)
        graph.link(*latent, sampler, "latent_image")
        below = [(LEFT_GUTTER - 16, self.end - 8), (TEXT_GUTTER - 2, self.end - 8)]
        graph.link(self.seed, "INT", sampler, "seed", via=below)
        return sampler, "LATENT"

    def decoder(self, number, sampled):
        """The decoder of the way `number`, linked to what was sampled."""
        decoded = Column(self.graph, DECODERS, self.top + number * self.side).add("VAEDecode")
        self.graph.link(*sampled, decoded, "samples")
        return decoded


class Guided:
    """Both ways with a guider and a sampler each; noise, sampler and noise levels are common."""

    def __init__(self, graph, model, parts, lanes):
        self.graph, self.sampling, self.parts, self.lanes = graph, model.sampling, parts, lanes
        self.side, self.top = CHANGED if model.sampling.override else GUIDED, lanes.compare + HEAD
        self.end = self.top + 2 * self.side
        self.made = kind_of(model)
        self.common = []
        # (node, output) of the sides of what is made.
        self.sides = {"width": parts.size, "height": parts.size}

    def prepare(self, column, latent):
        """Draws what is common to both ways; (node, output) of the latent that both begin with."""
        graph, parts = self.graph, self.parts
        noise = parts.column.add("RandomNoise", title=f"Seed of both {self.made}", noise_seed=1)
        chosen = parts.column.add("KSamplerSelect", sampler_name=self.sampling.sampler)
        kind, widgets = self.sampling.schedule
        schedule = column.add(kind, **widgets)
        if "model" in schedule.sockets:
            graph.link(*parts.model, schedule, "model")
        elif "latent" in schedule.sockets:
            back(graph, *latent, schedule, "latent")
        else:
            for name, side in self.sides.items():
                graph.link(*side, schedule, name)
        self.common = [(noise, "NOISE", "noise"), (chosen, "SAMPLER", "sampler"), (schedule, "SIGMAS", "sigmas")]
        return latent

    def draw(self, number, network, conditions, latent):
        """The way `number`: (node, output) of what it paints."""
        graph, top = self.graph, self.top + number * self.side
        guider = self._guider(Column(graph, SAMPLERS, top), network, conditions)
        sampler = Column(graph, DECODERS, top).add("SamplerCustomAdvanced", title=NAMES[number])
        graph.link(guider, "GUIDER", sampler, "guider")
        for lane, (source, output, name) in enumerate([*self.common, (*latent, "latent_image")]):
            y = self.end + 4 + 11 * lane
            gutter = LEFT_GUTTER if source.left < PICTURES[0] else TEXT_GUTTER
            via = [(gutter - 16 + 6 * lane, y), (SAMPLER_GUTTER - 12 + 8 * lane, y)]
            graph.link(source, output, sampler, name, via=() if source.left == SAMPLERS[0] else via)
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
            graph.link(*text, guider, name)
        if chosen.unconditional:
            y = self.lanes.vae + 6
            lane = [(LEFT_GUTTER + 8, y), (TEXT_GUTTER - 12, y)]
            graph.link(*self.parts.unconditional, guider, "model_negative", via=lane)
        return guider
