"""What the pack adds to ComfyUI's start: `python dev.py run benchmarks/start_up.py`.

Prints a JSON line: CPU seconds of importing the pack and listing its nodes where ComfyUI has been imported, those of
ComfyUI's own import (a measure of the machine at this moment), and the packages that only the pack brought in.
"""

import asyncio
import importlib.util
import json
import sys
import time
from pathlib import Path

NAME = "masked_lora_measured"


async def load():
    """Import the pack under a new name as ComfyUI does, and ask it for its nodes."""
    root = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location(NAME, root / "__init__.py", submodule_search_locations=[str(root)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    found = await (await module.comfy_entrypoint()).get_node_list()
    for node in found:
        node.GET_SCHEMA()
    return found


def main():
    """Measure and print."""
    start = time.process_time()
    # ComfyUI imports its nodes and its server before custom nodes.
    import server  # noqa: F401

    import nodes as comfyui_nodes

    comfyui = time.process_time() - start
    assert comfyui_nodes.NODE_CLASS_MAPPINGS
    before, start = set(sys.modules), time.process_time()
    found = asyncio.run(load())
    seconds = time.process_time() - start
    packages = sorted({name.split(".")[0] for name in set(sys.modules) - before} - {NAME})
    facts = {"seconds": seconds, "comfyui": comfyui, "nodes": len(found), "packages": packages}
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
