"""Frozen weights in every layout of ComfyUI's quantisation table: exact gradients, and nothing kept for them."""

import contextlib
import functools
import gc
import weakref

import pytest
import torch
from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor

from harness.casting import CastRun
from harness.damage import ALL
from harness.models import small_model
from harness.quantised import LAYOUTS, dequantised_model, meant, quantised_layers, quantised_model, with_kernels
from masklora.host.model.patches import recast_layers

# A scale for all, scales of blocks, a rotation, and two numbers in a byte.
KINDS = ("fp8 e4m3", "nvfp4 smoothed", "int8 convrot", "w4a4 convrot")
SHOWN = tuple(LAYOUTS) if ALL else KINDS
FAMILIES = ("flux", "z_image", "qwen_image") if ALL else ("flux",)
EVERYWHERE = [(family, layout) for family in FAMILIES for layout in SHOWN]
MIXED = {"double_blocks.0": "fp8 e4m3", "double_blocks.1": "nvfp4", "single_blocks.0": "int8 convrot"}
# How far a layout's weight is from the one it was made of, at most.
ROUNDING = {"fp8 e4m3": 0.04, "fp8 e5m2": 0.08, "mxfp8": 0.05, "int8": 0.05, "int8 rows": 0.02, "int8 convrot": 0.02}


@functools.cache
def stored(family, layout):
    if layout == "mixed":
        return quantised_model(family, {part: LAYOUTS[name] for part, name in MIXED.items()})
    return quantised_model(family, LAYOUTS[layout])


@functools.cache
def plain_gradients(family, layout):
    return CastRun(family, dequantised_model(family, stored(family, layout))).gradients("off")


@functools.cache
def kept_by_plain(family, dtype, mode):
    return keeps(CastRun(family, small_model(family, dtype=dtype), dtype=dtype), mode)


@pytest.fixture(scope="module", autouse=True)
def released():
    yield
    for cache in (stored, plain_gradients, kept_by_plain):
        cache.cache_clear()


def apart(found, wanted):
    found, wanted = found.detach().double(), wanted.detach().double()
    return float((found - wanted).norm() / wanted.norm())


def test_every_algorithm_of_the_table_is_tried():
    assert {layout.algorithm for layout in LAYOUTS.values()} == set(QUANT_ALGOS)


@pytest.mark.parametrize("layout", SHOWN)
def test_the_gradient_of_a_layer_s_input_is_that_against_the_matrix_its_file_means(layout):
    network = stored("flux", layout).model.diffusion_model
    originals = small_model("flux").model.diffusion_model
    layers = quantised_layers(network)
    assert len(layers) > 20
    with recast_layers(network, dtype=torch.float32, device=torch.device("cpu")):
        for path, layer in layers.items():
            x = torch.randn(2, 3, layer.in_features, requires_grad=True)
            towards = torch.randn(2, 3, layer.out_features)
            out = layer(x)
            (found,) = torch.autograd.grad(out, x, towards)
            assert apart(found, towards @ meant(layer)) <= 1e-6, path
            assert apart(out, x @ meant(layer).T + layer.bias) <= 1e-6, path
            # In the basis of x, and of its size: the file was made of this matrix.
            assert apart(found, towards @ originals.get_submodule(path).weight) <= ROUNDING.get(layout, 0.15), path


@pytest.mark.parametrize(("family", "layout"), [*EVERYWHERE, ("flux", "mixed")])
def test_adapters_have_the_gradients_that_they_have_on_the_dequantised_model(family, layout):
    out, wanted = plain_gradients(family, layout)
    # (x·s)·W and x·(s·W) are rounded differently.
    most = 5e-6 if layout.endswith("smoothed") else 1e-6
    for mode in ("off", "per block"):
        found, grads = CastRun(family, stored(family, layout)).gradients(mode)
        assert apart(found, out) <= most
        assert all((g - w).norm() <= most * w.norm() for g, w in zip(grads, wanted, strict=True)), mode


def memory_of(tensor):
    """Its storage's identity and bytes; of quantised ones those of the stored numbers."""
    storage = getattr(tensor, "_qdata", tensor).untyped_storage()
    return storage._cdata, storage.nbytes()


@contextlib.contextmanager
def kept_copies(network):
    """Bytes that autograd saves beside the network's own tensors, by storage, and dequantised weights, weakly."""
    own = {memory_of(t)[0] for t in (*network.parameters(), *network.buffers())}
    saved, made, held = {}, [], []
    plain = QuantizedTensor.dequantize

    def keep(tensor):
        identity, size = memory_of(tensor)
        if identity not in own:
            saved[identity] = size
            held.append(tensor)
        return tensor

    def noted(weight):
        out = plain(weight)
        made.append(weakref.ref(out))
        return out

    with pytest.MonkeyPatch.context() as patch, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        patch.setattr(QuantizedTensor, "dequantize", noted)
        yield saved, made


def keeps(run, mode):
    """Bytes kept for backward in mode, and how many dequantised weights were made and are still there."""
    with run.trainable.session(run.adapters, checkpointing=mode), run.trainable.autograd_scope():
        with kept_copies(run.network) as (saved, made):
            out = run.predict()
        gc.collect()
        assert out.requires_grad
        return sum(saved.values()), len(made), sum(one() is not None for one in made)


# ComfyUI dequantises to float32 on a CPU; to compute in another type is another way through its casts.
IN_FLOAT32 = [(*where, torch.float32) for where in [*EVERYWHERE, ("flux", "mixed")]]
IN_BFLOAT16 = [(*where, torch.bfloat16) for where in (EVERYWHERE if ALL else [("flux", "int8 convrot")])]


@pytest.mark.parametrize(("family", "layout", "dtype"), [*IN_FLOAT32, *IN_BFLOAT16])
def test_no_more_is_kept_for_backward_than_by_a_model_with_plain_weights(family, layout, dtype):
    """Nothing that a weight was cast or dequantised to outlives the product, and no copy of it is saved."""
    quantised = CastRun(family, stored(family, layout), dtype=dtype)
    layers = len(quantised_layers(quantised.network))
    for mode in ("off", "per block"):
        wanted, none, _ = kept_by_plain(family, dtype, mode)
        found, made, alive = keeps(quantised, mode)
        assert (none, alive) == (0, 0) and made >= layers > 10
        assert 0 < found <= wanted, mode


@pytest.mark.parametrize("layout", ["fp8 e4m3", "int8", "int8 rows", "int8 convrot"] if ALL else ["int8 convrot"])
def test_no_more_is_kept_where_layers_are_multiplied_in_low_precision(layout):
    """No rounded input, no weight turned around for the gradient."""
    run = CastRun("flux", with_kernels(quantised_model("flux", LAYOUTS[layout])), quantised=True)
    for mode in ("off", "per block"):
        wanted, _, _ = kept_by_plain("flux", torch.float32, mode)
        found, _, alive = keeps(run, mode)
        assert 0 < found <= wanted and not alive, mode


@pytest.mark.parametrize(("family", "layout"), [*EVERYWHERE, ("flux", "mixed")])
def test_adapters_learn_on_quantised_weights(family, layout):
    run = CastRun(family, stored(family, layout))
    losses = run.losses_to_a_goal()
    assert losses[-1] < 0.97 * losses[0], losses


@contextlib.contextmanager
def full_precision(network):
    """ComfyUI takes the path on which it multiplies by dequantised weights, that of a LoRA that changes nothing."""
    layers = quantised_layers(network).values()
    for layer in layers:
        layer.weight_function = [lambda weight: weight]
    try:
        yield
    finally:
        for layer in layers:
            del layer.weight_function


@pytest.mark.parametrize(("family", "layout"), [*EVERYWHERE, ("flux", "mixed")])
def test_training_computes_what_comfyui_computes_where_it_does_not_multiply_in_low_precision(family, layout):
    run = CastRun(family, stored(family, layout))
    with torch.no_grad():
        with full_precision(run.network):
            exact = run.predict()
        with run.trainable.session(run.adapters, checkpointing="off"), torch.no_grad(), run.adapters.disabled():
            ours = run.predict()
    assert torch.equal(ours, exact)


@pytest.mark.parametrize("layout", ["nvfp4 smoothed", "int8 convrot", "int8"])
def test_the_forward_of_another_pack_multiplies_exactly_too(layout):
    """It calls the class's own, which would round its input, and in backward the gradient."""
    found = []
    for model in (stored("flux", layout), dequantised_model("flux", stored("flux", layout))):
        run = CastRun("flux", model)
        layer = run.network.double_blocks[1].img_mlp[2]
        before = dict(vars(layer))
        own = layer.forward
        layer.forward = lambda x, own=own: torch.tanh(own(x))
        try:
            found += [run.gradients(mode)[1] for mode in ("off", "per block")]
        finally:
            del layer.forward
        assert vars(layer) == before
    wanted = found[2]
    assert any(
        (g - w).norm() > 1e-3 * w.norm() for g, w in zip(wanted, plain_gradients("flux", layout)[1], strict=True)
    )
    for grads in (*found[:2], found[3]):
        assert all((g - w).norm() <= 5e-6 * w.norm() for g, w in zip(grads, wanted, strict=True))
