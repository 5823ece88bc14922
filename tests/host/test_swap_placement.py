"""Where swapped and other weights are while blocks are swapped, and that ComfyUI finds its own afterwards."""

import contextlib

import pytest
import torch

from harness.late_copies import LateCopies
from harness.models import small_model
from harness.quantised import LAYOUTS, quantised, quantised_layers, quantised_model
from masklora.host.model import trainable
from masklora.host.swap import block_swap
from masklora.host.swap.block_swap import BlockSwap, block_bytes
from masklora.host.swap.tensors import laid_out, parts_of, places_in, room_for, stored_bytes
from masklora.settings import AdapterSettings

# No tensor of the models is there, as on a card that ComfyUI has loaded nothing to.
ELSEWHERE = torch.device("meta")


def network_of(model):
    return model.model.diffusion_model


def objects(network):
    return [(place.store, place.name, id(place.held)) for place in places_in(network.modules())]


@contextlib.contextmanager
def swapped(network, *, room=0):
    """Single blocks are swapped to the device that holds nothing."""
    with LateCopies() as copies:
        swap = BlockSwap(list(network.single_blocks), device=ELSEWHERE, copies=copies)
        with swap.opened(network), swap._brought(network, room):
            yield swap
        swap.release()


@pytest.mark.parametrize(
    "model", [lambda: small_model("flux"), lambda: quantised_model("flux", LAYOUTS["int8 convrot"])]
)
def test_tensors_that_were_in_main_memory_are_the_same_objects_afterwards(model):
    network = network_of(model())
    before = objects(network)
    with swapped(network) as swap:
        block, layer = network.single_blocks[0], network.single_blocks[0].linear1
        at_rest = layer.weight
        with swap.holding(block, False):
            assert layer.weight.device == ELSEWHERE and layer.weight.shape == at_rest.shape
            assert type(layer.weight) is type(at_rest) and isinstance(layer.weight, torch.nn.Parameter)
        assert layer.weight is at_rest and at_rest.device.type == "cpu"
    assert objects(network) == before


def test_other_weights_that_found_no_room_are_on_the_device_as_far_as_the_freed_room_reaches():
    network = network_of(small_model("flux"))
    before = objects(network)
    # ComfyUI brings this one by itself.
    network.double_blocks[0].img_mlp[0]._v = object()
    own = [network.double_blocks[0].img_mlp[0], *network.single_blocks]
    others = stored_bytes_of(network) - sum(map(block_bytes, own))
    for room in (0, others // 2, others):
        with swapped(network, room=room):
            size = sum(t.nbytes for t in (*network.parameters(), *network.buffers()) if t.device == ELSEWHERE)
            assert room // 4 <= size <= room and (size == room) == (room != others // 2)
            assert all(p.device.type == "cpu" for module in own for p in module.parameters())
        assert objects(network) == before


def stored_bytes_of(network):
    return sum(stored_bytes(place.held) for place in places_in(network.modules()))


def test_a_lora_that_comfyui_applies_where_it_brings_a_weight_is_applied_where_it_is_cast():
    """With dynamic VRAM; weights that are on the device already are not brought."""
    network = network_of(small_model("flux"))
    layers = [network.single_blocks[0].linear1, network.single_blocks[1].linear1]
    layers[1].weight_function = [abs]
    for layer in layers:
        layer.weight_lowvram_function, layer.bias_lowvram_function = len, None
    before = [dict(vars(layer)) for layer in layers]
    with swapped(network):
        assert [layer.weight_function for layer in layers] == [[len], [len, abs]]
        assert not any(layer.bias_function for layer in layers)
    assert [dict(vars(layer)) for layer in layers] == before


def test_a_weight_has_the_dtype_that_comfyui_would_give_it_on_the_device():
    network = network_of(small_model("flux"))
    weight = network.single_blocks[0].linear1.weight
    weight._model_dtype = torch.float16
    with swapped(network):
        assert torch.equal(network.single_blocks[0].linear1.weight, weight.half())
    assert network.single_blocks[0].linear1.weight is weight


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_quantised_weight_laid_out_in_memory_means_the_same(layout):
    weight, _ = quantised(torch.randn(64, 256, generator=torch.Generator().manual_seed(0)), LAYOUTS[layout])
    plain = torch.randn(3, 5, 2, 2).to(memory_format=torch.channels_last), torch.tensor(2.5), torch.empty(0)
    tensors = [weight, *plain]
    found = laid_out(tensors, torch.empty(room_for(tensors), dtype=torch.uint8))
    for there, here in zip(found, tensors, strict=True):
        for into, part in zip(parts_of(there), parts_of(here), strict=True):
            assert into.stride() == part.stride() and into.dtype == part.dtype
            into.copy_(part)
    assert torch.equal(found[0].dequantize(), weight.dequantize())
    assert all(torch.equal(a, b) for a, b in zip(found[1:], plain, strict=True))
    assert len({t.untyped_storage().data_ptr() for one in found for t in parts_of(one)}) == 1


def test_layers_of_the_small_quantised_model_are_swapped_at_all():
    network = network_of(quantised_model("flux", LAYOUTS["nvfp4"]))
    inside = {id(m) for block in network.single_blocks for m in block.modules()}
    assert sum(id(layer) in inside for layer in quantised_layers(network).values()) >= 4


def test_weights_are_the_same_when_more_of_them_are_swapped_after_a_pause(monkeypatch):
    """ComfyUI may have left others on the device then, while some are still in the main memory that is used again."""
    model = trainable.TrainableModel(small_model("flux"))
    network, adapters = model.network, model.make_adapters(AdapterSettings(rank=4, alpha=4.0), seed=0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with LateCopies() as copies:
        model.swap = BlockSwap(list(network.single_blocks), device=model.device, copies=copies)
        with model.session(adapters):
            for little in (0, 2**20, 2**10):
                with model.suspended(activation_bytes=0):
                    monkeypatch.setattr(block_swap, "_LITTLE", little)
            assert len(copies.memory) == len(network.single_blocks)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
