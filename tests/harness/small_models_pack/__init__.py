"""A custom node pack for the tests' ComfyUI: its SAM 3 and BiRefNet classes load small checkpoints.

It adds no node. ComfyUI's own loader nodes then read the files that `harness.segmentation_models` writes.
"""

from .networks import replacements


async def comfy_entrypoint():
    """Called by ComfyUI once; the process is a test's and keeps the small sizes until it ends."""
    from comfy_api.latest import ComfyExtension

    for owner, name, value in replacements():
        setattr(owner, name, value)

    class SmallModels(ComfyExtension):
        async def get_node_list(self):
            return []

    return SmallModels()
