"""Contrast of our colours, as the real page resolves them in ComfyUI's themes: text 4.5, graphics 3 (WCAG 2.2 AA)."""

import pytest

PALETTE = "Comfy.ColorPalette"
TEXT, GRAPHICS = 4.5, 3.0
# White over black and the like: drawn on pictures in pairs, or a veil behind a dialog; no theme lies under them.
ON_PICTURES = {"rgb(0 0 0 / 60%)", "rgba(0, 0, 0, 0.6)", "#000", "#fff", "rgb(0, 0, 0)", "rgb(255, 255, 255)"}
# The frontends say it by different classes; our style sheets are themed once this is set, and by nothing else.
THEMED = "palette => document.documentElement.dataset.mltTheme === palette"
# Every declaration of a colour in our style sheets, its colour in an element that has all our variables, and what the
# theme puts behind it.
MEASURE = """skipped => {
    const roots = "mlt mlt-panel mlt-sidebar mlt-browser mlt-dialog mlt-editor mlt-ask"
    const probe = document.createElement("div")
    probe.className = roots
    probe.style.cssText = "display: block; position: fixed; width: 1px; height: 1px"
    document.body.append(probe)
    const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true })
    const colour = value => {
        const one = document.createElement("span")
        one.style.color = value
        probe.append(one)
        pixel.clearRect(0, 0, 1, 1)
        pixel.fillStyle = getComputedStyle(one).color
        pixel.fillRect(0, 0, 1, 1)
        one.remove()
        return [...pixel.getImageData(0, 0, 1, 1).data]
    }
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0)
    const contrast = (a, b) => {
        const [low, high] = [light(colour(a)), light(colour(b))].sort((x, y) => x - y)
        return (high + 0.05) / (low + 0.05)
    }
    const MENU = "var(--comfy-menu-bg)"
    const found = []
    for (const sheet of document.styleSheets) {
        if (!sheet.href?.includes("/extensions/masked-lora/") || sheet.href.includes("/vendor/")) continue
        for (const rule of sheet.cssRules) {
            for (const name of rule.style ?? []) {
                const value = rule.style.getPropertyValue(name).trim()
                const own = name.startsWith("--mlt-")
                if (!own && !["color", "background-color", "stroke", "fill", "accent-color"].includes(name)) continue
                if (["inherit", "none", "transparent", "currentcolor", ...skipped].includes(value)) continue
                const background = name === "background-color"
                if (background && value.startsWith("var(--comfy-")) continue
                const asked = own ? `var(${name})` : value
                // Our own colours are shown on the ground of panels only, the theme's in fields and buttons too.
                const painted = !background && rule.style.background
                const theme = asked.includes("--mlt-") || background ? [MENU] : [MENU, "var(--comfy-input-bg)"]
                for (const behind of painted ? [painted] : theme) {
                    const ratio = contrast(asked, behind)
                    const where = `${rule.selectorText} ${name}: ${value} on ${behind}`
                    found.push({ where, text: name === "color", ratio })
                }
            }
        }
    }
    probe.remove()
    return found
}"""


@pytest.fixture
def palettes(comfy_server):
    yield lambda name: comfy_server.post("/settings", {PALETTE: name})
    comfy_server.post("/settings", {PALETTE: "dark"})


@pytest.mark.parametrize("palette", ["dark", "light"])
def test_our_colours_stand_out_from_the_theme(palettes, page, palette):
    palettes(palette)
    page.page.reload(wait_until="domcontentloaded")
    page.open()
    page.page.wait_for_function(THEMED, arg=palette)
    found = page.evaluate(MEASURE, sorted(ON_PICTURES))
    assert sum(one["text"] for one in found) > 4
    assert sum("--mlt-" in one["where"] for one in found) > 8
    weak = [
        f"{one['where']}: {one['ratio']:.2f}" for one in found if one["ratio"] < (TEXT if one["text"] else GRAPHICS)
    ]
    assert weak == []
