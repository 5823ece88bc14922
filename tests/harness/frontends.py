"""Which of two web frontends the page tests see: the one that ComfyUI brings, or the newest.

One session of pytest sees one of them, its own unless `MASKLORA_FRONTEND=newest`; `python dev.py test --all` goes over
the page tests a second time so. A usual run has no second time: tests of the main path ask for `cases` instead, and see
the newest frontend within it.
"""

import os

from .damage import ALL

OWN, NEWEST = "own", "newest"
VARIABLE = "MASKLORA_FRONTEND"
# The frontend of this session.
SHOWN = os.environ.get(VARIABLE) or OWN
if SHOWN not in (OWN, NEWEST):
    raise ValueError(f"{VARIABLE}: expected {OWN} or {NEWEST}, got {SHOWN}")
VUE_NODES = "Comfy.VueNodes.Enabled"


def cases(usual=((OWN, False), (NEWEST, True))):
    """What a test of the main path is tried with, as (frontend, whether nodes are drawn by Nodes 2.0).

    Args:
        usual: The cases of a usual run. Any other has both ways to draw nodes in the frontend of the session.
    """
    return list(usual) if SHOWN == OWN and not ALL else [(SHOWN, False), (SHOWN, True)]


def name(case):
    """A case of `cases` in words, for pytest."""
    frontend, vue = case
    return f"{frontend} frontend, {'Nodes 2.0' if vue else 'classic canvas'}"
