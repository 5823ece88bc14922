"""Text on the nodes of a graph that is not seen whole, on the classic canvas and in Nodes 2.0."""

# What a page draws with three dots, of labels and values that are too long for their widget or title. Each node is
# brought into view, without which it is not drawn.
_DRAWN = """async () => {
    const { canvas, graph } = window.app, { fillText } = CanvasRenderingContext2D.prototype
    const drawn = new Set(), place = [...canvas.ds.offset]
    CanvasRenderingContext2D.prototype.fillText = function (text, ...where) {
        drawn.add(String(text))
        return fillText.call(this, text, ...where)
    }
    try {
        for (const { pos: [x, y] } of graph.nodes) {
            canvas.ds.offset[0] = 200 - x
            canvas.ds.offset[1] = 200 - y
            canvas.draw(true, true)
            await new Promise(done => requestAnimationFrame(done))
        }
    } finally {
        CanvasRenderingContext2D.prototype.fillText = fillText
        canvas.ds.offset[0] = place[0]
        canvas.ds.offset[1] = place[1]
    }
    const whole = new Set(graph.nodes.flatMap(node => [
        node.title, ...(node.widgets ?? []).flatMap(one => [one.name, one.label, String(one.value)])
    ]))
    return [...drawn].filter(text => /…|\\.\\.\\./.test(text) && !whole.has(text))
}"""
# Elements of nodes, and of widgets that lie over the classic canvas, whose text is wider or higher than what shows it.
_CUT = """() => {
    const found = [], seen = one => one.checkVisibility({ visibilityProperty: true, opacityProperty: true })
    // Whether an element shows less than what is in it, and that is the text: its own, or one whose box ends beyond it.
    const cuts = (one, text, box) => {
        const { overflowX, overflowY } = getComputedStyle(one), { right, bottom } = one.getBoundingClientRect()
        const own = text.parentElement === one
        return (overflowX !== "visible" && one.scrollWidth > one.clientWidth + 1 && (own || box.right > right - 1)) ||
            (overflowY !== "visible" && one.scrollHeight > one.clientHeight + 1 && (own || box.bottom > bottom - 1))
    }
    const roots = [...document.querySelectorAll("[data-node-id], .dom-widget")]
    const named = root => window.app.graph.getNodeById(root.dataset.nodeId)?.title ?? root.className
    for (const root of roots.filter(seen)) {
        for (const field of root.querySelectorAll("input, textarea")) {
            const cut = field.scrollWidth > field.clientWidth + 1 || field.scrollHeight > field.clientHeight + 1
            const isText = field.type !== "range" && field.offsetWidth > 1
            if (cut && isText && seen(field)) found.push([named(root), field.value])
        }
        const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT)
        while (texts.nextNode()) {
            const text = texts.currentNode, range = document.createRange()
            range.selectNodeContents(text)
            const box = range.getBoundingClientRect()
            if (!text.data.trim() || !box.width || !seen(text.parentElement)) continue
            for (let one = text.parentElement; one !== root.parentElement; one = one.parentElement) {
                // What is meant for the ear has one pixel.
                if (one.offsetWidth <= 1) break
                if (cuts(one, text, box)) {
                    found.push([named(root), text.data.trim()])
                    break
                }
            }
        }
    }
    return found
}"""
# Titles of groups that are longer than their frame is wide.
_GROUPS = """() => {
    const drawn = document.createElement("canvas").getContext("2d")
    return window.app.graph.groups.filter(({ title, size, font_size }) => {
        drawn.font = `${font_size || 24}px Inter, Arial`
        return drawn.measureText(title).width + 12 > size[0]
    }).map(({ title }) => title)
}"""


def cut_text(page, *, modern):
    """What of the open graph's text is cut: [(where, text)], or the text as it is drawn; `modern` is Nodes 2.0."""
    # First what lies over the canvas: of it, a look at every node leaves only what is in view at the end.
    found = [*map(tuple, page.evaluate(_CUT)), *page.evaluate(_GROUPS)]
    return found if modern else [*found, *page.evaluate(_DRAWN)]
