"""The start of ComfyUI's page with the pack."""

from devtools.comfy import PACK_FOLDER
from harness.page import READY

# Whether each of our style sheets has rules: one that could not be loaded is there, but empty.
SHEETS = f"""() => [...document.querySelectorAll("link[rel=stylesheet][href*='/extensions/{PACK_FOLDER}/']")]
    .map(({{ href, sheet }}) => {{
        let there = false
        try {{ there = sheet?.cssRules.length > 0 }} catch {{ /* of nowhere */ }}
        return [href.split("/").at(-1), there]
    }})"""
LOST = "gallery.css"


def test_nothing_of_ours_is_shown_before_its_styles_and_a_lost_one_holds_nothing_up(browser_context, comfy_server):
    tab, held = browser_context.new_page(), []
    tab.route(f"**/extensions/{PACK_FOLDER}/**/*.css", lambda route: held.append(route))
    try:
        tab.goto(comfy_server.address, wait_until="domcontentloaded")
        tab.wait_for_function(f"() => ({SHEETS})().length > 0", timeout=120_000)
        # Without styles to wait for the page would be ready by then.
        tab.wait_for_timeout(3000)
        assert len(held) == len(tab.evaluate(SHEETS)) and not tab.evaluate(READY)
        for route in held:
            route.abort() if route.request.url.endswith(LOST) else route.continue_()
        tab.wait_for_function(READY, timeout=120_000)
        sheets = dict(tab.evaluate(SHEETS))
    finally:
        tab.close()
    assert {"page.css", "panel.css", "dataset.css", "editor.css", LOST} <= set(sheets)
    assert [name for name, there in sheets.items() if not there] == [LOST]
