"""Makes every template and the blueprint, and writes them into `workflows/` and `subgraphs/`."""

import json
import tempfile
from pathlib import Path

from ..comfy import ComfyServer
from ..console import result
from ..recipe import ROOT
from .blueprint import NAME, blueprint
from .captioning import CAPTIONING, captioning
from .compare import draw_comparison
from .following import FOLLOWING, following
from .graph import Graph
from .layout import BEFORE, BLUE, MARGIN, MODEL, NOTE_BOTTOM, draw_model, draw_note, draw_training, frame
from .models import MODELS
from .pairs import draw_to_try

FOLDER = ROOT / "workflows"
# Those that are not about a model, by name.
OTHERS = (CAPTIONING, FOLLOWING)
BLUEPRINT = ROOT / "subgraphs" / f"{NAME}.json"
# Pixels of a screen's height that are the graph's; the scale at which the classic canvas still draws text, and no more.
SCREEN, READABLE, SHARP = 980, 0.58, 0.62
_NOTE = """# Learn only the masked part

**What is green is yours to fill in.**

## 1 · Your folder
Its name below ComfyUI's `input`. Masks are found: the alpha, or `cat_mask.png` beside `cat.png`. White is learned.

## 4 · A name for the LoRA
Steps and rate stay: 0 is what suits the model.

## 5 · A prompt
In your own words, with your trigger word.

**Press Run.** The last line in 4 says where the LoRA is."""
_CLIPS = _NOTE.replace("`cat_mask.png` beside `cat.png`", "`walk_mask.mp4` beside `walk.mp4`").replace(
    "Steps and rate stay: 0 is what suits the model.",
    "Steps and rate stay: 0 is what suits the model. `clip_frames` in 3 says how much of a clip is learned at once.",
)

_PAIRS = f"""# Learn an edit where the mask is

**What is green is yours to fill in.**

1. **Your folder**, below ComfyUI's `input`: pictures as they shall become, with masks as ever. White is learned.

`reference_folders`: the folder in it, here `{BEFORE}`, of what they are made from, under the same names. `cat.txt` is \
an instruction: *give the cat a hat*.

4. **A picture and an instruction** to try, every 100 steps.
5. **A name for the LoRA**. The last line in 5 says where it is.

**Press Run.**"""


def names():
    """The file's name without its ending, for each model: pages show it as the title."""
    return [f"{number} Start here - {model.title}" for number, model in enumerate(MODELS, start=1)]


def template(model, name, info):
    """The template of a model as the page saves graphs; `info` is ComfyUI's `/object_info`."""
    graph = Graph(info, name)
    note, pictures = (_CLIPS, "Clips and pictures") if model.clip else (_NOTE, "Pictures")
    note, pictures = (_PAIRS, "Pairs of pictures") if model.pair else (note, pictures)
    draw_note(graph, f"{note}\n\n{model.hint}" if model.hint else note)
    parts = draw_model(graph, model)
    train, lanes = draw_training(graph, parts, pictures=pictures, pair=bool(model.pair))
    tried = draw_to_try(graph, model, parts, train, lanes) if model.pair else None
    bottom = draw_comparison(graph, model, parts, train, lanes, tried=tried)
    frame(graph, "Model and settings", MODEL, NOTE_BOTTOM, parts.column.bottom + 20, BLUE)
    return graph.as_json(
        scale=max(READABLE, min(SHARP, round(SCREEN / bottom, 3))), offset=(105 + MARGIN - MODEL[0], 145)
    )


def templates(info):
    """Every template by its name: those that lead to a comparison, and the others."""
    training = {name: template(model, name, info) for name, model in zip(names(), MODELS, strict=True)}
    return training | {
        CAPTIONING: captioning(info, scale=SHARP),
        FOLLOWING: following(info, scale=READABLE),
    }


def as_text(graph):
    """A graph as its file holds it."""
    return json.dumps(graph, indent=2, ensure_ascii=False) + "\n"


def write_templates(host):
    """Asks a ComfyUI with the pack for its nodes and writes all of it; the exit status."""
    with tempfile.TemporaryDirectory() as base, ComfyServer(host, Path(base)) as server:
        info = server.object_info()
    files = {FOLDER / f"{name}.json": graph for name, graph in templates(info).items()}
    for path, graph in {**files, BLUEPRINT: blueprint(info)}.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(as_text(graph), encoding="utf-8")
        result(str(path))
    return 0
