"""A custom node pack for the tests' ComfyUI: its SAM 3 and BiRefNet classes load small checkpoints.

ComfyUI's own loader nodes then read the files that `harness.segmentation_models` writes. One of its nodes gives the
small model of a family, its weights times a factor, which no file can hold: ComfyUI knows many families by the sizes of
real ones. Another gives
the empty latent of one picture without sound, which no node of ComfyUI does for networks that take both. The last lets
trainings find a card of so much memory, until it is told 0.
"""

import sys

from . import named_files, networks


async def comfy_entrypoint():
    """Called by ComfyUI once; the process is a test's and keeps the small sizes until it ends."""
    from comfy_api.latest import ComfyExtension, io

    for owner, name, value in (*networks.replacements(), *named_files.replacements()):
        setattr(owner, name, value)

    class SmallFamily(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            outputs = [io.Model.Output("model"), io.Clip.Output("clip"), io.Vae.Output("vae")]
            inputs = [io.String.Input("family"), io.Float.Input("scale", default=1.0, optional=True)]
            return io.Schema(node_id="SmallFamily", inputs=inputs, outputs=outputs)

        @classmethod
        def execute(cls, family, scale=1.0):
            network, encoder = named_files.small_of(family)
            import torch

            from harness.vaes import small_vae

            model = network()
            with torch.no_grad():
                for parameter in model.model.diffusion_model.parameters() if scale != 1 else ():
                    parameter.mul_(scale)
            return io.NodeOutput(model, encoder.made(), small_vae(family))

    class PictureWithoutSound(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            inputs = [io.Model.Input("model"), io.Int.Input("side")]
            return io.Schema(node_id="PictureWithoutSound", inputs=inputs, outputs=[io.Latent.Output()])

        @classmethod
        def execute(cls, model, side):
            import torch
            from comfy.nested_tensor import NestedTensor

            network, stride = model.model.diffusion_model, model.model.latent_format.spacial_downscale_ratio
            picture = torch.zeros(1, network.latents_dim, 1, side // stride, side // stride)
            sound = torch.zeros(1, network.audio_latents_dim, 2, 0)
            return io.NodeOutput({"samples": NestedTensor([picture, sound])})

    class CardOf(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            inputs = [io.Model.Input("model"), io.Int.Input("mebibytes", min=0)]
            return io.Schema(node_id="CardOf", inputs=inputs, outputs=[io.Model.Output()], not_idempotent=True)

        @classmethod
        def fingerprint_inputs(cls, **inputs):
            return float("nan")

        @classmethod
        def execute(cls, model, mebibytes):
            plan = next(module for name, module in sys.modules.items() if name.endswith("masklora.host.memory.plan"))
            plan.card_memory = lambda device: mebibytes * 2**20
            return io.NodeOutput(model)

    class SmallModels(ComfyExtension):
        async def get_node_list(self):
            return [SmallFamily, PictureWithoutSound, CardOf]

    return SmallModels()
