"""A custom node pack for the tests' ComfyUI: its SAM 3 and BiRefNet classes load small checkpoints.

ComfyUI's own loader nodes then read the files that `harness.segmentation_models` writes. Its one node gives the small
model of a family, which no file can hold: ComfyUI knows many families by the sizes of real ones.
"""

import os
import sys

from .networks import replacements

# Where this folder was copied from.
TESTS = "MASKLORA_TESTS"


async def comfy_entrypoint():
    """Called by ComfyUI once; the process is a test's and keeps the small sizes until it ends."""
    from comfy_api.latest import ComfyExtension, io

    for owner, name, value in replacements():
        setattr(owner, name, value)

    class SmallFamily(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            outputs = [io.Model.Output("model"), io.Clip.Output("clip"), io.Vae.Output("vae")]
            return io.Schema(node_id="SmallFamily", inputs=[io.String.Input("family")], outputs=outputs)

        @classmethod
        def execute(cls, family):
            sys.path.append(os.environ[TESTS])
            from harness.models import small_model
            from harness.small import small_models
            from harness.vaes import small_vae

            model = small_model(family, page=True)
            return io.NodeOutput(model, small_models()[family].encoder.made(), small_vae(family))

    class SmallModels(ComfyExtension):
        async def get_node_list(self):
            return [SmallFamily]

    return SmallModels()
