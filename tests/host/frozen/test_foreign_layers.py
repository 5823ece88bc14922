"""Layers of other packs whose weight is not what it seems: refused by name before anything is computed."""

import comfy.ops
import pytest
import torch
from comfy_kitchen.tensor import register_layout_class
from torch import nn

from harness.models import small_model
from harness.quantised import LAYOUTS, quantised_model
from masklora.errors import FamilyError
from masklora.host.model.trainable import TrainableModel
from masklora.host.notes import model_notes

PLACE = "double_blocks.1.img_mlp.0"


class GGMLTensor(torch.Tensor):
    """Bytes that tell another shape than they have, as packs for GGUF files hold them."""

    @property
    def shape(self):
        return self.told


def bytes_of(linear):
    data = torch.zeros(linear.out_features, linear.in_features // 2 + 18, dtype=torch.uint8).as_subclass(GGMLTensor)
    data.told = torch.Size((linear.out_features, linear.in_features))
    return data


class GGMLOps(comfy.ops.manual_cast):
    """The class names and the structure of a pack for GGUF files."""

    class Linear(comfy.ops.manual_cast.Linear):
        comfy_cast_weights = True

        def __init__(self, linear):
            nn.Module.__init__(self)
            self.in_features, self.out_features = linear.in_features, linear.out_features
            self.weight, self.bias = nn.Parameter(bytes_of(linear), requires_grad=False), None


class SVDQW4A4Linear(nn.Module):
    """The structure of layers that multiply by packed integers in kernels of their own."""

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.qweight = nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)


class Int8Linear(nn.Linear):
    """A weight of integers under torch's name for it."""

    def __init__(self, linear):
        super().__init__(linear.in_features, linear.out_features, device="meta")
        data = torch.zeros(linear.out_features, linear.in_features, dtype=torch.int8)
        self.weight = nn.Parameter(data, requires_grad=False)


class ScaledLinear(comfy.ops.manual_cast.Linear):
    """A float8 weight with a scale beside it that only this class's forward knows."""

    def __init__(self, linear):
        super().__init__(linear.in_features, linear.out_features, dtype=torch.float8_e4m3fn)
        self.register_buffer("scale_weight", torch.tensor(0.01))

    def forward(self, x):
        return super().forward(x) * self.scale_weight


def of_an_unknown_layout(linear):
    layer = quantised_model("flux", LAYOUTS["int8"]).model.diffusion_model.get_submodule(PLACE)
    register_layout_class("AnotherLayout", layer.weight.layout_cls)
    layer.weight._layout_cls = "AnotherLayout"
    return layer


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (GGMLOps.Linear, "is of the class GGMLOps.Linear and holds GGUF's GGMLTensor"),
        (SVDQW4A4Linear, "is of the class SVDQW4A4Linear and has no weight"),
        (Int8Linear, "is of the class Int8Linear and stores its weight as int8"),
        (ScaledLinear, "is of the class ScaledLinear of another pack and stores its weight as float8_e4m3fn"),
        (of_an_unknown_layout, "and is quantised as AnotherLayout"),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_a_layer_that_only_its_own_pack_can_read_is_refused_by_name(make, named):
    model = small_model("flux")
    network = model.model.diffusion_model
    parent, _, child = PLACE.rpartition(".")
    network.get_submodule(parent)._modules[child] = make(network.get_submodule(PLACE))
    with pytest.raises(FamilyError) as told:
        TrainableModel(model)
    assert str(told.value).startswith(f"model: {PLACE} ") and named in str(told.value)
    assert "fp8 or a bf16 file" in str(told.value)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float16])
def test_plain_weights_of_every_type_are_taken(dtype):
    TrainableModel(small_model("flux", dtype=dtype))


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        ("nvfp4 smoothed", ["scale their input before the weight", "hold their weights in 4 bits"]),
        ("nvfp4", ["hold their weights in 4 bits"]),
        ("w4a8 convrot", ["hold their weights in 4 bits"]),
        ("fp8 e4m3", []),
        ("int8 convrot", []),
    ],
)
def test_a_person_is_told_where_comfyui_applies_a_lora_otherwise_than_training(layout, told):
    notes = model_notes(TrainableModel(quantised_model("flux", LAYOUTS[layout])))
    assert len(notes) == len(told)
    assert all(f"layers of the MODEL {words}" in text for words, text in zip(told, notes, strict=True))
