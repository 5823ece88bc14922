"""A DoRA file of any dtype, loaded by ComfyUI, does what was trained: its magnitudes stay whole."""

import dataclasses

import comfy.lora
import comfy.sd
import pytest
import safetensors.torch
import torch

from harness.models import small_model, small_text
from harness.training import make_cache, make_request
from masklora.dataset.geometry import Geometry
from masklora.host.exporting import LoraTensors, export_lora
from masklora.host.model.trainable import TrainableModel
from masklora.host.training import train_lora
from masklora.loss.noise import add_noise
from masklora.settings import ExportSettings
from masklora.training.job import Hooks

SQUARE = Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))


def predicted(family, lora=None):
    """What the network answers on a batch of two, with a LoRA's tensors as ComfyUI's loader applies them."""
    trainable = TrainableModel(small_model(family))
    if lora is not None:
        patched, _ = comfy.sd.load_lora_for_models(small_model(family), None, dict(lora), 1.0, 0.0)
        weights = trainable.model.state_dict()
        assert patched.patches
        with torch.no_grad():
            for key, patches in patched.patches.items():
                weights[key].copy_(comfy.lora.calculate_weight(patches, weights[key].clone(), key))
    g = torch.Generator().manual_seed(1)
    latent, noise = (torch.randn((2, trainable.channels, 8, 8), generator=g) for _ in range(2))
    u = torch.tensor([0.3, 0.8])
    noisy = add_noise(latent, noise, u, schedule=trainable.schedule)
    texts = [small_text(family, tokens=77, seed=seed) for seed in (0, 1)]
    with torch.no_grad():
        return trainable.denoise(noisy, u, trainable.collate(texts, [SQUARE] * 2, noisy.shape[1:]))


@pytest.fixture(scope="module", params=["sd15", "flux"])
def trained(request, tmp_path_factory):
    """A short training of a DoRA, which changes the output by little: the harder case for a rounded magnitude."""
    family = request.param
    asked = make_request(family, make_cache(family))
    asked = dataclasses.replace(asked, adapter=dataclasses.replace(asked.adapter, algorithm="dora"))
    return family, train_lora(asked, runs=tmp_path_factory.mktemp("runs"), hooks=Hooks(), report=lambda text: None)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_default_dtypes_lose_at_most_half_a_percent_of_what_a_dora_changes(trained, dtype, tmp_path):
    family, lora = trained
    (path,) = export_lora(LoraTensors(lora), tmp_path / "dora", ExportSettings(dtype=dtype))
    tensors = safetensors.torch.load_file(path)
    kinds = {tensor.dtype for name, tensor in tensors.items() if name.endswith("dora_scale")}
    assert kinds == {torch.float32}
    assert {t.dtype for n, t in tensors.items() if n.endswith("lora_up.weight")} == {getattr(torch, dtype)}
    base, exact, rounded = predicted(family), predicted(family, lora.tensors), predicted(family, tensors)
    change = (exact - base).norm()
    assert 1e-3 < change / base.norm() < 0.2
    assert (rounded - exact).norm() <= 5e-3 * change
