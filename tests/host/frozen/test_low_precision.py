"""Frozen layers multiplied in the 8 bits that they are stored in: ComfyUI's own values, gradients near the exact."""

import functools
import logging
from collections import Counter

import comfy.ops
import pytest
import torch
from torch import nn

from harness.casting import CastRun
from harness.damage import ALL
from harness.models import small_model
from harness.quantised import LAYOUTS, meant, quantised_layers, quantised_model, with_kernels
from masklora.autograd.compiled import Compiler
from masklora.autograd.frozen import frozen_linear
from masklora.host.layers.low_precision import quantised_formats
from masklora.host.model.patches import recast_layers

# How far the gradient of one layer's input is from the exact one, at most, and what the cosine of all adapters'
# gradients with the exact ones is, at least; measured over families and seeds: benchmarks/quantized_compute.py.
LAYERS = {"fp8 e4m3": 0.04, "int8": 0.015, "int8 rows": 0.015, "int8 convrot": 0.015}
STEPS = {"fp8 e4m3": 0.99, "int8": 0.998, "int8 rows": 0.998, "int8 convrot": 0.998}
EVERYWHERE = [(family, layout) for family in ("flux", "z_image", "qwen_image") for layout in LAYERS]
TRIED = EVERYWHERE if ALL else [("flux", "fp8 e4m3"), ("z_image", "int8 convrot")]
EXACTLY = [name for name in LAYOUTS if name not in LAYERS]
CPU = torch.device("cpu")
# As Load Diffusion Model does with weight_dtype fp8_e4m3fn_fast on a card that can.
FAST = {"custom_operations": comfy.ops.fp8_ops}


@functools.cache
def stored(family, layout):
    return with_kernels(quantised_model(family, LAYOUTS[layout]))


@functools.cache
def exact_gradients(family, layout):
    return CastRun(family, stored(family, layout)).gradients("per block")


@pytest.fixture(scope="module", autouse=True)
def released():
    yield
    stored.cache_clear()
    exact_gradients.cache_clear()


def apart(found, wanted):
    return float((found - wanted).detach().norm() / wanted.detach().norm())


def cosine(found, wanted):
    a, b = (torch.cat([t.flatten().double() for t in tensors]) for tensors in (found, wanted))
    return float(a @ b / (a.norm() * b.norm()))


def as_one_layer(network, layer, x, towards=None):
    """What a layer gives within a session in low precision, and with `towards` the gradient of its input."""
    with recast_layers(network, dtype=x.dtype, device=CPU, quantised=True):
        out = layer(x)
        return out if towards is None else torch.autograd.grad(out, x, towards)[0]


@pytest.mark.parametrize(("family", "layout"), TRIED)
def test_a_layer_computes_what_comfyui_s_own_computes_and_a_gradient_near_the_exact_one(family, layout):
    network = stored(family, layout).model.diffusion_model
    low, others = quantised_formats(network)
    layers = quantised_layers(network)
    assert low.total() == len(layers) > 20 and not others
    for path, layer in layers.items():
        x = torch.randn(2, 3, layer.in_features, requires_grad=True)
        towards = torch.randn(2, 3, layer.out_features)
        with torch.no_grad():
            wanted = layer(x)
        exact = x @ meant(layer).T + (0 if layer.bias is None else layer.bias)
        assert torch.equal(as_one_layer(network, layer, x), wanted), path
        assert apart(wanted, exact) > 1e-3, path
        found = as_one_layer(network, layer, x, towards)
        assert 1e-3 < apart(found, towards @ meant(layer)) < LAYERS[layout], path


@pytest.mark.parametrize("layout", ["fp8 e4m3", "int8 convrot"])
def test_tokens_outside_of_a_mask_keep_the_direction_of_a_gradient_a_million_times_smaller(layout):
    network = stored("flux", layout).model.diffusion_model
    layer = network.double_blocks[1].img_mlp[2]
    x, towards = torch.randn(4, layer.in_features, requires_grad=True), torch.randn(4, layer.out_features)
    towards[1:3] *= 1e-6
    towards[3] = 0.0
    found, wanted = as_one_layer(network, layer, x, towards), towards @ meant(layer)
    assert all(apart(a, b) < LAYERS[layout] for a, b in zip(found[:3], wanted[:3], strict=True))
    assert not found[3].any()


@pytest.mark.parametrize("layout", ["fp8 e4m3", "int8 convrot"])
def test_the_gradient_is_added_to_that_of_another_layer_of_the_same_input(layout):
    network = stored("flux", layout).model.diffusion_model
    layer = network.double_blocks[1].img_mlp[2]
    towards, added = torch.randn(5, layer.out_features), torch.randn(5, layer.in_features)
    before = added.clone()
    with recast_layers(network, dtype=torch.float32, device=CPU, quantised=True), torch.no_grad():
        frozen = frozen_linear(layer)
        assert torch.equal(frozen.gradient(towards, added), frozen.gradient(towards) + added)
    assert torch.equal(added, before)


@pytest.mark.parametrize(("family", "layout"), TRIED)
def test_adapters_have_gradients_near_those_of_full_precision_however_blocks_are_repeated(family, layout):
    run = CastRun(family, stored(family, layout), quantised=True)
    out, wanted = exact_gradients(family, layout)
    found = {mode: run.gradients(mode) for mode in ("off", "per block")}
    for values, grads in found.values():
        assert not torch.equal(values, out)
        assert STEPS[layout] < cosine(grads, wanted) < 1 - 1e-6
    a, b = found.values()
    assert apart(a[0], b[0]) <= 1e-6 and all((g - w).norm() <= 1e-5 * w.norm() for g, w in zip(a[1], b[1], strict=True))


def test_the_gradients_of_bfloat16_are_as_near():
    model = stored("flux", "int8 convrot")
    (_, wanted), (_, found) = (
        CastRun("flux", model, dtype=torch.bfloat16, quantised=on).gradients("per block") for on in (False, True)
    )
    assert STEPS["int8 convrot"] < cosine(found, wanted) < 1 - 1e-5


@pytest.mark.parametrize(("family", "layout"), TRIED)
def test_the_base_model_that_the_prior_asks_is_the_one_that_is_trained_and_comfyui_s_own(family, layout):
    run = CastRun(family, stored(family, layout), quantised=True)
    with torch.no_grad():
        own = run.predict()
    with run.trainable.session(run.adapters, checkpointing="per block"):
        with torch.no_grad(), run.adapters.disabled():
            base = run.predict()
        for name, p in run.adapters.parameters().items():
            if name.endswith("lora_B"):
                p.data.zero_()
        with run.trainable.autograd_scope():
            untrained = run.predict()
    assert untrained.requires_grad and torch.equal(base, untrained) and torch.equal(base, own)


@pytest.mark.parametrize("layout", ["fp8 e4m3", "int8 convrot"])
def test_it_is_off_by_default_also_where_comfyui_has_a_kernel(layout):
    able, forbidden = stored("flux", layout), quantised_model("flux", LAYOUTS[layout])
    for layer in quantised_layers(forbidden.model.diffusion_model).values():
        layer._full_precision_mm = True
    (out, grads), (wanted, those) = (CastRun("flux", model).gradients("per block") for model in (able, forbidden))
    assert torch.equal(out, wanted) and all(map(torch.equal, grads, those))


@pytest.mark.parametrize("layout", EXACTLY if ALL else ["nvfp4 smoothed", "fp8 e5m2"])
def test_layouts_that_have_no_such_kernel_are_multiplied_exactly(layout):
    model = stored("flux", layout)
    low, others = quantised_formats(model.model.diffusion_model)
    assert not low and others == {LAYOUTS[layout].algorithm: len(quantised_layers(model.model.diffusion_model))}
    (out, grads), (wanted, those) = (
        CastRun("flux", model, quantised=on).gradients("per block") for on in (True, False)
    )
    assert torch.equal(out, wanted) and all(map(torch.equal, grads, those))


def forbid(layer):
    layer._full_precision_mm = True


def put_forward(layer):
    own = layer.forward
    layer.forward = lambda x: own(x)


def patch_weight(layer):
    layer.weight_function = [lambda weight: weight]


def force_cast(layer):
    layer.comfy_force_cast_weights = True


@pytest.mark.parametrize("change", [forbid, put_forward, patch_weight, force_cast])
def test_a_layer_that_comfyui_itself_would_not_multiply_so_is_multiplied_exactly(change):
    model = with_kernels(quantised_model("flux", LAYOUTS["int8"]))
    network = model.model.diffusion_model
    layer = network.double_blocks[1].img_mlp[2]
    before = quantised_formats(network)[0].total()
    change(layer)
    low, others = quantised_formats(network)
    assert (low.total(), others.total()) == (before - 1, 1)
    x, towards = torch.randn(5, layer.in_features, requires_grad=True), torch.randn(5, layer.out_features)
    assert apart(as_one_layer(network, layer, x), x @ meant(layer).T + layer.bias) <= 1e-6
    assert apart(as_one_layer(network, layer, x, towards), towards @ meant(layer)) <= 1e-6


def test_a_size_that_kernels_do_not_take_is_multiplied_exactly():
    layer = with_kernels(quantised_model("flux", LAYOUTS["int8"])).model.diffusion_model.double_blocks[0].img_mlp[0]
    assert quantised_formats(layer)[0].total() == 1
    rows = layer.weight
    layer.weight = nn.Parameter(type(rows).from_float(rows.dequantize()[:-3], rows._layout_cls), requires_grad=False)
    layer.out_features -= 3
    assert quantised_formats(layer)[0].total() == 0


def test_a_weight_that_comfyui_brings_with_a_patch_on_it_is_multiplied_exactly(monkeypatch):
    """As where dynamic VRAM applies a LoRA to it on the way and does not round it again."""
    network = stored("flux", "int8").model.diffusion_model
    layer = network.double_blocks[1].img_mlp[2]
    plain = comfy.ops.cast_bias_weight

    def bring(module, **kwargs):
        weight, bias, stream = plain(module, **kwargs)
        return weight.dequantize() if module is layer else weight, bias, stream

    monkeypatch.setattr(comfy.ops, "cast_bias_weight", bring)
    x, towards = torch.randn(5, layer.in_features, requires_grad=True), torch.randn(5, layer.out_features)
    assert apart(as_one_layer(network, layer, x, towards), towards @ meant(layer)) <= 1e-6


def test_fp8_without_scales_is_multiplied_where_comfyui_was_asked_for_fast_fp8():
    plain = {"dtype": torch.float8_e4m3fn}
    fast, usual = (small_model("flux", options=plain | more) for more in (FAST, {}))
    low, others = quantised_formats(fast.model.diffusion_model)
    assert low.total() > 20 and not others and (low, Counter()) == quantised_formats(usual.model.diffusion_model)[::-1]
    network = fast.model.diffusion_model
    layer = network.double_blocks[1].img_mlp[2]
    x, towards = torch.randn(5, layer.in_features, requires_grad=True), torch.randn(5, layer.out_features)
    with torch.no_grad():
        # ComfyUI writes to what it is given.
        wanted = layer(x.clone())
    assert torch.equal(as_one_layer(network, layer, x), wanted)
    found, exact = as_one_layer(network, layer, x, towards), towards @ layer.weight.float()
    assert 1e-3 < apart(found, exact) < LAYERS["fp8 e4m3"]
    (_, grads), (_, those) = (CastRun("flux", fast, quantised=on).gradients("per block") for on in (True, False))
    assert STEPS["fp8 e4m3"] < cosine(grads, those) < 1 - 1e-6


def test_mixed_models_are_told_by_format():
    mixed = {"double_blocks.0": "fp8 e4m3", "double_blocks.1": "nvfp4", "single_blocks.0": "int8 convrot"}
    network = with_kernels(quantised_model("flux", {part: LAYOUTS[name] for part, name in mixed.items()}))
    low, others = quantised_formats(network.model.diffusion_model)
    assert set(low) == {"float8_e4m3fn", "int8_tensorwise"} and set(others) == {"nvfp4"}


def test_adapters_learn():
    run = CastRun("flux", stored("flux", "fp8 e4m3"), quantised=True)
    losses = run.losses_to_a_goal()
    assert losses[-1] < 0.97 * losses[0], losses


def test_its_blocks_are_not_compiled_and_a_person_is_told(monkeypatch):
    # pytest listens to every logger, and torch then describes each tensor that it traces.
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "handlers", [])
    lines = []
    run = CastRun("flux", stored("flux", "int8"), quantised=True)
    found = run.gradients("per block", Compiler(tell=lines.append, compile=lambda graph: graph))
    wanted = run.gradients("per block")
    assert torch.equal(found[0], wanted[0]) and all(map(torch.equal, found[1], wanted[1]))
    reason = "they are multiplied in low precision, by kernels of ComfyUI's that no graph takes up"
    assert lines == [
        f"compile: blocks of the kind {kind} run uncompiled: {reason}."
        for kind in ("DoubleStreamBlock", "SingleStreamBlock")
    ]
