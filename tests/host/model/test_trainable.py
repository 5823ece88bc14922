"""The trainable model: same predictions as ComfyUI, no trace afterwards, no second copy of the weights."""

import copy
import dataclasses

import comfy.model_management
import comfy_extras.nodes_model_advanced
import pytest
import torch

from harness.models import small_model, small_side, small_text
from harness.small import small_models
from harness.training import LIGHT
from masklora.dataset.geometry import Geometry, plan_cut_geometry
from masklora.errors import AdapterError, FamilyError
from masklora.host.model.conditioning import size_conditioning
from masklora.host.model.sampling_schedule import told_level
from masklora.host.model.trainable import TrainableModel
from masklora.host.notes import model_notes
from masklora.loss.noise import add_noise
from masklora.settings import AdapterSettings

SQUARE = Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))


def make_adapters(trainable, **settings):
    adapters = trainable.make_adapters(AdapterSettings(**{"rank": 4, "alpha": 4.0, **settings}), seed=0)
    for name, p in adapters.parameters().items():
        if name.endswith("lora_B"):
            p.data.normal_(0, 0.02, generator=torch.Generator().manual_seed(3))
    return adapters


def batch(trainable, n=2):
    g = torch.Generator().manual_seed(1)
    shape = n, trainable.channels, *[small_side(trainable.family)] * 2
    latent, noise = (torch.randn(shape, generator=g) for _ in range(2))
    u = torch.linspace(0.2, 0.8, n)
    return add_noise(latent, noise, u, schedule=trainable.schedule), u, latent


def network_state(patcher):
    return {k: v.clone() for k, v in patcher.model.state_dict().items()}


def assert_untouched(patcher, before, ids):
    after = patcher.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], before[k]) for k in before)
    assert [id(p) for p in patcher.model.parameters()] == ids
    assert not any("forward" in m.__dict__ for m in patcher.model.modules())
    assert not comfy.model_management.in_training


@pytest.mark.parametrize("ending", ["normal", "error", "cancel"])
@pytest.mark.parametrize("family", LIGHT)
def test_model_is_bit_identical_after_training_however_it_ends(family, ending):
    patcher = small_model(family)
    before, ids = network_state(patcher), [id(p) for p in patcher.model.parameters()]
    trainable = TrainableModel(patcher)
    adapters = make_adapters(trainable)
    stop = {
        "error": RuntimeError,
        "cancel": comfy.model_management.InterruptProcessingException,
        "normal": None,
    }
    try:
        with trainable.session(adapters):
            noisy, u, _ = batch(trainable)
            text = small_text(family, tokens=77)
            out = trainable.denoise(noisy, u, trainable.collate([text] * 2, [SQUARE] * 2, noisy.shape[1:]))
            out.square().mean().backward()
            if stop[ending]:
                raise stop[ending]("stopped")
    except (RuntimeError, comfy.model_management.InterruptProcessingException):
        assert ending != "normal"
    assert_untouched(patcher, before, ids)


def test_core_loads_a_second_model_to_train_here_one_loaded_in_inference_mode_trains_in_its_own_memory():
    """comfy_extras/nodes_train.py, TrainLoraNode: `clone(force_deepcopy=True)` loads the model's file once more."""
    with torch.inference_mode():
        patcher = small_model("flux")
        patcher.cached_patcher_init = (lambda disable_dynamic: small_model("flux"), ())
        copies = {p.data_ptr() for p in patcher.clone(force_deepcopy=True).model.parameters()}
        assert copies.isdisjoint(p.data_ptr() for p in patcher.model.parameters())
        assert next(patcher.model.diffusion_model.parameters()).is_inference()
        pointers = {n: p.data_ptr() for n, p in patcher.model.named_parameters()}
        before = network_state(patcher)
        ids = [id(p) for p in patcher.model.parameters()]
        trainable = TrainableModel(patcher)
        adapters = make_adapters(trainable)
        with trainable.session(adapters, checkpointing="off"), trainable.autograd_scope():
            inside = {n.replace(".base_layer", ""): p.data_ptr() for n, p in patcher.model.named_parameters()}
            assert all(inside[n] == pointer for n, pointer in pointers.items())
            noisy, u, _ = batch(trainable)
            text = small_text("flux", tokens=77)
            conditioning = trainable.collate([text] * 2, [SQUARE] * 2, noisy.shape[1:])
            trainable.denoise(noisy, u, conditioning).square().mean().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapters.parameters().values())
        assert_untouched(patcher, before, ids)


def test_conditioning_is_kept_by_the_caption_s_key_geometry_and_shape_until_the_session_ends():
    trainable = TrainableModel(small_model("sdxl"))
    one, other = (small_text("sdxl", tokens=77, seed=seed) for seed in (0, 1))
    shape = (trainable.channels, 8, 8)
    wide = dataclasses.replace(SQUARE, source=(96, 64))

    def made(text, key, *, geometry=SQUARE, shape=shape):
        return trainable.collate([text], [geometry], shape, keys=[key])[0]

    with trainable.session(make_adapters(trainable)):
        first = made(one, "a")
        assert made(dict(one), "a") is first
        assert made(one, "a", geometry=wide) is not first and made(one, "a", shape=(*shape[:2], 16)) is not first
        assert not torch.equal(made(other, "b")["c_crossattn"], first["c_crossattn"])
        assert trainable.collate([one], [SQUARE], shape)[0] is not first
    with trainable.session(make_adapters(trainable)):
        assert made(one, "a") is not first


def test_layers_for_the_text_alone_see_each_text_once_unless_they_are_trained_themselves():
    trainable = TrainableModel(small_model("anima"))
    calls = []
    trainable.network.llm_adapter.register_forward_hook(lambda *_: calls.append(torch.is_inference_mode_enabled()))
    noisy, u, text = torch.randn(1, 16, 8, 8), torch.tensor([0.3]), small_text("anima", tokens=9)
    found = {}
    for include in ("", r"llm_adapter\.out_proj"):
        adapters = trainable.make_adapters(AdapterSettings(rank=4, alpha=4.0, include=include), seed=0)
        with trainable.session(adapters, checkpointing="off"):
            for _ in range(3):
                conds = trainable.collate([text], [SQUARE], noisy.shape[1:], keys=["a"])
                found[include] = trainable.denoise(noisy, u, conds)
            found[include].square().mean().backward()
        assert calls == ([False] * 3 if include else [True])
        assert not any(value.is_inference() for value in conds[0].values())
        calls.clear()
    assert torch.allclose(*found.values(), rtol=1e-5, atol=1e-6)
    assert all(p.grad is not None for p in adapters.parameters().values())


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("family", LIGHT)
def test_no_cast_copy_of_a_frozen_weight_is_kept_for_backward(family, stored):
    patcher = small_model(family)
    weights = [m.weight for m in patcher.model.diffusion_model.modules() if isinstance(m, torch.nn.Linear)]
    for w in weights:
        w.data = w.data.to(stored)
    shapes = {tuple(w.shape) for w in weights} | {tuple(w.t().shape) for w in weights}
    patcher.model.manual_cast_dtype = torch.float32
    for m in patcher.model.diffusion_model.modules():
        if hasattr(m, "comfy_cast_weights"):
            m.comfy_cast_weights = True
    trainable = TrainableModel(patcher, dtype=torch.float32)
    adapters = make_adapters(trainable)
    own = {p.data_ptr() for p in adapters.parameters().values()}
    saved = []

    def keep(t):
        if tuple(t.shape) in shapes and t.data_ptr() not in own:
            saved.append((tuple(t.shape), t.dtype))
        return t

    with trainable.session(adapters, checkpointing="off"), trainable.autograd_scope():
        # Three samples: two of Z-Image would have as many tokens as it has features.
        noisy, u, _ = batch(trainable, n=3)
        text = small_text(family, tokens=77)
        conditioning = trainable.collate([text] * 3, [SQUARE] * 3, noisy.shape[1:])
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            loss = trainable.denoise(noisy, u, conditioning).square().mean()
        loss.backward()
    assert saved == []
    # Nothing reads the text tokens of Qwen-Image's and JoyImage's last block.
    last = [n for n, p in adapters.parameters().items() if p.grad is None]
    assert all("_blocks.2." in n and ("add_out" in n or "txt" in n) for n in last), last
    assert all(p.grad.isfinite().all() for p in adapters.parameters().values() if p.grad is not None)


def test_gradients_through_cast_weights_equal_those_of_the_cast_model():
    plain, cast = small_model("flux"), small_model("flux")
    for a, b in zip(plain.model.parameters(), cast.model.parameters(), strict=True):
        b.data = b.data.to(torch.bfloat16)
        a.data = b.data.float()
    for m in cast.model.modules():
        if hasattr(m, "comfy_cast_weights"):
            m.comfy_cast_weights = True
    found = []
    for patcher in (plain, cast):
        trainable = TrainableModel(patcher, dtype=torch.float32)
        adapters = make_adapters(trainable)
        with trainable.session(adapters):
            noisy, u, _ = batch(trainable)
            text = small_text("flux", tokens=77)
            out = trainable.denoise(noisy, u, trainable.collate([text] * 2, [SQUARE] * 2, noisy.shape[1:]))
            out.square().mean().backward()
        found.append({n: p.grad for n, p in adapters.parameters().items()})
    for name, grad in found[0].items():
        assert torch.allclose(grad, found[1][name], rtol=1e-4, atol=1e-6), name


def test_a_failed_making_of_adapters_gives_the_network_its_own_layers_back(monkeypatch):
    patcher = small_model("sd15")
    before = {name: type(m) for name, m in patcher.model.diffusion_model.named_modules()}
    made = []

    def fail_at_the_fifth(*args, **kwargs):
        made.append(args)
        if len(made) == 5:
            raise MemoryError
        return init(*args, **kwargs)

    init = torch.nn.init.kaiming_uniform_
    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", fail_at_the_fifth)
    with pytest.raises(MemoryError):
        make_adapters(TrainableModel(patcher))
    assert {name: type(m) for name, m in patcher.model.diffusion_model.named_modules()} == before
    assert "peft_config" not in patcher.model.diffusion_model.__dict__


def test_continuing_between_lora_and_dora_keeps_the_applied_change_or_is_refused():
    trainable = TrainableModel(small_model("sd3"))
    plain = make_adapters(trainable).factors()
    dora = make_adapters(trainable, algorithm="dora")
    dora.load(plain)
    layer = next(iter(plain))
    weight = trainable.network.get_submodule(layer).weight.detach()
    length = dora.parameters()[f"{layer}.magnitude"].detach().flatten()
    assert torch.allclose(length, (weight + plain[layer].delta()).norm(dim=1), rtol=1e-5)
    with pytest.raises(AdapterError, match="Set algorithm to dora"):
        make_adapters(trainable).load(dora.factors())


def test_crop_coordinates_of_a_mirrored_picture_are_those_of_the_mirrored_picture():
    plain = Geometry(source=(200, 100), resized=(128, 64), crop=(10, 0, 64, 64))
    mirrored = size_conditioning(dataclasses.replace(plain, flip=True))
    assert size_conditioning(plain)["crop_w"] == 10
    assert mirrored == {**size_conditioning(plain), "crop_w": 128 - 10 - 64}
    beyond = dataclasses.replace(plain, crop=(-5, -3, 64, 64), angle=45.0)
    assert (size_conditioning(beyond)["crop_w"], size_conditioning(beyond)["crop_h"]) == (0, 0)


def test_a_masked_crop_is_told_to_the_network_as_what_it_is():
    """As SDXL was trained: the file's size, the corner of the crop in the resized picture, the size that is seen."""
    geometry = plan_cut_geometry((2048, 1536), (1024, 768), (384, 512), (0.5, 0.25, 0.625, 0.75))
    assert size_conditioning(geometry) == {
        "width": 2048,
        "height": 1536,
        "crop_w": 576 - 192,
        "crop_h": 384 - 256,
        "target_width": 384,
        "target_height": 512,
    }


def test_unknown_family_names_the_known_ones():
    patcher = small_model("sd15")
    patcher.model.model_config = type("Mystery", (), {})()
    with pytest.raises(FamilyError, match=r"Mystery.*FLUX.*Stable Diffusion 1\.5"):
        TrainableModel(patcher)


def test_dora_is_refused_on_quantised_weights():
    patcher = small_model("flux")
    for m in patcher.model.diffusion_model.modules():
        if isinstance(m, torch.nn.Linear):
            m.weight.data = m.weight.data.to(torch.float8_e4m3fn)
    with pytest.raises(AdapterError, match="DoRA"):
        make_adapters(TrainableModel(patcher, dtype=torch.float32), algorithm="dora")


def test_prediction_follows_a_sampling_patch_on_the_model():
    patcher = small_model("sd15")
    assert TrainableModel(patcher).schedule.prediction == "epsilon"
    node = comfy_extras.nodes_model_advanced.ModelSamplingDiscrete()
    (patched,) = node.patch(patcher, "v_prediction", zsnr=False)
    assert TrainableModel(patched).schedule.prediction == "v"
    for kind in ("x0", "lcm"):
        (patched,) = node.patch(patcher, kind, zsnr=False)
        with pytest.raises(FamilyError, match="predicts epsilon or v"):
            TrainableModel(patched)


@pytest.mark.parametrize("kind", ["v_prediction", "eps"])
def test_a_sampling_that_tells_the_network_of_noise_in_another_way_is_refused(kind):
    node = comfy_extras.nodes_model_advanced.ModelSamplingContinuousEDM()
    (patched,) = node.patch(small_model("sd15"), kind, 120.0, 0.002)
    with pytest.raises(FamilyError, match=r"ModelSamplingContinuousEDM sampling cannot be trained: it mixes noise"):
        TrainableModel(patched)


def test_a_sampling_with_noise_of_another_strength_is_refused():
    patcher = small_model("sd3")
    patcher.model.model_sampling.set_noise_scale(8.0)
    with pytest.raises(FamilyError, match=r"Stable Diffusion 3 cannot be trained: its noise is 8 times as strong"):
        TrainableModel(patcher)


@pytest.mark.parametrize("name", ["hunyuan_image", "hunyuan_video15"])
def test_a_model_that_asks_for_the_steps_of_a_sampler_is_refused(name):
    small = small_models()[name]
    distilled = dataclasses.replace(small, keys={**small.keys, "time_r_in.in_layer.weight": (1,)})
    with pytest.raises(FamilyError, match="is distilled for few steps"):
        TrainableModel(distilled.shrunk(torch.float32))


def test_a_flow_model_whose_sigma_is_a_ratio_is_told_the_noise_level_up_to_pure_noise():
    trainable = TrainableModel(small_model("cosmos_predict2"))
    u = torch.tensor([0.0, 0.25, 1.0])
    assert trainable.schedule.prediction == "flow"
    assert torch.equal(told_level(u, trainable._sampling, trainable.schedule), u)


@pytest.mark.parametrize("changed", ["calculate_input", "calculate_denoised", "noise_scaling", "timestep"])
def test_a_sampling_that_only_passes_for_such_a_flow_model_is_refused(changed):
    patcher = small_model("cosmos_predict2")
    sampling = patcher.model.model_sampling
    plain = getattr(sampling, changed)
    setattr(sampling, changed, lambda *given: 1.1 * plain(*given))
    with pytest.raises(FamilyError, match=r"ModelSamplingCosmosRFlow sampling cannot be trained: it mixes noise"):
        TrainableModel(patcher)


@pytest.mark.parametrize("zsnr", [False, True])
def test_samplings_that_only_move_the_noise_levels_are_taken(zsnr):
    advanced = comfy_extras.nodes_model_advanced
    (v,) = advanced.ModelSamplingDiscrete().patch(small_model("sd15"), "v_prediction", zsnr=zsnr)
    (shifted,) = advanced.ModelSamplingSD3().patch(small_model("sd3"), 5.0)
    (fluxed,) = advanced.ModelSamplingFlux().patch(small_model("flux"), 1.5, 0.5, 1024, 512)
    assert [TrainableModel(m).schedule.prediction for m in (v, shifted, fluxed)] == ["v", "flow", "flow"]


@pytest.mark.parametrize("path", ["joint_blocks.0", "joint_blocks.0.x_block.attn.qkv"])
def test_what_another_pack_exchanges_at_loading_is_what_is_trained_and_it_stays(path):
    patched = small_model("sd3").clone()
    other = copy.deepcopy(patched.model.diffusion_model.get_submodule(path))
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.5)
    patched.add_object_patch(f"diffusion_model.{path}", other)
    trainable = TrainableModel(patched)
    adapters = make_adapters(trainable)
    noisy, u, _ = batch(trainable)
    texts, shape = [small_text("sd3")] * 2, noisy.shape[1:]

    def predict():
        return trainable.denoise(noisy, u, trainable.collate(texts, [SQUARE] * 2, shape))

    assert len(trainable.blocks) == 2
    trainable.load(activation_bytes=0)
    with torch.no_grad():
        untrained = predict()
    with trainable.session(adapters):
        assert {id(block) for block, _ in trainable.blocks} == set(map(id, trainable.network.joint_blocks))
        with adapters.disabled(), torch.no_grad():
            assert torch.equal(predict(), untrained)
        predict().square().mean().backward()
    first = adapters.parameters()["joint_blocks.0.x_block.attn.qkv.lora_A"]
    assert first.grad is not None and first.grad.abs().max() > 0
    assert trainable.network.get_submodule(path) is other
    with torch.no_grad():
        assert torch.equal(predict(), untrained)


def test_an_exchanged_layer_of_another_shape_is_named():
    patched = small_model("sd3").clone()
    patched.add_object_patch("diffusion_model.joint_blocks.0.x_block.attn.qkv", torch.nn.Linear(3, 5))
    trainable = TrainableModel(patched)
    adapters = make_adapters(trainable)
    trainable.load(activation_bytes=0)
    told = pytest.raises(AdapterError, match=r"joint_blocks\.0\.x_block\.attn\.qkv was exchanged")
    with told, trainable.session(adapters):
        pass
    assert not comfy.model_management.in_training


def test_shift_of_flow_models_is_the_one_that_core_samples_with():
    assert TrainableModel(small_model("sd3")).schedule.shift == pytest.approx(3.0)
    flux = small_model("flux")
    shift = TrainableModel(flux).schedule.shift
    half = shift * 0.5 / (1 + (shift - 1) * 0.5)
    assert half == pytest.approx(float(flux.model.model_sampling.percent_to_sigma(0.5)), abs=1e-6)


def test_patches_on_the_incoming_model_are_told():
    patcher = small_model("sd3")
    key = next(k for k in patcher.model.state_dict() if k.endswith("qkv.weight"))
    patched = patcher.clone()
    patched.add_patches({key: (torch.zeros_like(patcher.model.state_dict()[key]),)})
    assert "on 1 weight:" in model_notes(TrainableModel(patched))[0]
    assert model_notes(TrainableModel(patcher)) == []


@pytest.mark.parametrize("kind", ["apply_model", "predict_noise", "outer_sample", "attention", "function", "cfg"])
def test_what_of_the_model_s_patches_is_not_trained_with_is_told(kind):
    patched = small_model("sd3").clone()
    if kind == "attention":
        patched.model_options["transformer_options"]["optimized_attention_override"] = lambda f, *a, **k: f(*a, **k)
    elif kind == "function":
        patched.set_model_unet_function_wrapper(lambda apply, given: apply(given["input"], given["timestep"]))
    elif kind == "cfg":
        patched.set_model_sampler_cfg_function(lambda given: given["cond"])
    else:
        patched.add_wrapper(kind, lambda executor, *a, **k: executor(*a, **k))
    (told,) = model_notes(TrainableModel(patched))
    assert ("attention function of its own" if kind == "attention" else "trained without them") in told


def test_what_acts_inside_the_network_is_trained_with_and_needs_no_word():
    patched = small_model("sd3").clone()
    patched.add_wrapper("diffusion_model", lambda executor, *a, **k: executor(*a, **k))
    assert model_notes(TrainableModel(patched)) == []
