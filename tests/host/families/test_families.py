"""Defaults of the model families, and what a person's own value does to them."""

import pytest
import torch
from torch import nn

from harness.models import small_model
from harness.official_graphs import official_graph
from harness.small import small_models
from masklora.adapters import AdapterSet, Layers
from masklora.host.families import families, with_defaults
from masklora.settings import AdapterSettings, LossSettings, OptimizerSettings, TrainSettings

# By configuration ComfyUI's template of such a model, whose clips play as fast as the model makes them.
TEMPLATES = {
    "WAN21_T2V": "text_to_video_wan",
    "WAN21_I2V": "image_to_video_wan",
    "WAN22_T2V": "video_wan2_2_5B_ti2v",
    "HunyuanVideo": "hunyuan_video_text_to_video",
    "HunyuanVideo15": "video_hunyuan_video_1.5_720p_t2v",
    "Kandinsky5": "video_kandinsky5_t2v",
    "MiniMaxH3": "video_minimax_h3_t2v",
}
# Small models whose network is told a rate, which is this one where a graph says nothing, as in training.
TOLD = {"LTXV": "ltxv", "LTXAV": "ltxav"}
# Those of which ComfyUI's templates make pictures alone: the source of their defaults names where it is from.
CITED = {"CosmosT2IPredict2", "CosmosI2VPredict2", "Anima"}
RATES = {config: (rate, family) for family in families() for config, rate in family.rates.items()}


def resolved(family, *, loss=None, optimizer=None, adapter=None):
    return with_defaults(
        family,
        loss=loss or LossSettings(),
        adapter=adapter or AdapterSettings(),
        optimizer=optimizer or OptimizerSettings(),
        train=TrainSettings(),
    )


@pytest.mark.parametrize("family", families(), ids=lambda f: f.name)
def test_prodigy_starts_from_one_and_every_other_optimizer_from_the_familys_rate(family):
    assert resolved(family, optimizer=OptimizerSettings(optimizer="prodigy")).optimizer.learning_rate == 1.0
    assert resolved(family).optimizer.learning_rate == family.defaults.learning_rate
    asked = OptimizerSettings(optimizer="prodigy", learning_rate=0.5)
    assert resolved(family, optimizer=asked).optimizer.learning_rate == 0.5


def test_the_first_step_at_the_usual_rate_changes_a_weight_about_as_much_whatever_the_kind():
    """One step of Adam at the rate that a family's default becomes, on a layer as wide as some models have."""
    (family,) = (f for f in families() if f.name == "flux")
    found = {}
    cases = {"lora": {}, "lokr": {}, "lokr whole": {"rank": 1024, "alpha": 1024.0}, "loha": {}, "full": {}}
    for name, changes in cases.items():
        kind = "lora" if name == "full" else name.split()[0]
        settings = AdapterSettings(**{"algorithm": kind, "rank": 16, "alpha": 16.0, **changes})
        rate = resolved(family, adapter=settings).optimizer.learning_rate
        torch.manual_seed(0)
        model = nn.ModuleDict({"a": nn.Linear(768, 768)})
        layers = Layers(["a"], full=["a"] if name == "full" else ())
        adapters = AdapterSet(model, settings, targets=layers, seed=0, device=torch.device("cpu"))
        optimizer = torch.optim.Adam(adapters.parameters().values(), lr=rate)
        with adapters.injected():
            (model["a"](torch.randn(64, 768)) - torch.randn(64, 768)).square().mean().backward()
        optimizer.step()
        found[name] = float(adapters.factors()["a"].delta().norm())
    assert all(0.4 * found["lora"] < change < 2.5 * found["lora"] for change in found.values()), found


@pytest.mark.parametrize("family", families(), ids=lambda f: f.name)
def test_default_sampling_keeps_a_mean_and_spread_that_were_set(family):
    loss = resolved(family, loss=LossSettings(timestep_mean=0.7, timestep_std=1.5)).loss
    assert loss.timestep_sampling == family.defaults.timestep_sampling
    assert (loss.timestep_mean, loss.timestep_std) == (0.7, 1.5)


@pytest.mark.parametrize(
    ("name", "told"), [("flux2", ["distilled"]), ("flux2_dev", []), ("flux", []), ("wan", ["model_low"])]
)
def test_a_note_is_for_the_models_that_it_is_about(name, told):
    network = small_model(name).model.diffusion_model
    (family,) = (f for f in families() if f.name == small_models()[name].family)
    notes = family.notes_for(network)
    assert len(notes) == len(told) and all(word in note for word, note in zip(told, notes, strict=True))


def test_every_frame_rate_has_one_of_three_sources():
    assert set(RATES) == {*TEMPLATES, *TOLD, *CITED}


@pytest.mark.parametrize("config", TEMPLATES)
def test_a_frame_rate_is_that_of_comfyuis_own_template(config):
    graph = official_graph(TEMPLATES[config])
    scopes = [graph, *graph.get("definitions", {}).get("subgraphs", [])]
    made = [node for scope in scopes for node in scope["nodes"] if node["type"] == "CreateVideo"]
    assert not any(one.get("link") for node in made for one in node["inputs"] if one["name"] == "fps")
    assert {node["widgets_values"][0] for node in made} == {RATES[config][0]}


@pytest.mark.parametrize("config", TOLD)
def test_a_frame_rate_is_what_comfyui_tells_the_network(config):
    model = small_model(TOLD[config]).model
    assert type(model.model_config).__name__ == config
    told = model.extra_conds(device=torch.device("cpu"), noise=torch.zeros(1, 128, 1, 2, 2))["frame_rate"]
    assert told.cond == RATES[config][0]


@pytest.mark.parametrize("config", sorted(CITED))
def test_a_frame_rate_without_a_template_is_in_the_source_of_the_defaults(config):
    rate, family = RATES[config]
    assert f"{rate:g} frames a second" in family.defaults.source
