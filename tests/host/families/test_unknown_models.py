"""Models of ComfyUI's that have no family here: they train behind a switch, exactly, or say why they cannot."""

import re

import comfy.lora
import comfy.model_base
import comfy.model_sampling
import comfy.sample
import comfy.samplers
import comfy.supported_models
import numpy as np
import pytest
import safetensors.torch
import torch
from comfy_extras.nodes_void import VOID_DDIM
from torch import nn

from benchmarks.gradients import MODES, Problem
from harness.damage import many
from harness.models import small_model
from harness.small_unknown import REFUSED, UNKNOWN
from harness.training import make_cache, make_request, make_samples
from masklora.adapters import select_targets
from masklora.errors import FamilyError
from masklora.host.exporting import LoraTensors, export_lora
from masklora.host.families import find_family
from masklora.host.model.sampling_schedule import read_schedule
from masklora.host.model.trainable import TrainableModel
from masklora.host.sampling import Painter
from masklora.host.training import train_lora
from masklora.loss.losses import masked_objective
from masklora.settings import AdapterSettings, ExportSettings
from masklora.training.job import Hooks

TRAINED = [name for name in UNKNOWN if name not in REFUSED]
CLIPS = ["cogvideox", "mochi"]
TRIED = many(["lens", "hunyuan_dit", "vega", "cogvideox"], TRAINED)
# Their networks make float32 of what they are given, whatever they compute in.
SINGLE = ("mochi", "z_image_pixel", "chroma_radiance")


@pytest.mark.parametrize("name", many([*TRIED, *REFUSED], list(UNKNOWN)))
def test_without_the_switch_the_error_names_the_model_and_says_how_to_train_it(name):
    model = small_model(name)
    config = type(model.model.model_config).__name__
    with pytest.raises(FamilyError, match=rf"does not know {config}\. Connect.*Wan.*switch on unknown_model in Train"):
        TrainableModel(model)


@pytest.mark.parametrize(("name", "reason"), REFUSED.items(), ids=REFUSED)
def test_with_the_switch_one_that_cannot_be_trained_says_why(name, reason):
    with pytest.raises(FamilyError, match=reason):
        TrainableModel(small_model(name), unknown=True)


@pytest.mark.parametrize(
    ("config", "kind", "reason"),
    [
        ("CosmosT2V", "EDM", "EDM prediction cannot be trained. Use a model that predicts"),
        ("Stable_Cascade_C", "STABLE_CASCADE", "tells the network of the noise, in another way"),
    ],
)
def test_sampling_of_another_kind_is_refused(config, kind, reason):
    made_for = comfy.model_base.ModelType[kind]
    sampling = comfy.model_base.model_sampling(getattr(comfy.supported_models, config)({}), made_for)
    with pytest.raises(FamilyError, match=rf"{config}.*{reason}"):
        read_schedule(sampling, title=config, kind=kind, predictions=("epsilon", "v", "flow"))


class Level(nn.Sequential):
    """What a U-Net holds its layers in; nothing calls it."""


class Spread(nn.Module):
    """A level's blocks."""

    def __init__(self, blocks):
        super().__init__()
        self.rows = nn.ModuleList(Row() for _ in range(blocks))


class Row(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.emb_layers = nn.Linear(4, 4), nn.Linear(4, 4)


def test_blocks_within_containers_are_found_even_one_alone_and_time_layers_are_left():
    network = nn.Module()
    network.levels = nn.ModuleList([Level(nn.Linear(4, 4), Spread(1)), Level(nn.Linear(4, 4), Spread(2))])
    family = find_family("Made up", network, unknown=True)
    assert [blocks.path for blocks in family.blocks] == [rf"levels\.{i}\.1\.rows\.\d+" for i in (0, 1)]
    settings = AdapterSettings(rank=2, alpha=2.0)
    targets = select_targets(network, settings, pattern=family.targets["default"])
    assert set(targets) == {f"levels.{i}.1.rows.{row}.attn" for i, row in ((0, 0), (1, 0), (1, 1))}


@pytest.mark.parametrize("name", TRIED)
def test_every_block_that_is_to_be_run_again_is_called(name):
    problem = Problem(name, dtype=torch.float32)
    paths = [blocks.path for blocks in problem.trainable.family.blocks]
    waiting = {p for p, _ in problem.network.named_modules() if any(re.fullmatch(path, p) for path in paths)}
    for path in set(waiting):
        problem.network.get_submodule(path).register_forward_hook(lambda *told, path=path: waiting.discard(path))
    assert waiting
    with problem.trainable.session(problem.adapters, checkpointing="off"), torch.no_grad():
        problem.terms()[0]()
    assert not waiting


@pytest.mark.parametrize("name", TRIED)
def test_its_gradients_are_those_of_plain_autograd_on_comfyuis_own_call(name):
    single = name in SINGLE
    problem = Problem(name, dtype=torch.float32 if single else torch.float64)
    plain = problem.plain_gradients()
    length = sum(float(g.square().sum()) for g in plain.values()) ** 0.5
    assert length > 0
    for mode in MODES:
        found = problem.gradients(mode)
        apart = sum(float((found[n] - plain[n]).square().sum()) for n in plain) ** 0.5
        assert apart / length <= (1e-5 if single else 1e-10), mode


@pytest.mark.parametrize("name", CLIPS)
def test_its_gradients_of_clips_are_those_of_plain_autograd_and_none_where_a_frame_is_masked(name):
    single = name in SINGLE
    problem = Problem(name, dtype=torch.float32 if single else torch.float64, frames=3)
    # Another cell in each frame, and nothing at all in the last.
    problem.w[:] = 0
    problem.w[:, :, 0, 1, 2] = problem.w[:, :, 1, 3, 0] = 1
    plain = problem.plain_gradients()
    length = sum(float(g.square().sum()) for g in plain.values()) ** 0.5
    assert length > 0
    for mode in MODES:
        found = problem.gradients(mode)
        apart = sum(float((found[n] - plain[n]).square().sum()) for n in plain) ** 0.5
        assert apart / length <= (1e-5 if single else 1e-10), mode
    with problem.trainable.session(problem.adapters), problem.trainable.autograd_scope():
        prediction = problem.predict()
        prediction.retain_grad()
        masked_objective(prediction, torch.zeros_like(prediction), problem.w, problem.settings)[0].backward()
    gradient = prediction.grad
    assert prediction.shape == problem.latent.shape
    assert bool((gradient[(problem.w == 0).expand_as(gradient)] == 0).all())
    assert bool((gradient[(problem.w == 1).expand_as(gradient)] != 0).all())


@torch.inference_mode()
def test_sample_clips_of_cogvideox_are_those_of_comfyuis_own_sampler_for_it():
    patcher, request = small_model("cogvideox"), make_samples("cogvideox", frames=9, seed=5, sampler="euler")
    trainable = TrainableModel(patcher, unknown=True)
    settings, painter = request.settings, Painter(trainable, request)
    drawn = painter.pixels(trainable.drawing, 0, go_on=lambda: None)
    # This one takes the place of all samplers where a network is given noise that is not scaled.
    latent = torch.zeros(1, 16, 3, settings.height // 8, settings.width // 8)
    noise = comfy.sample.prepare_noise(latent, settings.seed)
    sigmas = comfy.samplers.calculate_sigmas(patcher.model.model_sampling, settings.scheduler, settings.steps)
    texts = request.positive[0], request.negative
    theirs = comfy.sample.sample_custom(patcher, noise, settings.cfg, VOID_DDIM(), sigmas, *texts, latent, seed=5)
    shown = request.vae.decode(theirs).reshape(drawn.shape).clamp(0, 1).numpy() * 255
    assert drawn.shape == (9, *painter.size, 3)
    assert np.abs(drawn - shown).max() <= 1 < shown.std()
    assert isinstance(patcher.model.model_sampling, comfy.model_sampling.V_PREDICTION_DDPM), "it is the person's MODEL"


@pytest.mark.parametrize("name", TRIED)
def test_what_a_training_writes_loads_in_comfyui_with_no_key_left_over(name, tmp_path, caplog):
    with torch.inference_mode():
        request = make_request(name, make_cache(name), unknown_model=True)
        trained = train_lora(request, runs=tmp_path, hooks=Hooks(), report=lambda told: None)
        settings = ExportSettings(format="comfyui", dtype="float32")
        (path,) = export_lora(LoraTensors(trained), tmp_path / "written", settings)
        tensors = safetensors.torch.load_file(path)
        known = comfy.lora.model_lora_keys_unet(request.model.model, {})
        patches = comfy.lora.load_lora(tensors, known)
    assert len({key[0] if isinstance(key, tuple) else key for key in patches}) == len(trained.factors) > 0
    assert "not loaded" not in caplog.text
    assert any(float(t.abs().sum()) > 0 for key, t in tensors.items() if "lora_up" in key)
