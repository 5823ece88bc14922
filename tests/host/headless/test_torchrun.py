"""What a process of several takes for itself before ComfyUI starts, and which graphs several do not share."""

import pytest

from masklora.host.headless.problems import RefusedError
from masklora.host.headless.shared import shared_training
from masklora.host.headless.start import card_of
from masklora.torchrun import Place, place

GIVEN = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "first", "MASTER_PORT": "29500"}
CARDS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch):
    for name in (*GIVEN, "LOCAL_RANK", "LOCAL_WORLD_SIZE", *CARDS):
        monkeypatch.delenv(name, raising=False)


def test_a_process_is_one_of_several_only_where_all_that_torchrun_gives_is_there(monkeypatch):
    assert place() is None
    for name, value in GIVEN.items():
        # Clusters set WORLD_SIZE, and more, for programs of their own.
        assert place() is None
        monkeypatch.setenv(name, value)
    assert place() == Place(3, 4, 3, 4)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert place() == Place(3, 4, 1, 2)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert place() is None
    monkeypatch.setenv("WORLD_SIZE", "many")
    assert place() is None


@pytest.mark.parametrize("name", CARDS)
def test_each_process_takes_one_of_the_cards_that_are_left(monkeypatch, name):
    second = Place(3, 4, 1, 2)
    assert card_of(second, []) == {"--cuda-device": "1"}
    monkeypatch.setenv(name, "2, GPU-5ab3")
    assert card_of(second, ["--lowvram"]) == {"--cuda-device": "GPU-5ab3"}
    assert card_of(second, ["--cpu"]) == {}
    # Alone on its machine it may have any.
    assert card_of(Place(3, 4, 0, 1), ["--cuda-device", "5"]) == {}
    monkeypatch.setenv(name, "2")
    with pytest.raises(RefusedError, match="2 processes, and CUDA_VISIBLE_DEVICES leaves 1 card"):
        card_of(second, [])


@pytest.mark.parametrize("flags", [["--cuda-device", "0"], ["--cuda-device=0"]])
def test_one_card_for_all_processes_of_a_machine_is_refused(flags):
    with pytest.raises(RefusedError, match="one card"):
        card_of(Place(0, 2, 0, 2), flags)


def graph(**more):
    nodes = {"1": ("MLT_CacheDataset", {}), "2": ("MLT_TrainLoRA", {"cache": ["1", 0]}), **more}
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def test_what_several_processes_cannot_share_is_refused_and_named():
    assert shared_training(graph()) == ["2"]
    # A cache that only the first one makes would have it wait for the others in the midst of their training.
    other = graph(**{"3": ("MLT_CacheDataset", {}), "4": ("MLT_EstimateMemory", {"cache": ["3", 0]})})
    with pytest.raises(RefusedError) as refused:
        shared_training(other)
    assert refused.value.problems[0].node == "3" and "caches what the training does not use" in str(refused.value)
    saves = graph(**{"1": ("MLT_CacheDataset", {"dataset": ["3", 0]}), "3": ("MLT_SaveMasks", {})})
    with pytest.raises(RefusedError, match="writes files"):
        shared_training(saves)
