"""Every help page shows something: its pictures are there, small, and not blank."""

import re

import numpy as np
from PIL import Image

from harness.help_pictures import DOCS, ROOT

MOST_BYTES = 600_000


def test_every_help_page_has_a_picture_that_shows_something():
    pages = sorted(DOCS.glob("*.md"))
    assert len(pages) > 20
    shown = set()
    for page in pages:
        links = re.findall(
            r"!\[[^]]+\]\((?:/extensions/masked-lora/docs/)?(images/[^)]+)\)", page.read_text(encoding="utf-8")
        )
        assert links, f"{page.name} has no picture"
        for link in links:
            path = DOCS / link
            assert path.stat().st_size < MOST_BYTES, link
            pixels = np.asarray(Image.open(path).convert("RGB"))
            assert min(pixels.shape[:2]) >= 150 and pixels.std() > 10, link
        shown |= set(links)
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        shown |= set(re.findall(r"web/docs/(images/[\w.-]+)", page.read_text(encoding="utf-8")))
    assert {f"images/{path.name}" for path in (DOCS / "images").iterdir()} == shown
