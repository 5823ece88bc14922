"""What held already and shall go on holding: other memory switches, slow senders, and very large folders."""

import os
import shutil
import socket
import time

import numpy as np
import psutil
import pytest
from PIL import Image
from safetensors.torch import load_file

from devtools.comfy import ComfyServer
from harness.folders import anywhere
from harness.toy import same
from masklora.dataset.loading import load_dataset
from masklora.settings import DatasetSettings

everything = pytest.mark.skipif(not os.environ.get("MASKLORA_ALL"), reason="runs with --all")
SLOW = 60
PICTURES = 20_000


@everything
def test_without_node_caches_and_dynamic_memory_the_same_seed_gives_the_same_lora(
    comfy_client, comfy_server, train_graph, tmp_path
):
    prompt = train_graph(name="switches", steps=4)
    comfy_client.run(prompt)
    usual = load_file(comfy_server.base / "output" / "loras" / "switches.safetensors")
    other = ComfyServer(
        comfy_server.host,
        tmp_path / "base",
        models=comfy_server.base / "models",
        arguments=["--cache-none", "--disable-dynamic-vram"],
    )
    shutil.copytree(comfy_server.base / "input", tmp_path / "base" / "input")
    with other:
        other.run(prompt)
    assert same(load_file(tmp_path / "base" / "output" / "loras" / "switches.safetensors"), usual)


def test_slow_senders_hold_nobody_else_up(comfy_server, routes):
    """Bodies that are announced and then come a byte at a time, or not at all."""
    head = (
        b"POST /api/masked_lora/runs/none/export HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: application/json\r\nContent-Length: 400000\r\n\r\n{"
    )
    senders = [socket.create_connection(("127.0.0.1", comfy_server.port), timeout=30) for _ in range(SLOW)]
    try:
        for sender in senders:
            sender.sendall(head)
        waited = []
        for _ in range(20):
            for sender in senders:
                sender.sendall(b" ")
            before = time.monotonic()
            assert "runs" in routes.get("/runs")
            waited.append(time.monotonic() - before)
        assert sorted(waited)[len(waited) // 2] < 1.0, waited
    finally:
        for sender in senders:
            sender.close()
    assert "runs" in routes.get("/runs")


@everything
def test_twenty_thousand_pictures_are_listed_in_flat_memory(tmp_path):
    blank = np.zeros((8, 8, 3), np.uint8)
    Image.fromarray(blank).save(tmp_path / "one.png")
    data = (tmp_path / "one.png").read_bytes()
    for number in range(PICTURES - 1):
        (tmp_path / f"picture {number}.png").write_bytes(data)
    process = psutil.Process()
    before, began = process.memory_info().rss, process.cpu_times().user
    dataset = load_dataset(DatasetSettings(folder=str(tmp_path)), allowed=anywhere)
    assert len(dataset) == PICTURES
    assert process.memory_info().rss - before < 300 * 2**20
    assert process.cpu_times().user - began < 90
