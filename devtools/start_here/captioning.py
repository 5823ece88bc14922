"""The template that writes captions: pictures of a folder, a model of ComfyUI's that describes them, and the check."""

from .graph import TITLE, Graph
from .layout import BLUE, BROWSER, GREEN, HEAD, MARGIN, NOTE, OCHRE, PURPLE, YOURS, Column, back, frame
from .models import File

CAPTIONING = "Caption pictures - Qwen3-VL"
# As ComfyUI's own template of that model has it: the file, and what its loader is told that it is for.
OFFICIAL = "llm_qwen3vl_text_gen"
DESCRIBER = File(
    "text_encoders",
    "https://huggingface.co/Comfy-Org/Qwen3-VL/resolve/main/text_encoders/qwen3vl_4b_fp8_scaled.safetensors",
)
KIND = "ideogram4"
# Of two lines: there are frontends that show no more of it, whatever the height of the node.
PROMPT = (
    "Describe this picture in one or two plain sentences: subject, action, clothes, place, light, view. "
    "No guesses or names. Only the description."
)
LONGEST = 256
_LEFT, _MIDDLE, _RIGHT = (20, 400), (490, 560), (1120, 650)
_NOTE_HEIGHT = 330
_NOTE = """# Captions for your pictures

**What is green is yours to fill in.**

1. **Your folder**, below ComfyUI's `input`.
2. **What to write**: sentences or tags, in your words. *part* shows the model all of a picture, or its masked part.
3. **Press Run.** Each text is saved beside its picture; captions that are there stay.

At most 100 pictures a run: queue again for the next ones, until nothing is left."""
_LOOK = """**Click** a picture, then **C** to write its caption, **T** for the tags of all and changes to many at once.

*replace* of Save Captions writes over captions that are there; the former texts are kept."""


def captioning(info, *, scale):
    """The template as the page saves graphs; `info` is ComfyUI's `/object_info`."""
    graph = Graph(info, CAPTIONING)
    left, middle, right = Column(graph, _LEFT, 0), Column(graph, _MIDDLE, HEAD), Column(graph, _RIGHT, HEAD)
    left.add("MarkdownNote", tall=_NOTE_HEIGHT, title="How it works", text=_NOTE, colours=NOTE)
    top = left.bottom + MARGIN
    left.top = top + HEAD
    load = left.add("MLT_LoadDataset", folder="my-pictures", colours=YOURS)
    between = left.bottom + MARGIN
    left.top = between + MARGIN + HEAD
    model = left.add("CLIPLoader", clip_name=DESCRIBER.name, type=KIND, models=[DESCRIBER])
    pictures = middle.add("MLT_PicturesToCaption")
    words = {"prompt": PROMPT, "max_length": LONGEST, "sampling_mode": "off"}
    text = middle.add("TextGenerate", tall=420, colours=YOURS, **words)
    save = right.add("MLT_SaveCaptions")
    look = right.add("MLT_InspectDataset", tall=BROWSER)
    bottom = max(left.bottom, middle.bottom, right.bottom) + MARGIN + 110
    right.add(
        "MarkdownNote", title="What to look for", tall=bottom - right.top - TITLE - MARGIN, text=_LOOK, colours=NOTE
    )
    graph.link(load, "dataset", pictures, "dataset")
    back(graph, pictures, "images", text, "image")
    graph.link(model, "CLIP", text, "clip")
    graph.link(pictures, "dataset", save, "dataset")
    graph.link(text, "generated_text", save, "captions")
    back(graph, save, "dataset", look, "dataset")
    frame(graph, "1 Pictures", _LEFT, top, between, BLUE)
    frame(graph, "Model", _LEFT, between + MARGIN, left.bottom + MARGIN, PURPLE)
    frame(graph, "2 Describe", _MIDDLE, 0, middle.bottom + MARGIN, OCHRE)
    frame(graph, "3 Save and check", _RIGHT, 0, bottom, GREEN)
    return graph.as_json(scale=scale, offset=(105, 145))
