"""Whole trainings on quantised models: their LoRAs, files and sample pictures are those of the dequantised model."""

import dataclasses
import functools
import io

import comfy.sample
import comfy.sd
import numpy as np
import pytest
import torch
from PIL import Image

from harness.core_latents import empty_latent, for_vae
from harness.damage import ALL
from harness.quantised import LAYOUTS, dequantised_model, meant, quantised_layers, quantised_model
from harness.training import Caches, make_request, make_samples
from masklora.host.exporting import apply_lora
from masklora.host.families import find_family
from masklora.host.model.layer_names import layer_names
from masklora.host.model.patches import adapted_layers_asked
from masklora.host.model.trainable import TrainableModel
from masklora.host.training import train_lora
from masklora.runs.sample_pictures import SampleFolder
from masklora.settings import AdapterSettings, OptimizerSettings
from masklora.training.job import Hooks

SHOWN = tuple(LAYOUTS) if ALL else ("int8 convrot",)
# The activations of these are rounded by ComfyUI's sampling, on every device; of the others, on a CPU, none are. How
# far a picture is from that of the dequantised model, at most, as a share of what three steps of training change.
ROUNDED = {"int8": 0.2, "int8 rows": 0.2, "int8 convrot": 0.2, "w4a4 convrot": 1.5, "w4a8 convrot": 1.5}


class Listening(Hooks):
    def __init__(self):
        self.messages = []

    def on_message(self, text):
        self.messages.append(text)


@functools.cache
def cache_of(family):
    return Caches()[family]


@pytest.fixture(scope="module", autouse=True)
def released():
    yield
    cache_of.cache_clear()


def run(family, model, folder):
    """A training of three steps on a MODEL, with pictures before and after."""
    request = make_request(family, cache_of(family), steps=3)
    fast = OptimizerSettings(learning_rate=2e-2)
    samples = make_samples(family, every=0)
    request = dataclasses.replace(request, model=model, optimizer=fast, samples=samples)
    hooks = Listening()
    with torch.inference_mode():
        trained = train_lora(request, runs=folder / "runs", hooks=hooks, report=lambda finding: None)
    assert hooks.messages == []
    shown = SampleFolder(trained.result.folder)
    files = [io.BytesIO(shown.read(step, 1)) for step in (0, 3)]
    return trained, [np.asarray(Image.open(file)).astype(int) for file in files], samples


def drawn(model, samples):
    """What ComfyUI draws by itself."""
    height, width = samples.settings.height, samples.settings.width
    with torch.inference_mode():
        empty = empty_latent(model, width=width, height=height)
        noise = comfy.sample.prepare_noise(empty, 0)
        arguments = (3, 2.0, "euler", "normal", samples.positive[1], samples.negative, empty)
        out = comfy.sample.sample(model, noise, *arguments, disable_pbar=True, seed=0)
        image = samples.vae.decode(for_vae(out, model))
    return np.rint(image.reshape(-1, height, width, 3)[0].clamp(0, 1).numpy() * 255).astype(int)


def loaded(family, layout):
    """As ComfyUI's loader nodes load it, in inference mode; and the dequantised one."""
    with torch.inference_mode():
        model = quantised_model(family, LAYOUTS[layout])
        return model, dequantised_model(family, model)


@pytest.mark.parametrize("layout", SHOWN)
def test_a_run_on_quantised_weights_gives_the_lora_and_the_pictures_of_one_on_the_dequantised(layout, tmp_path):
    model, plain = loaded("flux", layout)
    trained, pictures, samples = run("flux", model, tmp_path / "quantised")
    wanted, plain_pictures, _ = run("flux", plain, tmp_path / "plain")
    assert trained.result.losses == pytest.approx(wanted.result.losses, rel=1e-5)
    assert trained.tensors.keys() == wanted.tensors.keys()
    # (x·s)·W and x·(s·W) are rounded differently, and Adam makes as much of small gradients as of large ones.
    most = 0.05 if layout.endswith("smoothed") else 1e-6
    assert all((trained.tensors[k] - v).norm() <= most * v.norm() for k, v in wanted.tensors.items())
    assert (drawn(model, samples) == pictures[0]).all()
    effect = np.abs(plain_pictures[1] - plain_pictures[0]).mean()
    apart = [np.abs(a - b).mean() for a, b in zip(pictures, plain_pictures, strict=True)]
    assert all(far < ROUNDED.get(layout, 1e-3) * effect for far in apart)
    # ComfyUI itself rounds the weights with their LoRA to the file's layout again, which four bits are few for.
    if not layout.startswith(("nvfp4", "w4")):
        by_comfyui = np.abs(drawn(apply_lora(model, trained.tensors), samples) - pictures[1]).mean()
        assert by_comfyui < 0.3 * effect


@pytest.mark.parametrize("layout", SHOWN)
def test_a_lora_file_finds_every_layer_of_a_quantised_model(layout):
    model, plain = loaded("flux", layout)
    trainable = TrainableModel(model)
    adapters = trainable.make_adapters(AdapterSettings(rank=4, alpha=2.0), seed=0)
    tensors = {}
    for name, factors in adapters.factors().items():
        for end, shape in (("down", factors.down.shape), ("up", factors.up.shape)):
            tensors[f"diffusion_model.{name}.lora_{end}.weight"] = torch.randn(shape) * 0.2
    patched, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)
    assert set(patched.patches) == {f"diffusion_model.{name}.weight" for name in adapters.targets}
    path = adapters.targets[0]
    layer = quantised_layers(trainable.network)[path]
    a, b = (tensors[f"diffusion_model.{path}.lora_{end}.weight"] for end in ("down", "up"))
    with torch.inference_mode():
        weight = patched.patch_weight_to_device(f"diffusion_model.{path}.weight", return_weight=True)
    # Where the input is scaled first, ComfyUI puts a LoRA behind the scale.
    base = layer.weight.dequantize() if layout.endswith("smoothed") else meant(layer)
    assert (weight.dequantize() - base - b @ a).norm() <= 0.3 * base.norm() < 0.5 * (b @ a).norm()
    family = find_family(type(model.model.model_config).__name__, trainable.network)
    assert layer_names(model.model, family) == layer_names(plain.model, family)


def test_an_activation_that_comfyui_folds_into_an_int8_product_does_not_pass_the_adapter():
    with torch.inference_mode():
        model = quantised_model("minimax_h3", LAYOUTS["int8 convrot"])
    trainable = TrainableModel(model)
    adapters = trainable.make_adapters(AdapterSettings(rank=4, alpha=2.0), seed=0)
    for p in adapters.parameters().values():
        p.data.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(0))
    mlp = trainable.network.blocks[1].mlp
    x = torch.randn(5, mlp.fc1.in_features)
    with torch.inference_mode(), adapters.injected():
        gate, up = mlp.fc1(x).chunk(2, dim=-1)
        wanted = mlp.fc2(torch.nn.functional.silu(gate) * up)
        with adapted_layers_asked():
            found = mlp(x)
            with adapters.disabled():
                without = mlp(x)
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert (found - without).norm() > 0.1 * found.norm()


@pytest.mark.skipif(not ALL, reason="runs with --all")
def test_pictures_are_drawn_where_comfyui_folds_activations_into_products(tmp_path):
    _, pictures, _ = run("minimax_h3", loaded("minimax_h3", "int8 convrot")[0], tmp_path)
    assert (pictures[0] != pictures[1]).any()
