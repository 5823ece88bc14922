"""MLT_ExportLoRA: LoRA files in other formats, dtypes and places."""

from __future__ import annotations

from comfy_api.latest import io

from ..masklora.errors import MaskLoraError
from ..masklora.findings import warning
from ..masklora.host.exporting import EXPORT, export_lora, given_state
from ..masklora.host.outputs import lora_path
from ..masklora.host.page.telling import tell
from ..masklora.settings import ExportSettings
from .types import TRAIN_CATEGORY, advanced, choice, text

_D = ExportSettings()


class ExportLoRA(io.ComfyNode):
    """Write a LoRA file that ComfyUI and other tools load as it is."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's inputs and outputs."""
        return io.Schema(
            node_id="MLT_ExportLoRA",
            display_name="Export Masked LoRA",
            category=TRAIN_CATEGORY,
            description="Writes the LoRA under output/loras; never replaces a file that is there.",
            is_output_node=True,
            inputs=[
                io.Custom("LORA_MODEL").Input("lora", tooltip="From Train Masked LoRA (or core's Train LoRA)."),
                io.String.Input(
                    "name",
                    default="masked-lora",
                    tooltip="File name under output/loras, without suffix; may hold folders.",
                ),
                choice(
                    _D,
                    "format",
                    "comfyui: kohya's keys, read by ComfyUI, kohya, A1111 and Forge. diffusers: PEFT's keys, for "
                    "families whose files diffusers loads. docs/families.md lists which of both diffusers reads.",
                ),
                choice(_D, "dtype", "Of the numbers in the file; float16 is usual."),
                *advanced(
                    [
                        text(_D, "title", "For people; empty: the name."),
                        text(_D, "trigger", "Word that asks for the subject; kept as metadata."),
                    ]
                ),
            ],
            outputs=[io.String.Output("path", tooltip="Absolute path of the file.")],
        )

    @classmethod
    def fingerprint_inputs(cls, name="", **_values):
        """Changes when the file that was written is gone or another's."""
        return given_state(EXPORT, name if isinstance(name, str) else "")

    @classmethod
    def validate_inputs(cls, name=None):
        """Whether the name can be written: told when the graph is queued, not after its training."""
        try:
            if isinstance(name, str):
                lora_path(name)
        except MaskLoraError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, lora, name, **values) -> io.NodeOutput:
        """Write the file."""
        wanted = lora_path(name)
        path = export_lora(lora, wanted, ExportSettings(**values))
        taken = [] if path == wanted else [warning(f"name: {wanted.name} is another file and stays.")]
        return io.NodeOutput(str(path), ui=tell([*taken, f"Wrote {path}"]))
