"""Faults of ComfyUI 0.30's own training in gradients, captions, loss, resuming and files; none of them is ours.

Its code is run where that is short. Source: comfy_extras/nodes_train.py unless another file is named. What it leaves
out besides is tested where ours is: cancelling and metadata in tests/host/test_training.py, copies of the weights in
tests/host/model/test_trainable.py, time and memory in benchmarks/train_step.py.
"""

from pathlib import Path

import comfy.ldm.modules.attention as attention
import comfy.model_management
import comfy.model_sampling
import comfy.sampler_helpers
import comfy.samplers
import comfy_extras.nodes_dataset
import comfy_extras.nodes_train as core
import folder_paths
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from benchmarks.gradients import Problem
from harness.folders import anywhere, folder_settings
from harness.models import small_model, small_text
from harness.toy import toy_job
from masklora.adapters import to_comfyui
from masklora.dataset.geometry import Geometry
from masklora.dataset.loading import load_dataset
from masklora.dataset.sample import load_sample
from masklora.host.model import patches
from masklora.host.model import trainable as model
from masklora.host.model.layer_names import layer_names
from masklora.host.model.token_attention import pinned_attention
from masklora.host.model.trainable import TrainableModel
from masklora.host.outputs import runs_folder
from masklora.host.paths import cache_folder
from masklora.host.training import read_lora
from masklora.loss.noise import Schedule, sigma_of
from masklora.settings import AdapterSettings, LossSettings
from masklora.training.microbatch import MicroBatch
from masklora.training.objective import Objective

SQUARE = Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))


@pytest.mark.parametrize("depth", [1, 2])
def test_core_s_checkpoints_give_wrong_gradients_where_blocks_write_in_place_here_they_are_exact(depth):
    """`patch`: depth 1, its default, wraps the whole model, 2 each block. Flux blocks add to their inputs in place."""
    problem = Problem("flux", dtype=torch.float64, targets="all")
    right = torch.cat([g.flatten() for g in problem.gradients("off").values()])
    ours = torch.cat([g.flatten() for g in problem.gradients("per block").values()])
    with problem.trainable.session(problem.adapters, checkpointing="off"):
        problem.latent.requires_grad_()  # `fwd_bwd` asks for the gradient of what the network is shown
        modules = core.find_modules_at_depth(problem.network, depth=depth)
        for module in modules:
            core.patch(module)
        try:
            found = torch.autograd.grad(problem.terms()[0](), list(problem.adapters.parameters().values()))
        finally:
            for module in modules:
                core.unpatch(module)
                del module.forward
    theirs = torch.cat([g.flatten() for g in found])
    assert (theirs - right).norm() > 1e-2 * right.norm()
    assert (ours - right).norm() < 1e-12 * right.norm()


@pytest.mark.parametrize("second", [77, 154])
@pytest.mark.parametrize("family", ["sd15", "sd3", "flux"])
def test_core_averages_the_captions_of_a_batch_here_each_sample_keeps_its_own(family, second):
    """`fwd_bwd`: the captions of a batch become one conditioning, which the sampler averages over every picture."""
    patcher = small_model(family)
    trainable = TrainableModel(patcher)
    texts = [small_text(family, tokens=77, seed=1), small_text(family, tokens=second, seed=2)]
    g = torch.Generator().manual_seed(1)
    noisy, u = torch.randn(2, trainable.channels, 8, 8, generator=g), torch.tensor([0.3, 0.7])

    def core_s(*chosen):
        conditioning = [[t["cond"], {"pooled_output": t["pooled_output"]}] for t in chosen]
        conds = {"positive": comfy.sampler_helpers.convert_cond(conditioning)}
        comfy.model_management.load_models_gpu([patcher])
        patcher.pre_run()
        with torch.no_grad():
            conds = comfy.samplers.process_conds(patcher.model, noisy, conds, noisy.device, noisy, None, 0)
            sigma = sigma_of(u, schedule=trainable.schedule)
            return comfy.samplers.calc_cond_batch(
                patcher.model, [conds["positive"]], noisy, sigma, patcher.model_options
            )[0]

    one, other = core_s(texts[0]), core_s(texts[1])
    assert (one - other).abs().max() > 1e-3
    assert torch.allclose(core_s(*texts), (one + other) / 2, rtol=1e-3, atol=1e-5)

    adapters = trainable.make_adapters(AdapterSettings(rank=4, alpha=4.0), seed=0)
    with trainable.session(adapters), torch.no_grad():
        both = trainable.denoise(noisy, u, trainable.collate(texts, [SQUARE] * 2, noisy.shape[1:]))
        for i in range(2):
            text = trainable.collate([texts[i]], [SQUARE], noisy.shape[1:])
            alone = trainable.denoise(noisy[i : i + 1], u[i : i + 1], text)
            assert torch.allclose(both[i], alone[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("sampling", "schedule"),
    [
        (comfy.model_sampling.CONST, Schedule("flow")),
        (comfy.model_sampling.EPS, Schedule("epsilon", torch.linspace(0.999, 0.01, 1000))),
    ],
)
def test_core_weighs_the_loss_by_sigma_squared_here_an_error_counts_alike_at_every_noise_level(sampling, schedule):
    """`fwd_bwd`: the loss is taken between pictures, x₀, where the same error of the prediction is σ times as large."""
    mistake, latent = 0.5, torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    job = toy_job()
    job.model.schedule = schedule
    seen = []

    def denoise(noisy, u, conditioning):
        seen.append(sigma_of(u, schedule=schedule).view(-1, 1, 1, 1))
        if schedule.prediction == "flow":
            right = (noisy - latent) / seen[-1]
        else:
            right = noisy * (1 + 1 / seen[-1] ** 2).sqrt() - latent / seen[-1]
        return right + mistake

    job.model.denoise = denoise
    batch = MicroBatch(latent, torch.ones(2, 1, 8, 8), (8, 8), None, torch.ones(2), ("a", "b"))
    for low, high in ((0.2, 0.25), (0.9, 0.95)):
        settings = LossSettings(timestep_min=low, timestep_max=high)
        terms = Objective(job.model, seed=0).terms(
            batch, settings, torch.Generator().manual_seed(0), number=0, progress=0.0
        )
        loss, _ = terms[0]()
        assert loss.item() == pytest.approx(mistake**2, rel=1e-4)
        sigma = seen[-1]
        zero = torch.zeros(2, 4, 8, 8)
        theirs = sampling.calculate_denoised(None, sigma.flatten(), zero + mistake, zero).square().mean(dim=(1, 2, 3))
        assert theirs.tolist() == pytest.approx((mistake * sigma.flatten()).square().tolist(), rel=1e-4)
        assert abs(theirs.mean().item() / mistake**2 - 1) > 0.05


def test_core_optimises_alpha_here_it_stays_what_was_set():
    """`_create_weight_adapter`: every parameter of the adapter is trained, its alpha among them."""
    _, theirs = core._create_weight_adapter(torch.nn.Linear(8, 6), "layer", {}, "LoRA", torch.float32, 4)
    assert theirs["layer.alpha"].requires_grad

    trainable = TrainableModel(small_model("flux"))
    adapters = trainable.make_adapters(AdapterSettings(rank=4, alpha=8.0), seed=0)
    parameters = adapters.parameters()
    assert {name.rpartition(".")[2] for name in parameters} == {"lora_A", "lora_B"}
    for p in parameters.values():
        p.data += 1
    assert {f.alpha for f in adapters.factors().values()} == {8.0}


def test_core_resumes_without_alpha_and_biases_and_from_its_own_file_names_only_here_any_file_goes_on_exactly():
    """`_load_existing_lora` reads the steps out of the name; `_create_weight_adapter` looks for `….weight.alpha`, which
    no file has; `_create_bias_adapter` is given no file.
    """
    trainable = TrainableModel(small_model("flux"))
    adapters = trainable.make_adapters(AdapterSettings(rank=4, alpha=8.0), seed=0)
    for p in adapters.parameters().values():
        p.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    before = adapters.factors()
    path = Path(folder_paths.get_folder_paths("loras")[0]) / "my best figure.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(to_comfyui(before), path)
    folder_paths.filename_list_cache.clear()
    with pytest.raises(ValueError, match="invalid literal for int"):
        core._load_existing_lora(path.name)

    layer = torch.nn.Linear(8, 6)
    one = {
        "layer.lora_up.weight": torch.ones(6, 4),
        "layer.lora_down.weight": torch.ones(4, 8),
        "layer.alpha": torch.tensor(8.0),
        "layer.diff_b": torch.ones(6),
    }
    _, theirs = core._create_weight_adapter(layer, "layer", one, "LoRA", torch.float32, 4)
    assert theirs["layer.alpha"].item() == 1
    _, biases = core._create_bias_adapter(layer, "layer", torch.float32)
    assert not biases["layer.diff_b"].any()

    names = layer_names(trainable.model, trainable.family)
    fresh = trainable.make_adapters(AdapterSettings(rank=4, alpha=2.0), seed=5)
    fresh.load(read_lora(path, names=names))
    for name, factors in fresh.factors().items():
        assert torch.allclose(factors.delta(), before[name].delta(), atol=1e-6)
    # Nothing beside the weights is trained, so that no bias can be lost.
    assert {key.rpartition(".lora_")[2] for key in fresh.parameters()} == {"A", "B"}


@pytest.mark.parametrize("name", ["attention_basic", "attention_split", "attention_sub_quad", "attention_pytorch"])
def test_core_s_fallback_attention_adds_a_boolean_mask_as_numbers_here_the_pinned_one_hides(name):
    """comfy/ldm/modules/attention.py:283 and 360: true is one more, false nothing, where hidden should be −∞."""
    function = getattr(attention, name)
    q, k, v = torch.randn(3, 1, 16, 2 * 8, generator=torch.Generator().manual_seed(0)).unbind()
    mask = torch.rand(16, 16, generator=torch.Generator().manual_seed(1)) > 0.6
    mask |= torch.eye(16, dtype=torch.bool)
    split = [t.view(1, 16, 2, 8).transpose(1, 2) for t in (q, k, v)]
    right = torch.nn.functional.scaled_dot_product_attention(*split, attn_mask=mask).transpose(1, 2).reshape(1, 16, 16)
    if name in ("attention_split", "attention_sub_quad"):
        assert (function(q, k, v, 2, mask=mask) - right).abs().max() > 0.5
    options = {"optimized_attention_override": pinned_attention}
    assert torch.allclose(function(q, k, v, 2, mask=mask, transformer_options=options), right, atol=1e-6)


def test_core_s_attention_follows_free_memory_here_training_has_one_whatever_was_chosen(monkeypatch):
    """ComfyUI #15845: the chunks of `attention_sub_quad` depend on what is free, so that a repeated block differs."""
    trainable = TrainableModel(small_model("flux"))
    noisy = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    adapters = trainable.make_adapters(AdapterSettings(rank=4, alpha=4.0), seed=0)

    def predict(chosen):
        monkeypatch.setattr("comfy.ldm.flux.math.optimized_attention", chosen)
        with trainable.session(adapters), torch.no_grad():
            text = trainable.collate([small_text("flux", tokens=77)], [SQUARE], noisy.shape[1:])
            return trainable.denoise(noisy, torch.tensor([0.4]), text)

    assert torch.equal(predict(attention.attention_sub_quad), predict(attention.attention_pytorch))
    # Both ways in which training pins it: through the options, and where a network passes none on.
    monkeypatch.setattr(model, "pinned_attention", lambda function, *args, **kwargs: function(*args, **kwargs))
    monkeypatch.setattr(patches, "_plain_attention", dict)
    assert not torch.equal(predict(attention.attention_sub_quad), predict(attention.attention_pytorch))


def test_core_s_data_sets_drop_alpha_and_turn_phone_pictures_here_both_are_read(tmp_path):
    """comfy_extras/nodes_dataset.py:35-40: `convert("RGB")`, and nothing of EXIF."""
    pixels = np.full((6, 10, 4), 200, np.uint8)
    pixels[:, :4, 3] = 0
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    (theirs,) = comfy_extras.nodes_dataset.load_and_process_images(["a.png"], str(tmp_path))
    assert theirs.shape == (1, 6, 10, 3)
    loaded = load_sample(load_dataset(folder_settings(tmp_path), allowed=anywhere).samples[0])
    assert loaded.rgb.shape == (10, 6, 3)
    assert loaded.mask.shape == (10, 6)
    assert not loaded.mask[:4].any() and loaded.mask[4:].all()


def test_core_takes_a_folder_of_tensors_for_a_data_set_here_caches_and_runs_lie_elsewhere(tmp_path, monkeypatch):
    """comfy_extras/nodes_dataset.py:55 `list_dataset_folders`: whatever holds a safetensors file below `datasets`."""
    roots = [Path(path).resolve() for path in folder_paths.get_folder_paths("datasets")]
    for ours in (cache_folder(), runs_folder()):
        assert not any(ours.resolve().is_relative_to(root) for root in roots)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "datasets", ([str(tmp_path)], set()))
    (tmp_path / "a cache").mkdir()
    safetensors.torch.save_file({"latent": torch.zeros(1)}, tmp_path / "a cache" / "x.safetensors")
    assert comfy_extras.nodes_dataset.list_dataset_folders() == ["a cache"]
