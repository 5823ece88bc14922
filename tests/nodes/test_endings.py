"""The last lines of a run in its panel and in the list: its file, a name that was taken, why there is no file."""

import shutil

import pytest

from harness.panel import PANEL, Panel

ENDING = f"{PANEL} > :last-child"
SIDEBAR = "Workspace.ToggleSidebarTab.masked_lora.runs"


@pytest.fixture
def panel(page):
    return Panel(page)


def said(panel):
    return panel.tab.locator(ENDING).first.inner_text()


def listed(panel, name):
    """What stands below a run in the sidebar's list, after the run was chosen there."""
    panel.page.evaluate("id => window.app.extensionManager.command.execute(id)", SIDEBAR)
    item = panel.tab.locator(".mlt-runs li").filter(has_text=name).first
    item.locator("button.mlt-run").click()
    return item.locator(".mlt-outcome").inner_text()


def test_the_file_is_the_last_line_and_a_taken_name_is_told_with_the_new_one(panel, comfy_server, train_graph):
    loras = comfy_server.base / "output" / "loras"
    loras.mkdir(exist_ok=True)
    (loras / "of-another.safetensors").write_bytes(b"of another")
    panel.load(train_graph(name="of-another", steps=2))
    comfy_server.wait(panel.start(), timeout=120)
    panel.in_state("finished")
    file = "output/loras/of-another_00001_.safetensors"
    lines = [line for line in said(panel).splitlines() if line.strip()]
    assert "of-another.safetensors was there already and stays" in lines[0]
    assert [line for line in lines if line not in ("Copy", "Use this LoRA")][-1] == f"Written: {file}"
    assert listed(panel, "of-another") == file
    # What was told before the training is told in the list again.
    told = panel.tab.locator(".mlt-sidebar .mlt-ending .mlt-notes").inner_text()
    assert "of-another.safetensors is there already" in told
    assert panel.page.problems == []


def test_a_run_that_failed_says_why_and_is_not_one_that_was_interrupted(panel, comfy_server, train_graph):
    panel.load(train_graph(name="breaks", steps=3000))
    prompt_id = panel.start()
    panel.at_step(3)
    (folder,) = (comfy_server.base / "user" / "masked_lora" / "runs").glob("breaks-*")
    shutil.rmtree(folder / "checkpoints")
    panel.button("Save now").click()
    comfy_server.wait(prompt_id, timeout=120, check=False)
    panel.in_state("failed")
    assert said(panel).startswith("Failed: ") and "could not be written" in said(panel)
    assert "No LoRA was written." in said(panel)
    assert "could not be written" in listed(panel, "breaks")


def test_a_cancelled_run_says_that_no_lora_was_written_and_what_can_be_exported(panel, comfy_server, train_graph):
    panel.load(train_graph(name="cancelled", steps=3000))
    prompt_id = panel.start()
    panel.at_step(3)
    comfy_server.interrupt()
    comfy_server.wait(prompt_id, timeout=120, check=False)
    panel.in_state("open")
    panel.tab.wait_for_function("s => document.querySelector(s).textContent.includes('can be exported')", arg=ENDING)
    assert said(panel).startswith("No LoRA was written. The checkpoint of step ")


def test_what_runs_and_what_waits_is_taken_out_of_the_queue(comfy_server, train_graph):
    for name in ("runs on", "waits behind it"):
        comfy_server.submit(train_graph(name=name, steps=3000))
    assert [len(one) for one in comfy_server.get("/queue").values()] != [0, 0]
    comfy_server.empty_queue()
    assert comfy_server.get("/queue") == {"queue_running": [], "queue_pending": []}
