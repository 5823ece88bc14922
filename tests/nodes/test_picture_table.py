"""The table of a run's pictures: what the server tells of them, and how a person goes from it to a mask."""

import io
import os
import shutil

import pytest
from PIL import Image

from harness.panel import Panel
from harness.sidebar import Sidebar

TABLE = "dialog.mlt-picture-table"


@pytest.fixture
def own_set(comfy_server, train_graph):
    """A function that gives a training graph on a copy of the demo's pictures, with a browser of it where asked."""

    def make(name, *, browser=False, **train):
        folder = comfy_server.base / "input" / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(comfy_server.base / "input" / "train demo" / "alpha", folder)
        graph = train_graph(name=name, **train)
        graph["2"]["inputs"]["folder"] = name
        if browser:
            inputs = {"dataset": ["2", 0], "cache": ["3", 0], "resolution": 128, "view": "overlay"}
            graph["6"] = {"class_type": "MLT_InspectDataset", "inputs": inputs}
        return graph, sorted(path.name for path in folder.glob("*.png"))

    return make


def test_every_picture_has_a_row_with_its_numbers_and_its_file(routes, comfy_client, own_set):
    graph, names = own_set("a table", steps=8, validate_every=4, validation_share=0.2)
    comfy_client.run(graph)
    run = routes.named("a_table")
    answer = routes.get(f"/runs/{run['id']}/pictures")
    rows = {row["name"]: row for row in answer["rows"]}
    assert sorted(rows) == names and answer["recent"] == 20
    assert sum(row["showings"] for row in rows.values()) == 16
    # Held-out pictures were never shown to the loss.
    assert sum(row["showings"] == 0 for row in rows.values()) >= round(0.2 * len(names))
    shown = [row for row in answer["rows"] if row["showings"]]
    assert all(row["loss"] > 0 and row["relative"] > 0 and 0 < row["coverage"] < 1 for row in shown)
    assert [row["relative"] for row in shown] == sorted((row["relative"] for row in shown), reverse=True)
    assert {row["file"] for row in rows.values()} == {f"input/a table/{name}" for name in names}
    assert all(row["opened"] is None for row in rows.values())
    status, headers, content = routes.ask("GET", f"/runs/{run['id']}/pictures/{rows[names[0]]['number']}/thumbnail")
    assert (status, headers["X-Content-Type-Options"]) == (200, "nosniff")
    assert max(Image.open(io.BytesIO(content)).size) == 96


def test_what_is_no_picture_of_the_run_or_leads_elsewhere_is_not_shown(
    routes, comfy_client, comfy_server, own_set, tmp_path
):
    graph, names = own_set("not shown", steps=2)
    comfy_client.run(graph)
    path = f"/runs/{routes.named('not_shown')['id']}/pictures"
    assert routes.ask("GET", f"{path}/{len(names)}/thumbnail")[0] == 404
    assert routes.ask("GET", f"{path}/x/thumbnail")[0] == 400
    assert routes.ask("GET", f"/runs/{'0' * 20}/pictures")[0] == 404
    picture = comfy_server.base / "input" / "not shown" / names[0]
    number = next(row["number"] for row in routes.get(path)["rows"] if row["name"] == names[0])
    elsewhere = shutil.copy(picture, tmp_path)
    picture.unlink()
    assert routes.ask("GET", f"{path}/{number}/thumbnail")[0] == 422
    picture.symlink_to(elsewhere)
    assert routes.ask("GET", f"{path}/{number}/thumbnail")[0] == 403


def rows_of(tab):
    return tab.locator(f"{TABLE} tbody tr")


def test_from_the_table_a_person_gets_to_the_mask_of_the_worst_picture(page, comfy_client, own_set):
    graph, names = own_set("worst", browser=True, steps=12, batch_size=4)
    comfy_client.run(graph)
    tab, side = page.page, Sidebar(page).open().choose_run("worst")
    side.action("Pictures, worst first").click()
    rows_of(tab).first.wait_for()
    assert rows_of(tab).count() == len(names)
    factors = [float(words.removesuffix(" ×")) for words in tab.locator(f"{TABLE} td:nth-child(2)").all_inner_texts()]
    assert factors == sorted(factors, reverse=True) and factors[0] > 1 > factors[-1]
    loaded = f"[...document.querySelectorAll('{TABLE} img')].slice(0, 4).every(one => one.naturalWidth > 50)"
    tab.wait_for_function(loaded)
    assert tab.locator(TABLE).evaluate("one => one.clientWidth") < 900
    if folder := os.environ.get("MASKLORA_SHOTS"):
        tab.screenshot(path=f"{folder}/table.png")
    sort = tab.locator(TABLE).get_by_role("button", name="Showings")
    sort.click()
    assert tab.locator(f"{TABLE} th[aria-sort=descending]").inner_text().startswith("Showings")
    tab.locator(TABLE).get_by_role("button", name="Against others").click()
    worst = rows_of(tab).first.locator("button")
    name = worst.inner_text()
    worst.press("Enter")
    dialog = tab.locator("dialog.mlt-dialog:not(.mlt-picture-table)")
    dialog.locator(".mlt-facts").get_by_text(name).first.wait_for()
    tab.keyboard.press("e")
    tab.locator("dialog.mlt-editor strong").get_by_text(name).wait_for()
    tab.keyboard.press("Escape")
    tab.locator("dialog.mlt-editor").wait_for(state="detached")
    tab.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    # Who walks the table by keys is where they were.
    tab.wait_for_function("name => document.activeElement.dataset.name === name", arg=name)
    tab.keyboard.press("Escape")
    tab.locator(TABLE).wait_for(state="detached")
    assert page.problems == []


def test_while_it_trains_the_table_grows_and_says_where_a_picture_is(page, own_set):
    graph, _ = own_set("growing", steps=3000)
    panel = Panel(page).load(graph)
    prompt_id = panel.start()
    try:
        tab = panel.at_step(3).tab
        # The node may lie below the side bar.
        panel.button("Pictures, worst first").press("Enter")
        rows_of(tab).first.wait_for()
        cells = "document.querySelectorAll('dialog td:nth-child(4)')"
        total = f"() => [...{cells}].reduce((n, one) => n + Number(one.textContent), 0)"
        before = tab.evaluate(total)
        tab.wait_for_function(f"before => ({total})() > before", arg=before)
        rows_of(tab).first.locator("button").click()
        said = tab.locator(f"{TABLE} [role=status]").inner_text()
        assert "input/growing/" in said and "Inspect Dataset" in said
        assert page.problems == []
    finally:
        page.server.interrupt()
        page.server.wait(prompt_id, timeout=60, check=False)
