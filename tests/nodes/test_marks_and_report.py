"""What a person notes on a run in the sidebar, and the report for helpers, which tells nothing of the person."""

import getpass
import json
import os
import platform
import re

import pytest
import torch

from harness.sidebar import TAB, Sidebar

ITEMS = f"{TAB} .mlt-runs li"


def names_in(tab):
    """The runs in the order of the list, without what else stands there."""
    return [words.split(" · ")[0] for words in tab.locator(f"{ITEMS} .mlt-run > span:first-child").all_inner_texts()]


def item(tab, name):
    return tab.locator(ITEMS).filter(has_text=f"{name} ·").first


def test_a_run_is_renamed_and_starred_in_the_list(page, comfy_client, routes, train_graph):
    for name in ("starred-run", "newer-run"):
        comfy_client.run(train_graph(name=name, steps=2, keep_finished_runs=0))
    tab, side = page.page, Sidebar(page).open().choose_run("starred-run")
    assert names_in(tab)[0] == "newer-run"
    item(tab, "starred-run").get_by_role("button", name="Star of starred-run").click()
    tab.wait_for_function(f"() => document.querySelector('{ITEMS}').textContent.includes('starred-run')")
    run = routes.named("starred-run")
    assert run["starred"] and names_in(tab)[:2] == ["starred-run", "newer-run"]
    assert side.action("Delete").is_disabled()
    status, told = routes.post(f"/runs/{run['id']}/delete")
    assert status == 409 and "has a star" in told["error"]
    # Escape keeps the name, Enter changes it.
    field = tab.locator(f"{TAB} .mlt-rename input")
    for key, shown in (("Escape", "starred-run"), ("Enter", "Anna, step by step")):
        side.action("Rename").click()
        field.fill("Anna, step by step")
        field.press(key)
        item(tab, shown).wait_for()
    assert routes.named("starred-run")["label"] == "Anna, step by step"
    # The list is drawn at once, the panel with the next frame.
    tab.wait_for_function(
        "s => document.querySelector(`${s} .mlt-title`).innerText === 'Anna, step by step'", arg=side.selector
    )
    assert "starred-run" in item(tab, "Anna, step by step").locator(".mlt-begun").inner_text()
    if folder := os.environ.get("MASKLORA_SHOTS"):
        tab.screenshot(path=f"{folder}/marks.png")
    # It stays after a reload; without the star the run can be deleted again.
    tab.reload(wait_until="domcontentloaded")
    side = Sidebar(page.open()).open()
    item(tab, "Anna, step by step").wait_for()
    assert names_in(tab)[0] == "Anna, step by step"
    item(tab, "Anna, step by step").locator(".mlt-run").click()
    item(tab, "Anna, step by step").locator(".mlt-star").click()
    tab.wait_for_function(f"() => document.querySelector('{ITEMS}').textContent.includes('newer-run')")
    assert side.action("Delete").is_enabled() and page.problems == []


@pytest.mark.parametrize("body", [b"{}", b'{"label": 5}', b'{"starred": 1}', b'{"label": "a", "path": "/"}', b"[]"])
def test_marks_of_another_form_are_refused(routes, comfy_client, train_graph, body):
    if routes.named("marked") is None:
        comfy_client.run(train_graph(name="marked", steps=2))
    path = f"/runs/{routes.named('marked')['id']}/marks"
    assert routes.post(path, body)[0] == 400
    assert routes.post(path, b'{"starred": true}', Origin="http://evil.example")[0] == 403
    assert routes.post(f"/runs/{'0' * 20}/marks", b'{"starred": true}')[0] == 404
    assert not routes.named("marked")["starred"]


OWN = ["Marigold", "Petunia", "hyacinth", "Übung", "cät", "sunflower field", "zibblish"]


@pytest.fixture
def told_run(comfy_client, comfy_server, folders, routes, train_graph):
    """A run whose pictures, captions, prompts and names are somebody's own, and whose messages tell of them."""
    folder = folders.make("Marigold and Petunia", size=(128, 128), alpha=True)
    for picture in folder.glob("*.png"):
        picture.rename(folder / f"hyacinth {picture.name}")
    for caption in folder.glob("*.txt"):
        caption.rename(folder / f"hyacinth {caption.name}")
    prompts = {"prompts": "Petunia in a sunflower field", "every": 0, "steps": 1}
    graph = train_graph(name="Marigold LoRA", steps=2, samples=prompts)
    graph["2"]["inputs"] |= {"folder": "Marigold and Petunia", "trigger_word": "zibblish"}
    comfy_client.run(graph)
    (run,) = (comfy_server.base / "user" / "masked_lora" / "runs").glob("Marigold_LoRA-*")
    told = json.loads((run / "told.json").read_text(encoding="utf-8"))
    picture = folder / "hyacinth cat 1.png"
    sentences = [
        f"{picture}: the mask is 512×512 but the image is 1024×768. Save the mask at the image's size.",
        "hyacinth cat 1.png, hyacinth cat 2.png: a mask is black, so a cät, number 1 is not learned.",
        f"{run} takes 3 MiB; Petunia in a sunflower field was drawn with zibblish for {getpass.getuser()}.",
        "3 of 12 masks cover less than 1 % of their picture.",
    ]
    told["notes"] = [{"text": one, "level": "warning"} for one in sentences]
    told["failed"] = f"CUDA out of memory while reading {picture} of Marigold LoRA on {platform.node()}."
    (run / "told.json").write_text(json.dumps(told), encoding="utf-8")
    found = routes.named("Marigold_LoRA")
    routes.post(f"/runs/{found['id']}/marks", b'{"label": "Petunia run"}')
    return found


def test_the_report_tells_what_helps_and_nothing_of_the_person(told_run, routes, comfy_server):
    text = routes.get(f"/runs/{told_run['id']}/report")["text"]
    if folder := os.environ.get("MASKLORA_SHOTS"):
        with open(f"{folder}/report.txt", "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(text)
    lower = text.casefold()
    assert [word for word in OWN if word.casefold() in lower] == []
    for word in (getpass.getuser(), platform.node(), "cat 1", "number 1"):
        assert not re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE), word
    assert str(comfy_server.base) not in text and "/tmp" not in text and "masked_lora/runs" not in text
    python = platform.python_version()
    for part in ("masked-lora 0.1.0", "ComfyUI 0.30.0", f"torch {torch.__version__}", f"Python {python}"):
        assert part in text
    assert "Card: cpu" in text and "step 2 of 2" in text and "steps 2" in text and "family sd3" in text
    assert "3 of 12 masks cover less than 1 % of their picture." in text
    assert "the mask is 512×512" in text and "Last error: CUDA out of memory" in text


def test_the_report_is_copied_with_one_click(told_run, page, routes):
    page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    side = Sidebar(page).open().choose_run("Petunia run")
    side.action("Copy report").click()
    side.says("The report is on the clipboard")
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied.replace("\r", "") == routes.get(f"/runs/{told_run['id']}/report")["text"]
    # Where a page may not, it is shown to be copied by hand.
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')) }")
    side.action("Copy report").click()
    field = side.tab.locator(".mlt-report-text")
    field.wait_for()
    assert field.input_value() == copied.replace("\r", "") and page.problems == []
    side.tab.keyboard.press("Escape")
    field.wait_for(state="detached")
