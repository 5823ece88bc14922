"""A new family is one file: one is made up here, with a network of its own, and nothing else is touched."""

import asyncio
import functools
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import comfy.latent_formats
import comfy.model_base
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models_base
import folder_paths
import pytest
import safetensors.torch
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from server import PromptServer
from torch import nn

from harness.training import make_cache
from masked_lora_pack.nodes.train import TrainLoRA
from masklora.dataset.geometry import Geometry
from masklora.errors import FamilyError
from masklora.host import families as archs
from masklora.host.model.trainable import TrainableModel
from masklora.loss.tokens import Passage, TokenPlan
from masklora.settings import AdapterSettings

FILE = '''
"""Knitwork, made up for a test."""

from .family import Blocks, Defaults, Family, Slot, attention_and_mlp

FAMILY = Family(
    name="knitwork",
    title="Knitwork",
    configs=("Knitwork",),
    blocks=(
        Blocks(
            path=r"rows\\.\\d+",
            image=Slot("both", item=1),
            result=Slot(1),
            order=("image", "text"),
            tails=("purl",),
            gates=(Slot("beat"),),
        ),
    ),
    targets=attention_and_mlp(r"rows\\.\\d+\\.(look|give)", r"rows\\.\\d+\\.(knit|purl)"),
    architecture="knitwork",
    base_model_version="knitwork",
    text_layer="read",
    defaults=Defaults(
        learning_rate=2e-3, rank=4, alpha=2.0, steps=3, timestep_sampling="uniform", guidance=0.0, source="this test"
    ),
)
'''
WIDTH = 32


class Row(nn.Module):
    """A block with its tokens in a tuple, the image in front of the text in attention, and a gate by place."""

    def __init__(self, ops):
        super().__init__()
        self.look, self.give = ops.Linear(WIDTH, 3 * WIDTH), ops.Linear(WIDTH, WIDTH)
        self.knit, self.purl = ops.Linear(WIDTH, 2 * WIDTH), ops.Linear(2 * WIDTH, WIDTH)

    def forward(self, both, beat, transformer_options):
        text, image = both
        look = transformer_options["optimized_attention_override"]
        q, k, v = self.look(torch.cat([image, text], dim=1)).chunk(3, dim=-1)
        seen = self.give(look(None, q, k, v, 2, transformer_options=transformer_options))
        image = image + seen[:, : image.shape[1]] * beat.gate
        text = text + seen[:, image.shape[1] :] * beat.gate
        return text, image + self.purl(torch.tanh(self.knit(image))) * beat.gate


class Beat:
    """What an ordinary object hands to the blocks."""

    __slots__ = ("gate",)

    def __init__(self, gate):
        self.gate = gate


class Weave(nn.Module):
    def __init__(self, image_model=None, operations=None, device=None, dtype=None):
        super().__init__()
        ops, self.dtype, self.patch_size = operations, torch.float32, 2
        self.take, self.read, self.make = ops.Linear(64, WIDTH), ops.Linear(4096, WIDTH), ops.Linear(WIDTH, 64)
        self.time = ops.Linear(1, WIDTH)
        self.rows = nn.ModuleList([Row(ops) for _ in range(3)])

    def forward(self, x, timesteps, context, control=None, transformer_options=None, **kwargs):
        h, w = x.shape[-2:]
        tokens = nn.functional.unfold(x, 2, stride=2).transpose(1, 2)
        text, image = self.read(context), self.take(tokens)
        beat = Beat(torch.sigmoid(self.time(timesteps[:, None]))[:, None])
        for row in self.rows:
            text, image = row((text, image), beat, transformer_options)
        return nn.functional.fold(self.make(image).transpose(1, 2), (h, w), 2, stride=2)


class Knitwork(comfy.supported_models_base.BASE):
    unet_config: ClassVar = {"image_model": "knitwork"}
    unet_extra_config: ClassVar = {}
    sampling_settings: ClassVar = {"shift": 3.0, "multiplier": 1.0}
    latent_format = comfy.latent_formats.SD3
    memory_usage_factor = 1.0

    def get_model(self, state_dict, prefix="", device=None):
        flow = comfy.model_base.ModelType.FLOW
        return comfy.model_base.BaseModel(self, model_type=flow, device=device, unet_model=Weave)


def knitwork():
    config = Knitwork(dict(Knitwork.unet_config))
    config.set_inference_dtype(torch.float32, None)
    device = torch.device("cpu")
    model = config.get_model({}, device=device)
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.diffusion_model.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * (p.shape[-1] ** -0.5 if p.ndim > 1 else 0.1))
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


@pytest.fixture
def family_file(tmp_path, monkeypatch):
    """The made-up file in a folder that families are looked for in, and in no other place."""
    folder = tmp_path / "more families"
    folder.mkdir()
    (folder / "knitwork.py").write_text(FILE, encoding="utf-8")
    monkeypatch.setattr(archs, "__path__", [*archs.__path__, str(folder)])
    archs.families.cache_clear()
    yield
    archs.families.cache_clear()
    for file in folder.glob("*.py"):
        sys.modules.pop(f"{archs.__name__}.{file.stem}", None)
    importlib.invalidate_caches()


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trains the made-up model through the node, beside a server that nobody asks."""
    loop = asyncio.new_event_loop()
    monkeypatch.setattr(PromptServer, "instance", PromptServer(loop), raising=False)
    folder_paths.set_output_directory(str(tmp_path / "out"))
    yield functools.partial(_train, monkeypatch)
    loop.close()


def _train(monkeypatch, cache, **settings):
    monkeypatch.setattr(TrainLoRA, "hidden", SimpleNamespace(unique_id="1", prompt={}, extra_pnginfo={}), raising=False)
    values = {"learning_rate": 0.0, "steps": 0, "name": "made up", "batch_size": 2, **settings}
    return TrainLoRA.execute(knitwork(), cache, **values)


def test_one_file_makes_a_family_that_trains_exports_and_loads(family_file, train):
    out = train(make_cache("sd3"), checkpointing="per block")
    _, patched, losses, steps, path, low, _ = out.args
    assert isinstance(low, ExecutionBlocker)
    assert steps == 3 and len(losses["loss"]) == 3
    tensors = safetensors.torch.load_file(path)
    assert {k.split("_rows_")[1].split(".")[0] for k in tensors} == {
        f"{row}_{layer}" for row in range(3) for layer in ("look", "give", "knit", "purl")
    }
    loaded, _ = comfy.sd.load_lora_for_models(knitwork(), None, tensors, 1.0, 0.0)
    assert len(loaded.patches) == 12 == len(patched.patches)
    assert all(float(t.abs().sum()) > 0 for k, t in tensors.items() if "lora_up" in k)


def test_its_tokens_are_routed_and_hidden_too(family_file):
    trainable = TrainableModel(knitwork())
    assert trainable.family.title == "Knitwork" and trainable.guidance == 0.0
    adapters = trainable.make_adapters(AdapterSettings(rank=4, alpha=4.0), seed=0)
    g = torch.Generator().manual_seed(5)
    noisy, u, text = torch.randn(1, 16, 8, 8, generator=g), torch.tensor([0.5]), {"cond": torch.randn(1, 5, 4096)}
    visible = torch.ones(1, 16, dtype=torch.bool)
    visible[0, 3] = False
    other = noisy.clone()
    other[..., :2, 6:] += 1.0
    kept = torch.tensor([[0, 1, 3, 7, 9]])
    plan = TokenPlan(16, (Passage(1, 2, kept),), visible)
    square = Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))
    with trainable.session(adapters, checkpointing="off"), torch.no_grad():
        conds = trainable.collate([text], [square], noisy.shape[1:])
        a, b = (trainable.denoise(x, u, conds, tokens=plan) for x in (noisy, other))
        free = trainable.denoise(other, u, conds) - trainable.denoise(noisy, u, conds)
    changed = (a - b).abs()
    assert changed[..., :2, 6:].max() > 1e-3
    changed[..., :2, 6:] = 0
    assert changed.max() == 0 and free[..., 4:, :4].abs().max() > 1e-6


def test_without_its_file_the_error_says_how_to_train_it_and_the_switch_does(train):
    cache = make_cache("sd3")
    with pytest.raises(FamilyError, match=r"does not know Knitwork.*Wan.*unknown_model"):
        train(cache)
    out = train(cache, unknown_model=True, steps=2)
    assert out.args[3] == 2
    told = "\n".join(out.ui["text"]) if isinstance(out.ui, dict) else str(out.ui)
    assert "does not know Knitwork" in told and "12 layers" in told


WRONG_FILES = {
    "cannot be read: SyntaxError": ("FAMILY = Family(", "FAMILY = Family(("),
    "cannot be read: NameError": ("attention_and_mlp(", "attention_and_mpl("),
    "cannot be read: TypeError": ('architecture="knitwork",', ""),
    "cannot be read: ImportError": ("import Blocks,", "import Blocks, Blockz,"),
    "holds a NoneType as FAMILY": ("FAMILY = ", "FAMILLY = "),
    "names no configs": ('("Knitwork",)', '("Knitwork")'),
    'has no targets of the name "default"': ("targets=attention_and_mlp(", "targets=(lambda *a: {})("),
    "has predictions \\('rectified',\\)": ('title="Knitwork",', 'title="Knitwork", predictions=("rectified",),'),
    "is no regular expression": ('"rows', '"(rows'),
    "order is picture": ('("image", "text")', '("picture", "text")'),
}


@pytest.mark.parametrize(("told", "change"), WRONG_FILES.items(), ids=WRONG_FILES)
def test_a_file_that_is_wrong_is_named_with_its_fault(family_file, told, change):
    file = Path(archs.__path__[-1], "knitwork.py")
    assert change[0] in FILE
    file.write_text(FILE.replace(*change), encoding="utf-8")
    with pytest.raises(FamilyError, match=rf"^families: knitwork\.py .*{told}.*Correct this file or take it away"):
        TrainableModel(knitwork())


WRONG_SLOTS = {
    "calls Row without 'both'": ('Slot("both", item=1)', 'Slot("both", item=2)'),
    "gives back a tuple without image tokens at 2": ("result=Slot(1)", "result=Slot(2)"),
    "gives back a tuple without image tokens at None": ("result=Slot(1)", "result=Slot(item=2)"),
    "gives back a tuple without image tokens at 1": ("result=Slot(1)", "result=Slot(1, item=0)"),
    "calls Row without 'beat'": ("result=Slot(1)", 'rotary=(Slot("beat", item=0),), result=Slot(1)'),
}


@pytest.mark.parametrize(("told", "change"), WRONG_SLOTS.items(), ids=WRONG_SLOTS)
def test_a_place_that_holds_no_tokens_is_named_instead_of_routing_nothing(family_file, told, change):
    assert change[0] in FILE
    Path(archs.__path__[-1], "knitwork.py").write_text(FILE.replace(*change), encoding="utf-8")
    trainable = TrainableModel(knitwork())
    adapters = trainable.make_adapters(AdapterSettings(rank=4, alpha=4.0), seed=0)
    plan = TokenPlan(16, (Passage(1, 2, torch.tensor([[0, 1, 3, 7, 9]])),), None)
    noisy, text = torch.randn(1, 16, 8, 8), {"cond": torch.randn(1, 5, 4096)}
    square = Geometry(source=(64, 64), resized=(64, 64), crop=(0, 0, 64, 64))
    with trainable.session(adapters, checkpointing="off"), torch.no_grad():
        conds = trainable.collate([text], [square], noisy.shape[1:])
        with pytest.raises(FamilyError, match=rf"{told}.*empty routes"):
            trainable.denoise(noisy, torch.tensor([0.5]), conds, tokens=plan)


def test_two_files_that_claim_one_name_are_named(family_file):
    twin = Path(archs.__path__[-1], "twin.py")
    twin.write_text(FILE.replace('configs=("Knitwork",)', 'configs=("Other",)'), encoding="utf-8")
    with pytest.raises(FamilyError, match=r"twin\.py and knitwork\.py both claim name knitwork"):
        archs.families()


def test_two_files_that_claim_one_model_are_named(family_file):
    twin = Path(archs.__path__[-1], "twin.py")
    twin.write_text(FILE.replace('name="knitwork"', 'name="twin"'), encoding="utf-8")
    archs.families.cache_clear()
    with pytest.raises(FamilyError, match=r"twin\.py and knitwork\.py both claim Knitwork"):
        archs.families()
