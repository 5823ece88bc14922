"""The templates "Start here" hold what ComfyUI's own templates of the same models hold, and come from one generator."""

import json
import math

import pytest
from comfy_extras.nodes_flux import PREFERRED_KONTEXT_RESOLUTIONS

from devtools.start_here.blueprint import blueprint
from devtools.start_here.models import MODELS
from devtools.start_here.write import BLUEPRINT, FOLDER, as_text, names, templates
from harness.official_graphs import official_graph, sampled_parts, values_of

each = pytest.mark.parametrize(("name", "model"), list(zip(names(), MODELS, strict=True)), ids=names())
SIZES = ("width", "height")
CLIPS = [(name, model) for name, model in zip(names(), MODELS, strict=True) if model.clip]


@pytest.fixture(scope="module")
def info(comfy_server):
    return comfy_server.object_info()


def saved(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def saved_clips(graph, info):
    """For each clip that a graph makes its frames per second, and whether it has sound."""
    for scope in scopes_of(graph):
        for node in scope["nodes"]:
            if node["type"] == "CreateVideo":
                (sound,) = (one for one in node["inputs"] if one["name"] == "audio")
                yield values_of(scope, info).value(node, "fps"), sound.get("link") is not None


def as_one_sampler(kind, widgets, models):
    """The first half of a sampling in two halves samples as the whole of it does."""
    if kind == "KSamplerAdvanced":
        kept = ("steps", "cfg", "sampler_name", "scheduler")
        return "KSampler", {**{name: widgets[name] for name in kept}, "denoise": 1}, models
    return kind, widgets, models


def comparable(parts, *, resolution):
    """Parts in one order, with the size where a template leaves it to the person."""
    told = []
    for kind, widgets, models in (as_one_sampler(*part) for part in parts):
        sized = {name: resolution for name in SIZES if name in widgets and widgets[name] is None}
        numbers = {k: round(v, 6) if isinstance(v, float) else v for k, v in {**widgets, **sized}.items()}
        told.append((kind, sorted(numbers.items(), key=str), models))
    return sorted(told, key=str)


@each
def test_a_template_samples_with_the_files_and_settings_of_the_official_one(name, model, info):
    theirs, *_ = sampled_parts(official_graph(model.official), info, subgraph=model.subgraph)
    ours = sampled_parts(saved(name), info)
    assert len(ours) == 2
    (base,) = (one for one in ours if not any(kind.startswith("MLT_") for kind, *_ in one))
    expected = comparable(theirs, resolution=model.resolution)
    assert comparable(base, resolution=model.resolution) == expected


@each
def test_the_side_with_the_lora_samples_as_the_base_model_does(name, model, info):
    base, lora = sorted(sampled_parts(saved(name), info), key=len)
    parts = [part for part in lora if not part[0].startswith("MLT_")]
    assert comparable(parts, resolution=0) == comparable(base, resolution=0)
    kinds = {kind for kind, *_ in lora if kind.startswith("MLT_")}
    drawn = {"MLT_Samples"} if model.pair else set()
    assert kinds == {"MLT_LoadDataset", "MLT_CacheDataset", "MLT_TrainLoRA"} | drawn


def scopes_of(graph):
    return [graph, *graph.get("definitions", {}).get("subgraphs", [])]


@each
def test_the_resolution_is_that_of_the_official_empty_picture(name, model):
    graph = official_graph(model.official)
    (chosen,) = (n for n in saved(name)["nodes"] if n.get("title") == "Resolution")
    assert chosen["widgets_values"][0] == model.resolution
    if model.clip:
        # The side of a square with the area of the frames, which the comparison above holds to the official ones.
        width, height = model.clip.size
        assert model.resolution == 8 * math.ceil(math.sqrt(width * height) / 8)
        return
    if model.latent == "VAEEncode":
        # It begins with the picture that is edited, which has one of these sizes then.
        assert (model.resolution, model.resolution) in PREFERRED_KONTEXT_RESOLUTIONS
        return
    empty = [n for scope in scopes_of(graph) for n in scope["nodes"] if n["type"] == model.latent]
    assert model.resolution in {value for node in empty for value in node["widgets_values"][:2]}


@pytest.mark.parametrize(("name", "model"), CLIPS, ids=[name for name, _ in CLIPS])
def test_clips_are_saved_as_the_official_graph_saves_them(name, model, info):
    theirs, ours = (list(saved_clips(graph, info)) for graph in (official_graph(model.official), saved(name)))
    assert len(theirs) == 1 and ours == theirs * 2
    assert ours[0][0] == model.clip.rate and ours[0][1] == model.clip.sound
    assert sum(n["type"] == "SaveVideo" for n in saved(name)["nodes"]) == 2


@each
def test_the_links_are_those_of_the_official_template(name, model):
    official = json.dumps(official_graph(model.official))
    for node in saved(name)["nodes"]:
        for file in node["properties"].get("models", []):
            assert json.dumps(file["url"]) in official
            assert file["name"] in node["widgets_values"]


def test_the_templates_are_what_the_generator_writes(info):
    made = templates(info)
    assert {path.stem for path in FOLDER.glob("*.json")} == set(made)
    changed = [name for name, graph in made.items() if (FOLDER / f"{name}.json").read_text("utf-8") != as_text(graph)]
    changed += [BLUEPRINT.stem] * (BLUEPRINT.read_text("utf-8") != as_text(blueprint(info)))
    assert changed == [], "run this and commit: python dev.py templates"


@each
def test_every_node_tells_where_it_comes_from_and_no_key_is_empty(name, model):
    graph = saved(name)
    version = (FOLDER.parent / "pyproject.toml").read_text(encoding="utf-8")
    for node in graph["nodes"]:
        told = node["properties"]
        if node["type"].startswith("MLT_"):
            assert told["cnr_id"] == "masked-lora" and f'version = "{told["ver"]}"' in version
        elif node["type"] != "MarkdownNote":
            assert told["cnr_id"] == "comfy-core" and "ver" not in told
        # The newest frontend's check of a workflow refuses keys without a value, except links.
        for part in (node, *node["inputs"], *node["outputs"]):
            assert {key for key, value in part.items() if value is None} <= {"link"}
