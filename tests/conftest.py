"""Makes the pack importable as ComfyUI would import it, and a real ComfyUI usable in the tests.

The repository root never enters `sys.path`: its `nodes` would hide ComfyUI's module of that name. The root is
registered as the package `masked_lora_pack` instead, and `masklora`, `devtools`, `demo`, `benchmarks` and `harness`
are other names for the very same modules below it, so that a class exists once however it is imported.
"""

import importlib
import importlib.abc
import importlib.util
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "masked_lora_pack"
ALIASES = {
    "masklora": f"{PACKAGE}.masklora",
    "devtools": f"{PACKAGE}.devtools",
    "demo": f"{PACKAGE}.demo",
    "benchmarks": f"{PACKAGE}.benchmarks",
    "harness": f"{PACKAGE}.tests.harness",
}


class AliasLoader(importlib.abc.Loader):
    """Hands out the module that already exists under its real name."""

    def __init__(self, real):
        self.real = real

    def create_module(self, spec):
        module = importlib.import_module(self.real)
        self.spec = module.__spec__
        return module

    def exec_module(self, module):
        # The import system has just replaced it; relative imports of the module read it.
        module.__spec__ = self.spec


class AliasFinder(importlib.abc.MetaPathFinder):
    """Resolves `masklora.x` to the module object of `masked_lora_pack.masklora.x`."""

    def find_spec(self, fullname, path=None, target=None):
        head, dot, rest = fullname.partition(".")
        if head not in ALIASES:
            return None
        real = ALIASES[head] + dot + rest
        try:
            known = importlib.util.find_spec(real)
        except ModuleNotFoundError:
            known = None
        return importlib.util.spec_from_loader(fullname, AliasLoader(real)) if known else None


def register_pack():
    """Registers the repository root as a package under a name of its own."""
    spec = importlib.util.spec_from_file_location(
        PACKAGE, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)
    sys.meta_path.insert(0, AliasFinder())


def prepare_comfyui(path):
    """Puts ComfyUI on the path, its own folders in a temporary one, on the CPU where there is no CUDA."""
    sys.path.insert(0, str(path))
    import comfy.cli_args
    import torch

    scratch = Path(tempfile.mkdtemp(prefix="masked-lora-tests-"))
    comfy.cli_args.args.base_directory = str(scratch)
    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    for name in ("input", "output", "temp", "user", "models", "custom_nodes"):
        (scratch / name).mkdir()
    return scratch


register_pack()
COMFYUI = os.environ.get("COMFYUI_PATH")
SCRATCH = prepare_comfyui(Path(COMFYUI).resolve()) if COMFYUI else None
