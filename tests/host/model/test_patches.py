"""What the session replaces in ComfyUI and in a network: it works, and all of it is put back."""

import contextlib
import functools
import sys

import comfy.ldm.cosmos.predict2
import comfy.model_management
import comfy.ops
import comfy.quant_ops
import comfy_kitchen
import pytest
import torch
from torch import nn

from benchmarks.gradients import MODES, Problem
from harness.bare_networks import BareNetwork
from harness.casting import cast_run, hollow_calls
from harness.models import small_model
from masklora.autograd.forwards import has_foreign_forward
from masklora.autograd.recompute import checkpoint_blocks
from masklora.host.families.flux2 import FAMILY
from masklora.host.model import patches
from masklora.host.model.blocks import find_blocks


def bent(out):
    """Of a tensor or a tuple of them, something whose gradient depends on the values."""
    return tuple(bent(x) for x in out) if isinstance(out, tuple) else out + 0.3 * torch.tanh(out)


def put_forward(module):
    """As another pack may do it; what is on the instance then."""
    own = module.forward

    def foreign(*args, **kwargs):
        return bent(own(*args, **kwargs))

    module.forward = foreign
    return foreign


def put_class_forward(module):
    """As another pack may do it that never looked at the instance."""
    module.forward = functools.partial(lambda m, *a, **k: bent(type(m).forward(m, *a, **k)), module)
    return module.forward


def put_hook(module):
    return module.register_forward_hook(lambda m, args, out: bent(out))


def put_pre_hook(module):
    return module.register_forward_pre_hook(
        lambda m, args, kwargs: (tuple(bent(a) for a in args), kwargs), with_kwargs=True
    )


# In Flux: blocks, the last layers of their branches, with and without LoRA, norms, parents of them, and outside.
PLACES = (
    "double_blocks.0",
    "single_blocks.1",
    "double_blocks.0.img_mlp.2",
    "double_blocks.1.img_mlp",
    "single_blocks.0.linear2",
    "double_blocks.1.img_mod.lin",
    "double_blocks.0.img_attn.norm.query_norm",
    "img_in",
)


@functools.cache
def untouched():
    return Problem("flux", dtype=torch.float64).gradients("per block")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("put", [put_forward, put_hook])
def test_what_another_pack_put_on_a_module_acts_in_every_checkpointing_mode(put, place):
    problem = Problem("flux", dtype=torch.float64)
    module = problem.network.get_submodule(place)
    theirs = put(module)
    found = {mode: problem.gradients(mode) for mode in MODES}
    direction = problem.direction(found["off"])
    truth = problem.finite_difference(direction)
    for mode in MODES:
        claimed = float(sum((found[mode][n] * direction[n]).sum() for n in direction))
        assert abs(claimed - truth) <= 1e-9 * abs(truth), mode
        assert all((found[mode][n] - g).norm() <= 1e-11 * g.norm() for n, g in found["off"].items()), mode
    assert any((found["off"][n] - g).norm() > 1e-3 * g.norm() for n, g in untouched().items()), "no effect"
    assert problem.network.get_submodule(place) is module
    if put is put_forward:
        assert vars(module)["forward"] is theirs
    else:
        assert list(module._forward_hooks) == [theirs.id]
        assert "forward" not in vars(module)
    assert not any(has_foreign_forward(m) for m in problem.network.modules() if m is not module)


@pytest.mark.parametrize("place", ["double_blocks.0.img_mlp.2", "single_blocks.0"])
def test_a_hook_on_the_input_acts_in_every_checkpointing_mode(place):
    problem = Problem("flux", dtype=torch.float64)
    handle = put_pre_hook(problem.network.get_submodule(place))
    off, *others = (problem.gradients(mode) for mode in MODES)
    handle.remove()
    assert any((off[n] - g).norm() > 1e-3 * g.norm() for n, g in untouched().items()), "no effect"
    for found in others:
        assert all((found[n] - g).norm() <= 1e-11 * g.norm() for n, g in off.items())


@pytest.mark.parametrize(
    "place", ["input_blocks.1.0.out_layers.3", "input_blocks.1.1.transformer_blocks.0.ff.net.2", "out.0"]
)
def test_convolutions_and_norms_of_a_u_net_keep_the_forward_of_another_pack(place):
    problem = Problem("sd15", dtype=torch.float64, targets="all")
    plain = problem.gradients("off")
    theirs = put_forward(problem.network.get_submodule(place))
    off, blocks = (problem.gradients(m) for m in ("off", "per block"))
    assert any((off[n] - g).norm() > 1e-3 * g.norm() for n, g in plain.items()), "no effect"
    assert all((off[n] - blocks[n]).norm() <= 1e-12 * off[n].norm() for n in off)
    assert vars(problem.network.get_submodule(place))["forward"] is theirs


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("dtype", "put"),
    [(torch.bfloat16, put_forward), (torch.bfloat16, put_class_forward), (torch.float8_e4m3fn, put_forward)],
    ids=["bf16", "bf16-class", "fp8"],
)
def test_the_forward_of_another_pack_acts_where_weights_are_cast_too(dtype, put, place):
    def change(network):
        put(network.get_submodule(place))

    plain, _, _ = cast_run(dtype, "off")
    outs, grads, networks = zip(*(cast_run(dtype, mode, change) for mode in MODES), strict=True)
    assert (outs[0] - plain).norm() > 1e-4 * plain.norm(), "no effect"
    for out, found, network in zip(outs, grads, networks, strict=True):
        assert torch.allclose(out, outs[0], rtol=1e-5, atol=1e-6)
        assert all((a - b).norm() <= 1e-5 * b.norm() for a, b in zip(found, grads[0], strict=True))
        changed = [n for n, m in network.named_modules() if "forward" in vars(m)]
        assert changed == [place]


def test_a_cast_layer_of_another_pack_that_runs_other_layers_keeps_their_gradient():
    torch.manual_seed(0)
    cast = comfy.ops.manual_cast.Linear(4, 4, dtype=torch.bfloat16).requires_grad_(False)
    for p in cast.parameters():
        p.normal_()  # ComfyUI's layers are made of whatever was in memory.
    network = nn.ModuleList([cast, nn.Linear(4, 4)])
    own, x = cast.forward, torch.randn(3, 4)
    cast.forward = lambda x: own(x) * network[1](x)
    plain = torch.autograd.grad(cast(x).sum(), network[1].parameters())
    with patches.recast_layers(network, dtype=torch.float32, device=torch.device("cpu")):
        found = torch.autograd.grad(cast(x).sum(), network[1].parameters())
    assert all(torch.allclose(a, b) for a, b in zip(found, plain, strict=True))


def test_a_layer_of_another_pack_casts_its_weights_where_its_class_would_not():
    """Half-precision weights that ComfyUI computes with as they are, and training does not."""
    network = small_model("flux").model.diffusion_model
    layer = network.double_blocks[0].img_mlp[2].half()
    before = dict(vars(layer))
    foreign = put_class_forward(layer)
    x = torch.randn(3, layer.in_features, requires_grad=True)
    with patches.recast_layers(network, dtype=torch.float32, device=torch.device("cpu")):
        out = layer(x)
        out.sum().backward()
    expected = torch.nn.functional.linear(x, layer.weight.float(), layer.bias.float())
    assert torch.allclose(out, bent(expected), rtol=1e-5, atol=1e-6)
    assert x.grad is not None
    assert vars(layer) == {**before, "forward": foreign}


def test_random_numbers_of_another_pack_are_the_same_when_a_block_is_repeated():
    problem = Problem("flux", dtype=torch.float64)
    module = problem.network.double_blocks[0].img_mlp
    own = module.forward
    module.forward = lambda x: own(x) * torch.rand_like(x[..., :1])
    off, *others = (problem.gradients(mode) for mode in MODES)
    for found in others:
        assert all((found[n] - g).norm() <= 1e-11 * g.norm() for n, g in off.items())


def test_layers_are_repeated_in_full_only_in_the_blocks_that_others_have_changed():
    problem = Problem("flux", dtype=torch.float32)
    with hollow_calls() as calls:
        problem.gradients("per block")
    untouched_calls = len(calls)
    put_forward(problem.network.double_blocks[0].img_mlp[2])
    with hollow_calls() as calls:
        problem.gradients("per block")
    assert untouched_calls == 6
    assert len(calls) == 4


def test_a_patch_that_may_read_a_layer_s_result_finds_its_values():
    patcher_of = Problem("sd15", dtype=torch.float32, targets="all")
    patcher_of.trainable.patcher.set_model_attn1_output_patch(lambda out, options: bent(out))
    with hollow_calls() as calls:
        blocks = patcher_of.gradients("per block")
    off = patcher_of.gradients("off")
    assert all((off[n] - blocks[n]).norm() <= 1e-4 * off[n].norm() for n in off)
    # Blocks without attention are given no patches.
    assert 0 < len(calls) < 16


def test_gates_in_objects_are_looked_at():
    bare = BareNetwork("flux2")
    for name, p in bare.network.named_parameters():
        p.requires_grad_("img_attn.qkv" in name or "linear1" in name)
    wanted = [p for p in bare.network.parameters() if p.requires_grad]
    kinds = {id(block): kind for block, kind in find_blocks(bare.network, FAMILY)}
    repeating = functools.partial(patches.hollow_tails, kinds=kinds)
    with patches.training_kernels():
        with hollow_calls() as calls, checkpoint_blocks(bare.blocks, mutates=True, repeating=repeating):
            found = torch.autograd.grad(bare.loss(), wanted)
        with checkpoint_blocks(bare.blocks, mutates=True):
            plain = torch.autograd.grad(bare.loss(), wanted)
    assert len(calls) == 6
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-14) for a, b in zip(found, plain, strict=True))


def rotary():
    """Every rotary function that ComfyUI can reach, by module and name."""
    named = {n: f for n, f in vars(comfy_kitchen).items() if "rope" in n and callable(f)}
    fused = {id(f) for f in named.values()}
    loaded = [(n, m) for n, m in sys.modules.items() if n.startswith("comfy.") and m is not None]
    return {("comfy_kitchen", n): f for n, f in named.items()} | {
        (name, n): f for name, m in loaded for n, f in list(vars(m).items()) if id(f) in fused
    }


def same_objects(a, b):
    return a.keys() == b.keys() and all(a[k] is b[k] for k in a)


@pytest.mark.parametrize("name", ["cosmos-predict2", "ernie-image", "joyimage"])
def test_networks_with_rotary_kernels_have_gradients_in_training(name):
    bare = BareNetwork(name)
    before = rotary()
    queries = [
        p for n, p in bare.network.named_parameters() if n.endswith(("to_q.weight", "q_proj.weight", "attn_qkv.weight"))
    ]
    assert queries
    for p in queries:
        p.requires_grad_()
    with patches.training_kernels():
        grads = torch.autograd.grad(bare.loss(), queries)
        with checkpoint_blocks(bare.blocks, mutates=False):
            blocks = torch.autograd.grad(bare.loss(), queries)
        with torch.no_grad():
            length = sum(g.square().sum() for g in grads) ** 0.5
            step = 1e-3 / length
            ends = []
            for way in (step, -2 * step):
                for p, g in zip(queries, grads, strict=True):
                    p += way * g
                ends.append(bare.loss())
    assert abs((ends[0] - ends[1]) / (2 * step) - length**2) <= 1e-4 * length**2
    assert all((a - b).norm() <= 1e-12 * a.norm() for a, b in zip(grads, blocks, strict=True))
    assert same_objects(rotary(), before)


@pytest.mark.parametrize("name", ["cosmos-predict2", "ernie-image", "joyimage"])
def test_networks_with_rotary_kernels_compute_in_training_what_they_computed_before(name):
    bare = BareNetwork(name, dtype=torch.float32)
    with torch.no_grad():
        fused = bare()
        with patches.training_kernels():
            plain = bare()
    assert (plain - fused).abs().max() <= 1e-6 * fused.abs().max()


@pytest.mark.parametrize("error", [None, ValueError, comfy.model_management.InterruptProcessingException])
def test_kernels_are_put_back_after_nested_sessions_and_errors(error):
    before = rotary()
    expected = contextlib.nullcontext() if error is None else pytest.raises(error)
    with expected, patches.training_kernels():
        first = rotary()
        assert not any(first[k] is before[k] for k in before)
        with patches.training_kernels():
            assert same_objects(rotary(), first)
            if error:
                raise error
        assert same_objects(rotary(), first)
        assert comfy.model_management.in_training
    assert same_objects(rotary(), before)
    assert not comfy.model_management.in_training


def test_a_kernel_that_a_module_of_comfyui_has_imported_by_name_is_replaced_there_too():
    module = comfy.ldm.cosmos.predict2
    module.turned = fused = comfy_kitchen.rms_rope
    try:
        with patches.training_kernels():
            assert module.turned is comfy_kitchen.rms_rope is not fused
        assert module.turned is fused is comfy_kitchen.rms_rope
    finally:
        del module.turned


def test_training_goes_on_where_the_kernels_are_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "comfy_kitchen", None)
    with patches.training_kernels():
        assert comfy.model_management.in_training
    assert not comfy.model_management.in_training


def test_an_attention_without_a_backward_is_not_asked_also_where_a_network_hands_it_no_options(monkeypatch):
    bare = BareNetwork("ernie-image")
    query = bare.network.layers[0].self_attention.to_q.weight.requires_grad_()
    with patches.training_kernels():
        (wanted,) = torch.autograd.grad(bare.loss(), query)

    def inference_only(q, k, v, heads, **kwargs):
        raise AssertionError("asked")

    for module in (comfy.ldm.modules.attention, comfy.ldm.ernie.model):
        monkeypatch.setattr(module, "optimized_attention", inference_only)
    with patches.training_kernels():
        (found,) = torch.autograd.grad(bare.loss(), query)
        assert comfy.ldm.ernie.model.optimized_attention is comfy.ldm.modules.attention.attention_pytorch
    assert comfy.ldm.ernie.model.optimized_attention is inference_only
    assert torch.equal(found, wanted) and wanted.any()


def test_every_rotary_kernel_has_a_plain_one():
    with patches.training_kernels():
        functions = rotary()
    assert {f.__module__ for f in functions.values()} == {"comfy_kitchen.backends.eager.rope"}
    assert comfy.quant_ops.ck is comfy_kitchen
