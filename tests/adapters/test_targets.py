"""Which layers are trained, in which way and of which rank: the grammar of `rank_by_layer`, and `full_layers`."""

import dataclasses

import pytest
import torch
from torch import nn

from masklora.adapters import AdapterSet, choose_layers
from masklora.adapters.targets import ranks_by_layer
from masklora.errors import AdapterError
from masklora.runs.identity import lasting
from masklora.settings import AdapterSettings

PATHS = [
    *(f"double_blocks.{i}.img_attn.qkv" for i in range(4)),
    *(f"double_blocks.{i}.img_mlp.0" for i in range(4)),
    *(f"single_blocks.{i}.linear1" for i in range(12)),
    "final_layer.linear",
]
BLOCKS = [*(f"double_blocks.{i}" for i in range(4)), *(f"single_blocks.{i}" for i in range(12))]


def ranks(text):
    return ranks_by_layer(text, PATHS, usual=16, blocks=BLOCKS)


def with_rank(text, rank):
    return [path for path, found in ranks(text).items() if found == rank]


def test_no_text_is_the_usual_rank_everywhere():
    assert set(ranks("  \n").values()) == {16} and list(ranks("")) == PATHS


def test_blocks_are_counted_across_all_lists_from_zero():
    assert with_rank("blocks 3-4: 32", 32) == [
        "double_blocks.3.img_attn.qkv",
        "double_blocks.3.img_mlp.0",
        "single_blocks.0.linear1",
    ]
    assert with_rank("block 15:5", 5) == ["single_blocks.11.linear1"]


def test_a_list_of_a_name_is_counted_by_itself_and_not_as_text():
    assert with_rank("single_blocks 1: 32", 32) == ["single_blocks.1.linear1"]
    assert len(with_rank("double_blocks 1 - 2 : 32", 32)) == 4


def test_a_name_is_a_whole_part_of_the_path():
    assert len(with_rank("img_attn: 4", 4)) == 4
    assert len(with_rank("img_attn.qkv: 4", 4)) == 4
    assert with_rank("final_layer: 4", 4) == ["final_layer.linear"]
    with pytest.raises(AdapterError, match='rank_by_layer: "img: 4" names no trained layer'):
        ranks("img: 4")


def test_the_first_part_that_names_a_layer_holds_and_others_are_what_is_left():
    found = ranks("double_blocks 0: 32, img_attn: 4\nothers 8")
    assert found["double_blocks.0.img_attn.qkv"] == 32
    assert found["double_blocks.1.img_attn.qkv"] == 4
    assert found["double_blocks.1.img_mlp.0"] == found["final_layer.linear"] == 8
    assert ranks("others: 8") == ranks("others 8")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("blocks 10-19 32", '"blocks 10-19 32" is no part such as'),
        ("blocks 3: 32, ten: many", '"ten: many" is no part such as'),
        ("blocks: 3: 4", '"blocks: 3: 4" is no part such as'),
        ("blocks 9-3: 4", '"blocks 9-3: 4" ends before it begins'),
        ("blocks 3: 0", '"blocks 3: 0" asks for 0, expected 1 to 1024'),
        ("others 2000", '"others 2000" asks for 2000'),
        ("others 2, others 3", '"others 3" is about the others a second time'),
        ("blocks 16-20: 4", '"blocks 16-20: 4" names no trained layer .* 16 blocks'),
        ("blocks 0-15: 4, double_blocks 1: 8", '"double_blocks 1: 8" names no trained layer'),
    ],
)
def test_an_error_names_the_part(text, told):
    with pytest.raises(AdapterError, match=f"rank_by_layer: {told}"):
        ranks(text)


def network():
    torch.manual_seed(0)
    blocks = nn.ModuleList(nn.ModuleDict({"q": nn.Linear(6, 4), "ff": nn.Linear(6, 4)}) for _ in range(3))
    others = {"head": nn.Linear(4, 2), "conv": nn.Conv2d(3, 4, 3), "norm": nn.LayerNorm(4)}
    return nn.ModuleDict({"blocks": blocks, **others})


def chosen(**settings):
    settings = AdapterSettings(rank=3, alpha=6.0, **settings)
    model = network()
    layers = choose_layers(model, settings, pattern=r"blocks\..*", blocks=[f"blocks.{i}" for i in range(3)])
    return model, settings, layers


@pytest.mark.parametrize("algorithm", ["lora", "rslora", "dora", "loha"])
def test_every_layer_has_its_rank_and_the_same_alpha_over_rank(algorithm):
    model, settings, layers = chosen(algorithm=algorithm, rank_by_layer="blocks 1-2: 2, others 1")
    adapters = AdapterSet(model, settings, targets=layers, seed=0, device=torch.device("cpu"))
    part = "hada_w1_b" if algorithm == "loha" else "lora_A"
    found = {path: len(adapters.parameters()[f"{path}.{part}"]) for path in adapters.targets}
    assert found == {f"blocks.{i}.{name}": 1 if i == 0 else 2 for i in range(3) for name in ("q", "ff")}
    for path, rank in found.items():
        assert adapters.scaling(path) == pytest.approx(2.0 * (rank**0.5 if algorithm == "rslora" else 1))


def test_full_layers_are_learned_whole_whether_they_are_targets_or_not():
    model, settings, layers = chosen(full_layers=r"^head$|conv|blocks\.0\.q", exclude="blocks.2")
    adapters = AdapterSet(model, settings, targets=layers, seed=0, device=torch.device("cpu"))
    shapes = {name: tuple(p.shape) for name, p in adapters.parameters().items() if "diff" in name}
    assert shapes == {
        "blocks.0.q.diff": (4, 6),
        "blocks.0.q.diff_b": (4,),
        "head.diff": (2, 4),
        "head.diff_b": (2,),
        "conv.diff": (4, 3, 3, 3),
        "conv.diff_b": (4,),
    }
    assert {name for name in adapters.parameters() if "lora" in name} == {
        f"{path}.lora_{letter}" for path in ("blocks.0.ff", "blocks.1.q", "blocks.1.ff") for letter in "AB"
    }
    assert not any(p.any() for name, p in adapters.parameters().items() if "diff" in name)


@pytest.mark.parametrize(
    ("text", "told"), [("norm", "finds no linear layer and no 2-D convolution"), ("(", "full_layers: .* in pattern")]
)
def test_full_layers_that_are_none_are_an_error(text, told):
    with pytest.raises(AdapterError, match=told):
        chosen(full_layers=text)


def test_the_values_of_a_plain_lora_are_those_of_before():
    """Runs of before this go on, and begin anew, bit for bit."""
    drawn = [4, 4]
    for rank_by_layer in ("", "others 3"):
        model, settings, layers = chosen(rank_by_layer=rank_by_layer)
        adapters = AdapterSet(model, settings, targets=layers, seed=7, device=torch.device("cpu"))
        torch.manual_seed(7)
        first = nn.init.kaiming_uniform_(torch.empty(3, 6), a=5**0.5)
        drawn.append(adapters.parameters()["blocks.0.q.lora_A"])
        assert drawn[-1].shape == first.shape
    assert torch.equal(drawn[-1], drawn[-2])
    assert dataclasses.asdict(settings)["full_layers"] == ""


def test_a_run_of_before_is_still_found_and_one_with_these_settings_is_another():
    usual = lasting(AdapterSettings())
    changes = [{"rank_by_layer": "others 3"}, {"full_layers": "img_in"}, {"lokr_factor": 2}]
    assert not any(name in usual for change in changes for name in change)
    assert all(lasting(AdapterSettings(**change)) == usual | change for change in changes)
