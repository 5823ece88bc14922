"""Group 5 of models that make clips: an empty clip, and two that are saved, with sound where the network makes it."""

from .layout import GAP, LEFT_GUTTER, MARGIN, TITLE, Column, back
from .ways import (
    DECODER_GUTTER,
    DECODERS,
    NAMES,
    PICTURE_GUTTER,
    SAMPLER_GUTTER,
    SAMPLERS,
    WITH,
    WITHOUT,
    Guided,
)

# Room of a way to a clip with sound, and where in it a node stands that is common to both.
SOUNDING, BELOW_GUIDER = 406, 150
# How official graphs decode long clips piece by piece.
PIECES = {"tile_size": 512, "overlap": 64, "temporal_size": 4096, "temporal_overlap": 8}


def with_rate(column, conditions, rate):
    """The (node, output) of both texts with the frame rate, as networks with sound are told it."""
    told = column.add("LTXVConditioning", frame_rate=rate)
    for (text, output), name in zip(conditions, ("positive", "negative"), strict=True):
        back(column.graph, text, output, told, name)
    return [(told, name) for name in ("positive", "negative")]


def draw_empty_clip(column, model, parts):
    """(node, output) of a clip without anything in it; of one with sound, of both its parts."""
    graph, clip = column.graph, model.clip
    widgets = {"width": clip.size[0], "height": clip.size[1], "length": clip.frames}
    latent = column.add(model.latent, **widgets)
    if "vae" in latent.sockets:
        graph.link(*parts.vae, latent, "vae")
    if not clip.sound:
        return latent, "LATENT"
    # The sound is as long as the clip.
    frames = parts.column.add("PrimitiveInt", title="Frames", value=clip.frames)
    sound = column.add("LTXVEmptyLatentAudio", frames_number=clip.frames, frame_rate=clip.rate)
    graph.link(*parts.sound, sound, "audio_vae")
    graph.link(frames, "INT", latent, "length")
    graph.link(frames, "INT", sound, "frames_number")
    return (latent, "LATENT"), (sound, "Latent")


class Sounding(Guided):
    """Both ways to a clip with its sound."""

    def __init__(self, graph, model, parts, lanes):
        super().__init__(graph, model, parts, lanes)
        self.side = SOUNDING
        self.end = self.top + 2 * self.side
        self.sounds = []

    def prepare(self, column, latent):
        """Draws what is common to both ways; (node, output) of clip and sound together."""
        beside = Column(self.graph, SAMPLERS, self.top + BELOW_GUIDER)
        both = beside.add("LTXVConcatAVLatent")
        for (node, output), name in zip(latent, ("video_latent", "audio_latent"), strict=True):
            self.graph.link(node, output, both, name)
        super().prepare(Column(self.graph, SAMPLERS, self.top + self.side + BELOW_GUIDER), (both, "latent"))
        return both, "latent"

    def decoder(self, number, sampled):
        """The decoder of the clip of the way `number`; that of its sound is kept in `sounds`."""
        graph, column = self.graph, Column(self.graph, DECODERS, sampled[0].bottom + GAP)
        parted = column.add("LTXVSeparateAVLatent")
        back(graph, *sampled, parted, "av_latent")
        sound = column.add("LTXVAudioVAEDecode")
        back(graph, parted, "audio_latent", sound, "samples")
        y = self.lanes.vae + 6
        graph.link(*self.parts.sound, sound, "audio_vae", via=[(LEFT_GUTTER + 8, y), (SAMPLER_GUTTER + 18, y)])
        self.sounds.append(sound)
        decoded = Column(graph, (WITHOUT, WITH)[number], self.top).add("VAEDecodeTiled", **PIECES)
        graph.link(parted, "video_latent", decoded, "samples", via=around(self, number, self.top + 60))
        return decoded


def around(ways, number, y, lane=0):
    """The points by which a link of the second way runs below the first one's clip, up to `y`."""
    low, aside = ways.end - MARGIN + 9 * lane, 7 * lane
    beyond = PICTURE_GUTTER - aside
    return [(DECODER_GUTTER + aside, low), (beyond, low), (beyond, y)] if number else []


def draw_clips(graph, model, parts, sampled, ways, lanes):
    """Decodes and saves both clips; the nodes that save them play them."""
    for number, place in enumerate((WITHOUT, WITH)):
        decoded = ways.decoder(number, sampled[number])
        beside = decoded.left == place[0]
        gutter = SAMPLER_GUTTER + 14 if not beside else (DECODER_GUTTER - 8, PICTURE_GUTTER + 6)[number]
        graph.link(*parts.vae, decoded, "vae", via=[(LEFT_GUTTER + 4, lanes.vae), (gutter, lanes.vae)])
        column = Column(graph, place, decoded.bottom + GAP if beside else ways.top)
        video = column.add("CreateVideo", fps=model.clip.rate)
        if beside:
            back(graph, decoded, "IMAGE", video, "images")
        else:
            graph.link(decoded, "IMAGE", video, "images", via=around(ways, number, ways.top + 60))
        if model.clip.sound:
            via = around(ways, number, video.saved["pos"][1] + 30, 1)
            graph.link(ways.sounds[number], "Audio", video, "audio", via=via)
        tall = ways.end - column.top - TITLE - 2 * MARGIN
        shown = column.add(
            "SaveVideo", title=NAMES[number], tall=tall, filename_prefix=f"video/{NAMES[number]}", codec="auto"
        )
        back(graph, video, "VIDEO", shown, "video")
