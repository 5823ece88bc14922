"""Trains a LoRA without a page: `python train.py GRAPH.json`, by the Python that starts ComfyUI; see --help."""

import importlib
import importlib.util
import sys
from pathlib import Path

PACK = Path(__file__).resolve().parent
# ComfyUI loads the pack under a name of its own; what runs before that is loaded under this one.
NAME = "masked_lora_start"


def main():
    """Hands the command line over to the pack."""
    # Python puts the script's folder first, where nodes/ would hide ComfyUI's nodes.py.
    sys.path[:] = [place for place in sys.path if place and Path(place).resolve() != PACK]
    spec = importlib.util.spec_from_file_location(NAME, PACK / "__init__.py", submodule_search_locations=[str(PACK)])
    sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[NAME])
    return importlib.import_module(f"{NAME}.masklora.host.headless.command").main(sys.argv[1:], PACK)


if __name__ == "__main__":
    sys.exit(main())
