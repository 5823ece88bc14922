"""Whole trainings of T-LoRA: the file is a plain LoRA that does what was learned, and a cut run goes on bit for bit."""

import dataclasses

import comfy.sd
import pytest
import torch
from comfy.model_management import InterruptProcessingException

from harness.damage import ALL
from harness.models import small_model, small_text
from harness.training import Caches, CancelAt, make_request
from masklora.dataset.geometry import Geometry
from masklora.errors import ConfigError
from masklora.experts import EXPERTS, HIGH
from masklora.host.estimating import Question, estimated
from masklora.host.exporting import LoraTensors, export_lora
from masklora.host.model.trainable import TrainableModel
from masklora.host.training import train_lora
from masklora.loss.noise import add_noise
from masklora.settings import ExportSettings, LossSettings, OptimizerSettings
from masklora.training.job import Hooks

FAMILIES = ["sd15", "flux", "z_image", "wan"] if ALL else ["flux"]
SQUARE = Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))


@pytest.fixture(scope="module")
def caches():
    return Caches()


def ask(request, least=1, **adapter):
    adapter = dataclasses.replace(request.adapter, algorithm="tlora", least_rank=least, **adapter)
    return dataclasses.replace(request, adapter=adapter)


def train(request, folder, hooks=None, heard=None):
    report = (lambda found: None) if heard is None else lambda found: heard.append(found.text)
    return train_lora(request, runs=folder, hooks=hooks or Hooks(), report=report)


def predicted(family, trainable):
    """What the network answers on a batch of two, as drawing asks it."""
    g = torch.Generator().manual_seed(1)
    latent, noise = (torch.randn((2, trainable.channels, 8, 8), generator=g) for _ in range(2))
    u = torch.tensor([0.3, 0.8])
    noisy = add_noise(latent, noise, u, schedule=trainable.schedule)
    texts = [small_text(family, tokens=20, seed=seed) for seed in (0, 1)]
    with torch.no_grad():
        return trainable.denoise(noisy, u, trainable.collate(texts, [SQUARE] * 2, noisy.shape[1:]))


def with_file(family, path, strength):
    lora = comfy.utils.load_torch_file(str(path))
    patched, _ = comfy.sd.load_lora_for_models(small_model(family), None, lora, strength, 0.0)
    trainable = TrainableModel(patched, dtype=torch.float32)
    trainable.load(activation_bytes=0)
    return predicted(family, trainable)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_file_does_in_comfyui_what_was_learned_with_all_ranks_open(family, caches, tmp_path):
    request = ask(make_request(family, caches[family]))
    # So that the rounding of the output is small beside the change.
    request = dataclasses.replace(request, optimizer=OptimizerSettings(learning_rate=5e-2))
    trained = train(request, tmp_path)
    base = TrainableModel(small_model(family), dtype=torch.float32)
    adapters = base.make_adapters(dataclasses.replace(request.adapter, targets="default"), seed=0)
    adapters.set_training(False)
    before = predicted(family, base)
    files = {
        error: export_lora(LoraTensors(trained), tmp_path / dtype, ExportSettings(dtype=dtype))[0]
        for dtype, error in (("float32", 1e-5), (ExportSettings().dtype, 1e-2))
    }
    for strength in (1.0, 0.5):
        adapters.load({k: dataclasses.replace(f, alpha=f.alpha * strength) for k, f in trained.factors.items()})
        with base.session(adapters):
            learned = predicted(family, base)
        for error, path in files.items():
            assert (with_file(family, path, strength) - learned).norm() <= error * (learned - before).norm()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_run_goes_on_bit_for_bit(family, caches, tmp_path):
    request = ask(make_request(family, caches[family], steps=4))
    straight = train(request, tmp_path / "straight")
    with pytest.raises(InterruptProcessingException):
        train(request, tmp_path / "cut", CancelAt(2))
    resumed = train(request, tmp_path / "cut")
    assert resumed.result.resumed_from == 2
    assert all(torch.equal(value, resumed.tensors[key]) for key, value in straight.tensors.items())


def test_a_least_rank_of_the_rank_trains_the_plain_lora_bit_for_bit(caches, tmp_path):
    request = make_request("flux", caches["flux"])
    plain, whole, half = train(request, tmp_path), train(ask(request, 4), tmp_path), train(ask(request, 0), tmp_path)
    assert all(torch.equal(value, whole.tensors[key]) for key, value in plain.tensors.items())
    assert not all(torch.equal(value, half.tensors[key]) for key, value in plain.tensors.items())


def test_ranks_that_no_level_opens_learn_nothing_and_that_is_told(caches, tmp_path):
    heard, request = [], ask(make_request("flux", caches["flux"], steps=2), targets="default")
    request = dataclasses.replace(request, loss=LossSettings(timestep_min=0.8))
    trained = train(request, tmp_path, heard=heard)
    assert any("begin at 0.8, where 1 of 4 ranks are open; the others never learn" in text for text in heard)
    assert any("a plain LoRA, in which all of them act" in text for text in heard)
    for factors in trained.factors.values():
        assert factors.up[:, 0].any() and not factors.up[:, 1:].any()


@pytest.mark.parametrize("family", ["wan"])
def test_each_of_two_models_opens_ranks_by_its_own_levels(family, caches, tmp_path):
    heard, request = [], ask(make_request(family, caches[family], steps=4, switch_experts_every=1, batch_size=1))
    low = small_model(family)
    with torch.no_grad():
        for parameter in low.model.diffusion_model.parameters():
            parameter.mul_(0.9)
    both = train(dataclasses.replace(request, model_low=low), tmp_path / "both", heard=heard)
    assert any(text.startswith("least_rank: noise levels begin at 0.875, where 1 of 4") for text in heard)
    for expert, found in zip(EXPERTS, (both, both.low), strict=True):
        levels = {"timestep_min": 0.875} if expert == HIGH else {"timestep_max": 0.875}
        alone = dataclasses.replace(request, train=dataclasses.replace(request.train, steps=2))
        alone = dataclasses.replace(alone, loss=LossSettings(**levels), model=request.model if expert == HIGH else low)
        single = train(alone, tmp_path / expert)
        assert all(torch.equal(value, found.tensors[key]) for key, value in single.tensors.items()), expert


@pytest.mark.parametrize("family", ["flux", "wan"] if ALL else [])
def test_swapped_blocks_give_the_same_lora(family, caches, tmp_path):
    request = ask(make_request(family, caches[family]))
    swapped = dataclasses.replace(request, train=dataclasses.replace(request.train, swap_blocks=1))
    one, other = train(request, tmp_path / "a"), train(swapped, tmp_path / "b")
    assert one.result.losses == other.result.losses
    assert all(torch.equal(value, other.tensors[key]) for key, value in one.tensors.items())


def test_its_step_is_counted_and_a_least_rank_above_the_rank_is_refused_before(caches):
    request = make_request("flux", caches["flux"])
    question = Question(request.model, cache=request.cache, adapter=ask(request).adapter)
    plan, _ = estimated(question)
    assert plan.fault == ""
    with pytest.raises(ConfigError, match="least_rank: expected at most the rank, 4, got 5"):
        estimated(dataclasses.replace(question, adapter=ask(request, 5).adapter))
