"""The template with masks that follow a clip: cut at key frames, carried with the picture, looked at, and trained."""

from .graph import TITLE, Graph
from .layout import (
    BLUE,
    BROWSER,
    GREEN,
    HEAD,
    LEFT_GUTTER,
    LINE,
    MARGIN,
    MASKS,
    MIDDLE_GUTTER,
    MODEL,
    NOTE,
    NOTE_BOTTOM,
    OCHRE,
    ORANGE,
    PICTURES,
    PURPLE,
    RIGHT_GUTTER,
    TRAIN,
    YOURS,
    Column,
    back,
    draw_model,
    draw_note,
    frame,
)
from .models import MODELS

FOLLOWING = "Masks that follow a clip"
# Trained at a size at which masks and subject are seen well, and that most cards take.
TRAINED, SIDE = "Wan 2.2 5B", 640
# Beside the clips, where they are found the next time and can be corrected.
LAYOUT = "_mask.png"
_NOTE = """# A mask that moves with the clip

**What is green is yours to fill in.**

1. **Your folder**, below ComfyUI's `input`: clips with one subject each that stays in sight.
2. **Where it is** in the first frame: off the margin, or in a box. From there the mask moves as the picture does.
5. **A name for the LoRA**.

`key_frames`, an advanced input of 2, cuts anew at frames such as `0, 40`; the report names frames where it may help.

**Press Run.** Masks are saved beside the clips as `walk_mask.mkv`; those that are there stay."""
_LOOK = """What is tinted is not learned. **Open larger** plays the clip with its masks, frame by frame.

**A mask that slips:** *Edit mask* there. Go to the frame, correct it, track on from it, save, and run again.

Or delete `walk_mask.mkv`, add a number to `key_frames` of 2, and run again."""


def following(info, *, scale):
    """The template as the page saves graphs; `info` is ComfyUI's `/object_info`."""
    graph = Graph(info, FOLLOWING)
    (model,) = (one for one in MODELS if one.title == TRAINED)
    draw_note(graph, _NOTE)
    parts = draw_model(graph, model, resolution=SIDE)
    masks = Column(graph, PICTURES, HEAD)
    load = masks.add("MLT_LoadDataset", folder="my-clips", colours=YOURS)
    between = masks.bottom + MARGIN
    masks.top = between + MARGIN + HEAD
    cut = masks.add("MLT_GrabCutMasks", colours=YOURS)
    save = masks.add("MLT_SaveMasks", layout=LAYOUT)
    bottom = max(masks.bottom + MARGIN, HEAD + 1100)
    look = _draw_look(graph, bottom)
    cache, train, trained = _draw_training(graph, bottom)
    back(graph, load, "dataset", cut, "dataset")
    back(graph, cut, "dataset", save, "dataset")
    graph.link(save, "dataset", look, "dataset")
    _link_all(graph, parts, save, look, cache, train, bottom)
    frame(graph, "1 Clips", PICTURES, 0, between, BLUE)
    frame(graph, "2 Masks that follow", PICTURES, between + MARGIN, bottom, OCHRE)
    frame(graph, "3 Check the masks", MASKS, 0, bottom, GREEN)
    frame(graph, "4 Cache", TRAIN, 0, trained, ORANGE)
    frame(graph, "5 Train", TRAIN, trained + MARGIN, bottom, PURPLE)
    frame(graph, "Model and settings", MODEL, NOTE_BOTTOM, parts.column.bottom + 20, BLUE)
    return graph.as_json(scale=scale, offset=(105 + MARGIN - MODEL[0], 145))


def _draw_look(graph, bottom):
    column = Column(graph, MASKS, HEAD)
    look = column.add("MLT_InspectDataset", tall=BROWSER)
    room = bottom - column.top - TITLE - MARGIN
    column.add("MarkdownNote", title="What to look for", tall=room, text=_LOOK, colours=NOTE)
    return look


def _draw_training(graph, bottom):
    column = Column(graph, TRAIN, HEAD)
    cache = column.add("MLT_CacheDataset")
    between = column.bottom + MARGIN
    column.top = between + MARGIN + HEAD
    tall = bottom - column.top - TITLE - MARGIN
    train = column.add("MLT_TrainLoRA", tall=tall, colours=YOURS, name="my-lora")
    return cache, train, between


def _link_all(graph, parts, save, look, cache, train, bottom):
    """What runs in the lanes below all groups: the parts of the model, and the data set to the cache."""
    far = [(parts.vae, "vae"), (parts.clip, "clip"), (parts.model, "model"), (parts.size, "resolution")]
    for lane, (part, name) in enumerate(far, start=1):
        y, near = bottom + LINE * lane, RIGHT_GUTTER - 6 * lane
        graph.link(*part, cache, name, via=[(LEFT_GUTTER, y), (near, y)])
        if name == "model":
            graph.link(*part, train, name, via=[(LEFT_GUTTER, y), (near, y)])
        if name == "resolution":
            graph.link(*part, look, name, via=[(LEFT_GUTTER, y), (MIDDLE_GUTTER - 12, y)])
    y = bottom + LINE * (len(far) + 1)
    graph.link(save, "dataset", cache, "dataset", via=[(MIDDLE_GUTTER, y), (RIGHT_GUTTER, y)])
    back(graph, cache, "cache", train, "cache")
