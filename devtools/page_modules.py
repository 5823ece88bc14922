"""The modules of the page carry the pack's version in every import: ComfyUI lets browsers keep .mjs files.

    python dev.py run devtools/page_modules.py

writes the version of pyproject.toml into them after it was raised.
"""

import re

from devtools.console import say
from devtools.recipe import ROOT

# The file of a module of ours in quotes, with or without a version.
_MODULE = re.compile(r"""(?<=["'`])((?:\.{1,2}/)[\w./-]+\.mjs)(?:\?v=[\w.]+)?(?=["'`])""")
_VERSION = re.compile(r'^version = "([\w.]+)"$', re.MULTILINE)


def version():
    """The pack's, as pyproject.toml has it."""
    return _VERSION.search((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1]


def stamped(code):
    """The code of a module with the version in each of its imports."""
    return _MODULE.sub(rf"\1?v={version()}", code)


def address(name):
    """Where the page finds a module: `name` below web/, without suffix."""
    return f"/extensions/masked-lora/{name}.mjs?v={version()}"


def modules():
    """Our modules of the page, and the tests that import them."""
    shipped = [path for path in sorted((ROOT / "web").rglob("*.*js")) if "vendor" not in path.parts]
    return [*shipped, *sorted((ROOT / "tests" / "web").glob("*.mjs"))]


def main():
    """Writes every module whose version is another."""
    for path in modules():
        code = path.read_text(encoding="utf-8")
        if stamped(code) != code:
            path.write_text(stamped(code), encoding="utf-8", newline="\n")
            say(path.relative_to(ROOT).as_posix())


if __name__ == "__main__":
    main()
