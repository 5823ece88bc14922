"""The tab of the trainings as a person uses it."""

from harness.panel import PANEL, Panel

TAB = ".mlt-sidebar"
OPEN = "name => window.app.extensionManager.sidebarTab.toggleSidebarTab(name)"
RUNS = "masked_lora.runs"


class Sidebar(Panel):
    """The tab's panel, and the list above it."""

    def __init__(self, page):
        super().__init__(page, f"{TAB} {PANEL}")

    def open(self):
        self.page.evaluate(OPEN, RUNS)
        self.tab.wait_for_selector(self.selector)
        return self

    def choose_run(self, name):
        run = self.tab.locator(f"{TAB} .mlt-run").filter(has_text=f"{name} ·").first
        run.wait_for()
        run.click()
        self.tab.wait_for_function(
            "([s, name]) => document.querySelector(`${s} .mlt-title`).textContent === name", arg=[self.selector, name]
        )
        return self

    def action(self, name):
        return self.tab.locator(f"{TAB} .mlt-actions").get_by_role("button", name=name, exact=True)

    def says(self, words):
        self.tab.wait_for_function(
            "([s, words]) => document.querySelector(s).textContent.includes(words)",
            arg=[f"{TAB} .mlt-actions .mlt-note", words],
        )
