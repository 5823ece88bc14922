"""Where everything lies in every template, and the way from pictures to a LoRA: groups 1 to 4.

Nodes stand in columns with gutters between them; what has a longer way runs in a gutter or a lane, behind no node.
"""

from .graph import TITLE

# Left edge and width of a column; its group is 20 wider on each side. The first is as wide as the longest file name.
MODEL, PICTURES, MASKS, TRAIN = (-60, 460), (490, 400), (950, 650), (1660, 650)
MARGIN, HEAD, GAP = 20, 42, 18
LEFT_GUTTER, MIDDLE_GUTTER, RIGHT_GUTTER, OUTSIDE = 440, 920, 1630, 2344
NOTE_BOTTOM = 440
# Of one further column with its gutter.
ASIDE = 440
# Between two lines that run beside each other.
LINE = 13
BLUE, GREEN, OCHRE, PURPLE, ORANGE = "#3f789e", "#8a8", "#b58b2a", "#a1309b", "#b06634"
# How high the page makes the node with the browser, and Nodes 2.0 its element.
BROWSER = 562
# Title and body of what a person decides, and of the note.
YOURS, NOTE = ("#223322", "#335533"), ("#432", "#653")
# Where the references of a folder of pairs lie in it.
BEFORE = "before"
_LOOK = """What is tinted is not learned. **Click** a picture to see it large; there **E** opens the mask editor.

The view *latent grid* shows what the training sees: the weight of every cell."""


_LOOK_AT_PAIRS = """

The view *pair* shows what the model is given, then what it shall make of it. The mask belongs to the second, white \
where the edit is; the first is looked at and never learned."""


class Column:
    """Nodes of one width, one below the other."""

    def __init__(self, graph, place, top):
        self.graph = graph
        self.left, self.width = place
        self.top = top

    @property
    def bottom(self):
        """Where its last node ends."""
        return self.top - GAP

    def add(self, kind, /, **node):
        """A further node, as `Graph.add` makes it."""
        made = self.graph.add(kind, (self.left, self.top), self.width, **node)
        self.top = made.bottom + GAP
        return made


def back(graph, source, output, target, name):
    """A link from a node to the one below it, through the gap between them."""
    y = target.saved["pos"][1] - TITLE - GAP / 2
    graph.link(source, output, target, name, via=[(source.right + 14, y), (target.left - 14, y)])


def frame(graph, title, place, top, bottom, colour):
    """The group around a column."""
    left, width = place
    graph.group(title, (left - MARGIN, top, width + 2 * MARGIN, bottom - top), colour)


class Lanes:
    """The y of the lines that run below the training, and where the comparison begins."""

    def __init__(self, bottom, *, pair):
        self.above = bottom
        self.cache, self.model, self.vae, self.lora = (bottom + LINE * number for number in (1, 2, 3, 4))
        self.clip, self.size, self.picture, self.words = (self.lora + LINE * number for number in (1, 2, 3, 4))
        self.compare = LINE + (self.words if pair else self.lora)


class Parts:
    """What the loaders give: (node, output) for the model, the text encoder and the VAE, and the size of pictures."""

    def __init__(self, model, clip, vae, size, column):
        self.model, self.clip, self.vae, self.size = model, clip, vae, size
        self.column = column
        self.unconditional = None
        self.sound = None


def draw_note(graph, text):
    """The note at the upper left; it is all that has no number."""
    tall = NOTE_BOTTOM - TITLE - MARGIN
    Column(graph, MODEL, 0).add("MarkdownNote", tall=tall, title="How it works", text=text, colours=NOTE)


def draw_model(graph, model, *, resolution=None):
    """The loaders with the official names, and the resolution, that of the official pictures where none is given."""
    column = Column(graph, MODEL, NOTE_BOTTOM + HEAD)
    if model.vae is None:
        loader = column.add("CheckpointLoaderSimple", ckpt_name=model.network.name, models=[model.network])
        network, clip, vae = ((loader, kind) for kind in ("MODEL", "CLIP", "VAE"))
        if model.encoders:
            clip = _draw_encoder_with_checkpoint(column, model), "CLIP"
    else:
        network, clip, vae = _draw_parts(graph, column, model)
    parts = Parts(network, clip, vae, None, column)
    if model.clip and model.clip.sound:
        file = model.network
        parts.sound = column.add("LTXVAudioVAELoader", ckpt_name=file.name, models=[file]), "Audio VAE"
    if getattr(model.sampling, "unconditional", None):
        file = model.sampling.unconditional
        title = "Load Diffusion Model: without text"
        loader = column.add("UNETLoader", title=title, unet_name=file.name, models=[file])
        parts.unconditional = (loader, "MODEL")
    parts.size = (column.add("PrimitiveInt", title="Resolution", value=resolution or model.resolution), "INT")
    return parts


def _draw_parts(graph, column, model):
    loader = column.add("UNETLoader", unet_name=model.network.name, models=[model.network])
    network = (loader, "MODEL")
    if model.shift is not None:
        shifted = column.add(model.shifter, shift=model.shift)
        back(graph, loader, "MODEL", shifted, "model")
        network = (shifted, "MODEL")
    if model.normed:
        normed = column.add("CFGNorm")
        back(graph, *network, normed, "model")
        network = (normed, "patched_model")
    encoder = _draw_encoder(column, model)
    clip = (encoder, "CLIP")
    if model.padding:
        padded = column.add("T5TokenizerOptions")
        back(graph, encoder, "CLIP", padded, "clip")
        clip = (padded, "CLIP")
    vae = column.add("VAELoader", vae_name=model.vae.name, models=[model.vae])
    return network, clip, (vae, "VAE")


def _draw_encoder(column, model):
    names = [file.name for file in model.encoders]
    if len(names) == 1:
        return column.add("CLIPLoader", clip_name=names[0], type=model.kind, models=model.encoders)
    chosen = {f"clip_name{number}": name for number, name in enumerate(names, start=1)}
    return column.add("DualCLIPLoader", **chosen, type=model.kind, models=model.encoders)


def _draw_encoder_with_checkpoint(column, model):
    (encoder,) = model.encoders
    files = {"text_encoder": encoder.name, "ckpt_name": model.network.name}
    return column.add("LTXAVTextEncoderLoader", **files, models=[encoder, model.network])


def draw_training(graph, parts, *, pictures, pair=False):
    """From pictures to training: the training's node, and the lanes below; `pictures` is what the first group holds.

    Of pairs the data set has references, and the training's group is the fifth.
    """
    more = {"reference_folders": BEFORE} if pair else {}
    loaded = Column(graph, PICTURES, HEAD).add("MLT_LoadDataset", folder="my-pictures", colours=YOURS, **more)
    between = loaded.bottom + MARGIN
    cache = Column(graph, PICTURES, between + 3 * LINE + HEAD).add("MLT_CacheDataset")
    bottom = cache.bottom + MARGIN
    lanes = Lanes(bottom, pair=pair)
    look = _draw_look(graph, bottom, more=_LOOK_AT_PAIRS if pair else "")
    tall = bottom - HEAD - TITLE - MARGIN
    train = Column(graph, TRAIN, HEAD).add("MLT_TrainLoRA", tall=tall, colours=YOURS, name="my-lora")
    graph.link(loaded, "dataset", look, "dataset")
    around = [(MIDDLE_GUTTER, between + LINE), (LEFT_GUTTER + 12, between + LINE)]
    graph.link(loaded, "dataset", cache, "dataset", via=around)
    for part, name in ((parts.vae, "vae"), (parts.clip, "clip"), (parts.model, "model"), (parts.size, "resolution")):
        graph.link(*part, cache, name)
    beside = [(LEFT_GUTTER, between + 2 * LINE), (MIDDLE_GUTTER - 12, between + 2 * LINE)]
    graph.link(*parts.size, look, "resolution", via=beside)
    below = [(LEFT_GUTTER, lanes.model), (RIGHT_GUTTER, lanes.model), (RIGHT_GUTTER, 140)]
    graph.link(*parts.model, train, "model", via=below)
    below = [(MIDDLE_GUTTER, lanes.cache), (RIGHT_GUTTER - 14, lanes.cache), (RIGHT_GUTTER - 14, 150)]
    graph.link(cache, "cache", train, "cache", via=below)
    frame(graph, f"1 {pictures}", PICTURES, 0, between, BLUE)
    frame(graph, "2 Check the masks", MASKS, 0, bottom, GREEN)
    frame(graph, "3 Cache", PICTURES, between + 3 * LINE, bottom, OCHRE)
    frame(graph, "5 Train" if pair else "4 Train", TRAIN, 0, bottom, PURPLE)
    return train, lanes


def _draw_look(graph, bottom, *, more):
    column = Column(graph, MASKS, HEAD)
    look = column.add("MLT_InspectDataset", tall=BROWSER)
    room = bottom - column.top - TITLE - MARGIN
    column.add("MarkdownNote", title="What to look for", tall=room, text=_LOOK + more, colours=NOTE)
    return look
