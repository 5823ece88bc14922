"""LoRA files: metadata of three vocabularies, honest dtypes, no file ever replaced."""

import hashlib
import json
import math
import sys
from dataclasses import asdict

import pytest
import safetensors
import safetensors.torch
import torch

from masklora.errors import ConfigError, RunError
from masklora.runs.lora_file import (
    LoraRecord,
    ModelLabels,
    cast_tensors,
    lora_metadata,
    lora_model,
    model_hashes,
    tag_frequency,
    write_lora,
)
from masklora.settings import LossSettings, MaskTransform

SDXL = ModelLabels(
    base_version="sdxl_base_v1-0",
    architecture="stable-diffusion-xl-v1-base",
    implementation="https://github.com/Stability-AI/generative-models",
)


def lora(scale=1.0):
    g = torch.Generator().manual_seed(0)
    return {
        "lora_unet_x.lora_down.weight": torch.randn(4, 8, generator=g) * scale,
        "lora_unet_x.lora_up.weight": torch.randn(8, 4, generator=g) * scale,
        "lora_unet_x.alpha": torch.tensor(2.7),
    }


def record(**changes):
    values = dict(
        name="my cat",
        model=SDXL,
        rank=4,
        alpha=2.7,
        steps=1200,
        learning_rate=1e-4,
        resolution=(1024, 1024),
        trigger="zwx cat",
        loss=LossSettings(floor=0.1, gamma=1.5, timestep_weight="min-snr"),
        masks=(MaskTransform(grow=8, feather=3.0),),
        datasets=({"name": "cats", "images": 20}, {"name": "reg", "images": 5, "regularisation": True}),
        tag_frequency={"cats": {"sofa": 12}},
        summary={"coverage": 0.31, "inside": 0.08, "outside": 0.12},
        extra={"mask_sources": ["alpha"]},
        started=1.7e9,
        finished=1.7e9 + 600,
    )
    return LoraRecord(**{**values, **changes})


def test_every_key_and_value_of_the_metadata_is_a_string():
    metadata = lora_metadata(record(), lora())
    assert all(isinstance(k, str) and isinstance(v, str) and v for k, v in metadata.items())


def test_tools_find_the_keys_they_read():
    metadata = lora_metadata(record(), lora())
    expected = {
        "ss_output_name": "my cat",
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "4",
        "ss_network_alpha": "2.7",
        "ss_resolution": "(1024, 1024)",
        "ss_steps": "1200",
        "ss_learning_rate": "0.0001",
        "ss_min_snr_gamma": "5",
        "ss_num_train_images": "20",
        "ss_num_reg_images": "5",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.title": "my cat",
        "modelspec.resolution": "1024x1024",
        "modelspec.trigger_phrase": "zwx cat",
        "modelspec.date": "2023-11-14T22:23:20+00:00",
    }
    assert {key: metadata.get(key) for key in expected} == expected
    assert json.loads(metadata["ss_tag_frequency"]) == {"cats": {"sofa": 12}}
    assert [d["name"] for d in json.loads(metadata["ss_datasets"])] == ["cats", "reg"]


def as_json(settings):
    """Settings as JSON gives them back: tuples are lists."""
    return json.loads(json.dumps(asdict(settings)))


def test_our_namespace_holds_every_mask_and_loss_setting_and_what_the_mask_did():
    described = record()
    metadata = lora_metadata(described)
    assert json.loads(metadata["masklora.loss"]) == as_json(described.loss)
    assert json.loads(metadata["masklora.adapter"]) == as_json(described.adapter)
    assert json.loads(metadata["masklora.optimizer"]) == as_json(described.optimizer)
    assert json.loads(metadata["masklora.train"]) == as_json(described.train)
    assert json.loads(metadata["masklora.masks"]) == [asdict(m) for m in described.masks]
    assert json.loads(metadata["masklora.summary"]) == dict(described.summary)
    assert json.loads(metadata["masklora.mask_sources"]) == ["alpha"]


def test_unknown_values_are_left_out():
    metadata = lora_metadata(record(trigger="", finished=0.0, started=0.0))
    absent = {"modelspec.trigger_phrase", "modelspec.date", "ss_training_started_at", "sshs_model_hash"}
    assert absent.isdisjoint(metadata)


def test_hashes_are_those_of_the_file_s_own_bytes(tmp_path):
    tensors = {"w": torch.randn(700, 700), **lora()}
    ready = cast_tensors(tensors, dtype="float32")
    metadata = lora_metadata(record(), ready)
    path = write_lora(tmp_path / "a", tensors, metadata=metadata, dtype="float32")
    data = path.read_bytes()
    header = int.from_bytes(data[:8], "little")
    assert metadata["sshs_model_hash"] == hashlib.sha256(data[8 + header :]).hexdigest()
    assert metadata["modelspec.hash_sha256"] == "0x" + metadata["sshs_model_hash"]
    only_ss = {k: v for k, v in metadata.items() if k.startswith("ss_")}
    plain = safetensors.torch.save(ready, metadata=only_ss)
    window = plain[0x100000 : 0x100000 + 0x10000]
    assert len(window) == 0x10000
    assert metadata["sshs_legacy_hash"] == hashlib.sha256(window).hexdigest()[:8]


def test_hashes_follow_the_weights_and_ignore_what_people_edit():
    base = model_hashes(lora(), {"ss_steps": "1", "modelspec.title": "a"})
    assert model_hashes(lora(), {"ss_steps": "1", "modelspec.title": "b"}) == base
    assert model_hashes(lora(2.0), {"ss_steps": "1"})[0] != base[0]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_take_the_chosen_dtype_and_alphas_keep_theirs(tmp_path, dtype):
    path = write_lora(tmp_path / "cat", lora(), metadata={"ss_steps": "3"}, dtype=dtype)
    with safetensors.safe_open(path, framework="pt") as file:
        assert file.metadata() == {"ss_steps": "3"}
        assert file.get_tensor("lora_unet_x.lora_up.weight").dtype == getattr(torch, dtype)
        alpha = file.get_tensor("lora_unet_x.alpha")
    assert (alpha.dtype, alpha.ndim, alpha.item()) == (torch.float32, 0, pytest.approx(2.7))


def test_no_file_is_ever_replaced(tmp_path):
    paths = [write_lora(tmp_path / "cat.safetensors", lora(i), metadata={}, dtype="float32") for i in range(1, 4)]
    assert [p.name for p in paths] == ["cat.safetensors", "cat_00001_.safetensors", "cat_00002_.safetensors"]
    for i, path in enumerate(paths, 1):
        loaded = safetensors.torch.load_file(path)
        assert torch.equal(loaded["lora_unet_x.lora_up.weight"], lora(i)["lora_unet_x.lora_up.weight"])


def test_a_dot_in_the_name_is_part_of_the_name(tmp_path):
    assert write_lora(tmp_path / "cat v1.2", lora(), metadata={}, dtype="float32").name == "cat v1.2.safetensors"


def test_missing_folders_are_made(tmp_path):
    assert write_lora(tmp_path / "a" / "b" / "cat", lora(), metadata={}, dtype="float32").is_file()


def test_transposed_shared_and_trainable_weights_can_be_written(tmp_path):
    base = torch.nn.Parameter(torch.randn(4, 6))
    path = write_lora(tmp_path / "x", {"a": base, "b": base.T, "c": base[:, 2]}, metadata={}, dtype="float32")
    loaded = safetensors.torch.load_file(path)
    assert torch.equal(loaded["b"], base.detach().T)
    assert torch.equal(loaded["c"], base.detach()[:, 2])


def test_a_weight_too_large_for_half_precision_is_refused_by_name():
    with pytest.raises(RunError, match=r"lora_unet_x.lora_up.weight.*too large for float16.*bfloat16"):
        cast_tensors({"lora_unet_x.lora_up.weight": torch.tensor([1e6, 0.0])}, dtype="float16")
    assert cast_tensors({"w": torch.tensor([1e6])}, dtype="bfloat16")["w"].dtype == torch.bfloat16


def test_a_weight_that_is_not_finite_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(RunError, match="w: this weight is not finite"):
        write_lora(tmp_path / "x", {"w": torch.tensor([math.nan])}, metadata={}, dtype="float32")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ConfigError, match="dtype"):
        cast_tensors(lora(), dtype="int4")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_full_disk_is_a_clear_error_and_leaves_nothing_behind(tmp_path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(RunError, match="could not be written"):
            write_lora(tmp_path / "x", {"w": torch.zeros(10_000)}, metadata={}, dtype="float32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_tags_are_counted_for_each_data_set():
    captions = [("cats", "zwx, sofa, "), ("cats", "zwx,window"), ("dogs", "zwx")]
    counts = {"cats": {"zwx": 2, "sofa": 1, "window": 1}, "dogs": {"zwx": 1}}
    assert tag_frequency(captions) == counts


def test_the_lora_socket_carries_plain_tensors_of_their_own():
    source = {"w": torch.nn.Parameter(torch.randn(3, 4)), "alpha": torch.tensor(4.0)}
    carried = lora_model({**source, "t": source["w"].T})
    assert all(t.is_contiguous() and not t.requires_grad and t.device.type == "cpu" for t in carried.values())
    assert carried["alpha"].ndim == 0
    carried["w"].zero_()
    assert source["w"].abs().sum() > 0
    assert carried["t"].abs().sum() > 0
