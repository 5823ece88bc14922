"""The promises about speed, memory and start-up of docs/evidence.md, on a small scale."""

import itertools
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import (
    compiled_beside_core,
    mask_chain,
    preservation_cost,
    prior_cost,
    quantized_compute,
    run_polling,
    token_routing,
)
from benchmarks.sides import NETWORKS, Stage
from benchmarks.train_step import RATIOS, VARIANTS, measure, table
from harness.damage import ALL, many
from masklora.loss import masks

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "benchmarks" / "train_step.json"
# What others do on the machine decides how long these take and what they find.
timed = pytest.mark.skipif(not ALL, reason="with --all: it times steps")
EVIDENCE = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8").splitlines()


@timed
@pytest.mark.parametrize("network", list(NETWORKS))
def test_a_step_takes_at_most_six_tenths_of_comfyui_s_with_every_matrix_adapted(network, one_thread, tmp_path):
    chosen = {name: VARIANTS[name] for name in ("ours, off", "core, default")}
    stage, best = Stage(network, tmp_path), {name: math.inf for name in chosen}
    # A neighbour only ever adds time, to either side: the least of each side is compared, and a loud round repeated.
    for _ in range(6):
        found, counts = measure(stage, chosen, rounds=1, steps=3, warm_up=2)
        for what in ("weight matrices", "numbers in matrices"):
            assert counts["ours, off"][what] == counts["core, default"][what] > 0
        best = {name: min(best[name], *found[name][0]) for name in chosen}
        if best["ours, off"] <= 0.55 * best["core, default"]:
            break
    assert best["ours, off"] <= 0.6 * best["core, default"], best


def test_the_stored_figures_are_complete_and_follow_from_the_stored_times():
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    assert [r["network"] for r in stored["results"]] == list(NETWORKS)
    assert stored["setting"]["rounds"] >= 5 and stored["setting"]["steps a round"] >= 15
    for result in stored["results"]:
        lines = {line["title"]: line for line in result["ratios"]}
        for title, above, below, _ in RATIOS:
            pairs = zip(result["seconds"][above], result["seconds"][below], strict=True)
            expected = statistics.median(statistics.median(a) / statistics.median(b) for a, b in pairs)
            assert lines[title]["ratio of medians"] == pytest.approx(expected)
    assert table(stored["results"]).count("\n") >= len(RATIOS) + len(VARIANTS)


def test_the_evidence_tells_the_steps_of_more_networks_as_they_were_timed():
    stored = json.loads(compiled_beside_core.RESULTS.read_text(encoding="utf-8"))
    for network, latent in compiled_beside_core.COLUMNS:
        assert compiled_beside_core.line_of(stored[f"{network}, {latent}"], f"{network}, {latent}") in EVIDENCE


@timed
@pytest.mark.parametrize("network", list(NETWORKS))
def test_the_prior_costs_at_most_one_forward_pass(network, one_thread, tmp_path):
    # A forward is a third of a step with checkpointing, and a quarter of such steps is 8 %; here a wide margin.
    chosen = {name: prior_cost.VARIANTS[name] for name in ("without", "p = 1")}
    found = prior_cost.measure(Stage(network, tmp_path), chosen, rounds=2, steps=2, warm_up=1)
    assert all(all(r["asked"]) for r in found["p = 1"]) and not any(any(r["asked"]) for r in found["without"])
    with_prior, without = (min(min(r["seconds"]) for r in found[name]) for name in ("p = 1", "without"))
    assert with_prior / without <= 1.6, found


def test_the_stored_cost_of_the_prior_follows_from_the_stored_times_and_meets_its_bar():
    stored = json.loads((ROOT / "benchmarks" / "prior_cost.json").read_text(encoding="utf-8"))
    assert [r["network"] for r in stored["results"]] == list(NETWORKS)
    for result in stored["results"]:
        assert all(len(rounds) >= 4 and len(rounds[0]["seconds"]) >= 16 for rounds in result["rounds"].values())
        assert all(sum(r["asked"]) >= 4 for r in result["rounds"]["p = 0.25"])
        for title, figures in prior_cost.both_ratios(result["rounds"]).items():
            assert result[title] == pytest.approx(figures)
            assert figures["p = 0.25"] <= prior_cost.BAR
    assert f"≤ {prior_cost.BAR}" in prior_cost.table(stored["results"])


@timed
def test_a_routed_step_is_faster(one_thread, tmp_path):
    # A third of the blocks is left out of the route, and a narrow network's time is not in its matrices alone.
    stage = token_routing.RoutingStage(tmp_path, sizes={"hidden": 128, "double": 3, "single": 9}, pictures=2)
    chosen = {name: token_routing.VARIANTS[name] for name in ("without", "routed")}
    found = token_routing.measure(stage, chosen, rounds=3, steps=2, warm_up=1)
    # On a shared machine a step may take half as much longer, or have a core that is faster for a while.
    without, routed = (statistics.median(itertools.chain(*found[name])) for name in ("without", "routed"))
    assert without / routed >= 1.2, found
    learned = stage.held_out(token_routing.LOSSES["routed"], steps=1)
    assert learned["kept tokens"] == {"64×64": [416 / 1024]}
    assert learned["held-out loss"] > 0


def test_the_stored_figures_of_token_routing_follow_from_the_stored_times_and_meet_their_bars():
    stored = json.loads((ROOT / "benchmarks" / "token_routing.json").read_text(encoding="utf-8"))
    setting, learning = stored["setting"], stored["learning"]
    assert setting["double"] + setting["single"] >= 12 and setting["tokens"] >= 1024
    assert all(len(rounds) >= 2 and len(rounds[0]) >= 15 for rounds in stored["seconds"].values())
    for title, found in token_routing.figures(stored["seconds"]).items():
        assert stored["ratios"][title] == pytest.approx(found)
    assert min(stored["ratios"]["routed, steps per second / without"].values()) >= token_routing.SPEED_BAR
    losses = {name: learning[name]["held-out loss"] for name in ("before", "without", "routed")}
    # More was learned than to predict nothing, and routing learned it too.
    assert losses["without"] <= 0.9 * learning["loss of predicting nothing"] < losses["before"]
    assert losses["routed"] <= (1 + token_routing.LOSS_BAR) * losses["without"]
    assert f"≥ {token_routing.SPEED_BAR}" in token_routing.table(stored)


def test_the_stored_cost_of_preservation_is_of_every_network_and_about_that_of_a_second_step():
    stored = json.loads((ROOT / "benchmarks" / "preservation_cost.json").read_text(encoding="utf-8"))
    assert [r["network"] for r in stored["results"]] == list(NETWORKS)
    for result in stored["results"]:
        assert all(len(rounds) >= 3 and len(rounds[0]["seconds"]) >= 8 for rounds in result["rounds"].values())
        assert 1.8 < preservation_cost.ratio(result["rounds"]) < 2.6
    assert preservation_cost.table(stored["results"]).count("\n") == 1 + len(preservation_cost.SHARES)


def test_the_stored_paces_beside_five_pages_follow_from_the_stored_blocks_and_meet_their_bar():
    stored = json.loads((ROOT / "benchmarks" / "run_polling.json").read_text(encoding="utf-8"))
    assert (stored["setting"]["runs"], stored["setting"]["tabs"]) == (200, 5)
    beside = [block for block in stored["blocks"] if block["tabs"]]
    assert len(stored["blocks"]) >= 40 and sum(block["answers"] for block in beside) >= 4 * len(beside)
    assert stored["paces"] == pytest.approx(run_polling.paces(stored["blocks"])) and len(stored["paces"]) == 3
    assert min(stored["paces"].values()) >= run_polling.BAR
    assert any(
        f"{min(stored['paces'].values()):.0%}".replace("%", " %") in line for line in EVIDENCE if "pages" in line
    )


def test_the_pack_adds_less_than_three_tenths_of_a_second_to_comfyui_s_start():
    command = [sys.executable, str(ROOT / "dev.py"), "run", "benchmarks/start_up.py"]
    # Python keeps what it has compiled, as it does for people: only the first start after an update compiles.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    # On a slower machine, as much more as ComfyUI's own start takes there, which is five seconds on that of the bound.
    # Once, beside other tests, is no measure.
    shares, bound = [], many(4, 1)
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout.splitlines()[-1])
        assert facts["nodes"] >= 12
        assert "peft" not in facts["packages"]
        shares.append(facts["seconds"] / max(0.3, 0.06 * facts["comfyui"]))
        if shares[-1] < bound:
            break
    assert min(shares) < bound


def test_twenty_pictures_of_a_megapixel_a_second_pass_the_chain_of_mask_transforms_in_flat_memory():
    # Bare of the shared machine's noise, the stored figure is the claim; here a wide margin.
    stored = json.loads((ROOT / "benchmarks" / "mask_chain.json").read_text(encoding="utf-8"))
    assert stored["pictures"] == 500
    assert stored["pictures per second and core"] >= 20
    assert stored["peak megabytes, all"] <= stored["peak megabytes, first tenth"] + 32
    found = mask_chain.run(many(12, 40))
    assert found["pictures per second and core"] >= many(2, 10)
    if found["peak megabytes, all"] is not None:
        assert found["peak megabytes, all"] <= found["peak megabytes, first tenth"] + 64


def test_a_disc_of_bytes_grows_a_mask_exactly_as_the_distance_does():
    mask = (mask_chain.noisy_mask(1)[:200, :200] < 0.5).astype(np.float32)
    for radius in (1, 1.5, 4, 8, masks.DISC_RADIUS):
        distance = cv2.distanceTransform((mask == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        assert np.array_equal(masks.grow_mask(mask, radius=radius), distance <= radius + 1e-3)


def test_the_evidence_tells_the_stored_figures_of_the_browser():
    figures = json.loads((ROOT / "benchmarks" / "dataset_browser.json").read_text(encoding="utf-8"))
    assert figures["pictures"] == 10_000
    told = f"Ten thousand pictures of 256×256 px open in {figures['first_paint_ms'] / 1000:.1f} s and scroll at "
    told += f"{1000 / figures['frame_ms_median']:.0f} frames a second, 95 % of them within "
    told += f"{figures['frame_ms_p95']:.0f} ms"
    evidence = " ".join((ROOT / "docs" / "evidence.md").read_text(encoding="utf-8").split())
    assert told in evidence


def test_the_evidence_tells_the_stored_gradients_in_8_bits():
    stored = json.loads(quantized_compute.STORED.read_text(encoding="utf-8"))
    assert tuple(stored) == quantized_compute.FAMILIES
    for found in stored.values():
        for name in (*quantized_compute.COLUMNS, quantized_compute.ROUNDED):
            assert len(found[name]) == len(quantized_compute.SEEDS) >= 3
            assert quantized_compute.LEAST[name] < min(one["cosine"] for one in found[name]) < 1
    table = quantized_compute.table(stored).splitlines()
    at = EVIDENCE.index(table[0])
    assert EVIDENCE[at : at + len(table)] == table
    assert f"The gradients are as long as the exact ones to {quantized_compute.unlike(stored):.1%}.".replace(
        "%", " %"
    ) in " ".join(EVIDENCE)


def test_a_gradient_in_8_bits_is_as_near_as_the_stored_ones():
    (found,) = quantized_compute.measure("flux", "fp8 e4m3", seeds=(7,))
    assert quantized_compute.LEAST["fp8 e4m3"] < found["cosine"] < 1 - 1e-6
    assert abs(found["length"] - 1) < 0.05
