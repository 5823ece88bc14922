"""The reading of a trace, on a page of which it is known how long it stands still."""

import pytest

from harness.trace import CATEGORIES, read_trace, recording

# A page that draws 60 frames, and stands still before the 20th: at work for 100 ms, then waiting for a server for 60.
SLOW = """
const work = ms => { const end = performance.now() + ms; while (performance.now() < end); }
const wait = () => { const asked = new XMLHttpRequest(); asked.open("GET", "/slow", false); asked.send(); }
window.play = () => new Promise(done => {
    let frames = 0
    const step = () => {
        frames += 1
        if (frames === 20) { work(100); wait() }
        if (frames < 60) requestAnimationFrame(step)
        else done()
    }
    requestAnimationFrame(step)
    requestAnimationFrame(() => {})
})
"""
# One that draws twice in every frame, for as long as it is open.
BUSY = "() => { const step = () => { requestAnimationFrame(step) }; step(); step() }"


@pytest.fixture
def pages(browser_context):
    """Opens pages with `SLOW` in them; all are closed at the end."""
    opened = []

    def answer_late(route):
        opened[0].wait_for_timeout(60)
        route.fulfill(body="")

    def make():
        tab = browser_context.new_page()
        opened.append(tab)
        tab.route("http://page.test/**", lambda route: route.fulfill(body="<p>", content_type="text/html"))
        tab.route("http://page.test/ours/*.js", lambda route: route.fulfill(body=SLOW, content_type="text/javascript"))
        tab.route("http://page.test/slow", answer_late)
        tab.goto("http://page.test/")
        tab.add_script_tag(url="http://page.test/ours/slow.js")
        return tab

    yield make
    for tab in opened:
        tab.close()


def test_a_frame_that_stands_still_is_found_and_laid_to_its_script(browser, pages):
    tab, other = pages(), pages()
    other.evaluate(BUSY)
    with recording(browser, tab) as recorded:
        tab.evaluate("() => window.play()")
    ours, others = (read_trace(recorded.data, scripts=part) for part in ("/ours/", "/others/"))
    assert 58 <= len(ours.frames) <= 60 and max(ours.frames) >= 150
    slow = max(ours.tasks, key=lambda task: task.own_ms)
    assert slow.ms >= slow.own_ms >= 159
    # The clock that a page may read is a little coarse, and another program may have the processor for a while.
    assert 10 < slow.own_cpu_ms < slow.own_ms - 40
    assert [(task.own_ms, task.own_cpu_ms) for task in others.tasks] == [(0, 0)] * len(ours.tasks)


def test_a_trace_of_an_unknown_page_is_refused(browser, pages):
    tab = pages()
    browser.start_tracing(page=tab, categories=CATEGORIES)
    tab.evaluate("() => window.play()")
    with pytest.raises(ValueError, match="which page"):
        read_trace(browser.stop_tracing(), scripts="/ours/")


def test_a_trace_of_a_page_that_stands_still_is_refused(browser, pages):
    tab, other = pages(), pages()
    other.evaluate(BUSY)
    with recording(browser, tab) as recorded:
        tab.wait_for_timeout(200)
    with pytest.raises(ValueError, match="no two animation frames"):
        read_trace(recorded.data, scripts="/ours/")
