"""The reading of a trace, on a page of which it is known how long it stands still."""

from harness.trace import CATEGORIES, read_trace

SLOW = """
const stand = ms => { const end = performance.now() + ms; while (performance.now() < end); }
window.play = () => new Promise(done => {
    let frames = 0
    const step = () => {
        frames += 1
        if (frames === 20) stand(150)
        if (frames < 60) requestAnimationFrame(step)
        else done()
    }
    requestAnimationFrame(step)
    requestAnimationFrame(() => {})
})
"""


def test_a_frame_that_stands_still_is_found_and_laid_to_its_script(browser, browser_context):
    tab = browser_context.new_page()
    tab.route("http://page.test/**", lambda route: route.fulfill(body="<p>", content_type="text/html"))
    tab.route("http://page.test/ours/*.js", lambda route: route.fulfill(body=SLOW, content_type="text/javascript"))
    tab.goto("http://page.test/")
    tab.add_script_tag(url="http://page.test/ours/slow.js")
    browser.start_tracing(page=tab, categories=CATEGORIES)
    tab.evaluate("() => window.play()")
    recorded = browser.stop_tracing()
    tab.close()
    ours, others = (read_trace(recorded, scripts=part) for part in ("/ours/", "/others/"))
    assert len(ours.frames) >= 58 and max(ours.frames) >= 140
    assert max(own for _, own in ours.tasks) >= 149
    assert [own for _, own in others.tasks] == [0] * len(ours.tasks)
