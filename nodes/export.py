"""MLT_ExportLoRA: LoRA files in other formats, dtypes and places."""

from __future__ import annotations

from comfy_api.latest import io

from ..masklora.adapters.by_layer import check_parts
from ..masklora.adapters.reshaping import STRENGTHS
from ..masklora.errors import MaskLoraError
from ..masklora.experts import files_of
from ..masklora.findings import warning
from ..masklora.host.exporting import EXPORT, export_lora, given_state
from ..masklora.host.outputs import lora_path
from ..masklora.host.page.telling import tell
from ..masklora.host.reshaping import reshaped
from ..masklora.settings import ExportSettings
from .types import TRAIN_CATEGORY, advanced, choice, number, text

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
                        number(
                            _D,
                            "new_rank",
                            "Largest rank of a layer in the file, by singular values; 0 = as trained, to 1024.",
                            step=1,
                        ),
                        number(
                            _D,
                            "keep_energy",
                            "Share of a layer's change, by squared singular values, for which each gets the smallest "
                            "rank; 0 = off, to 1. 0.99 keeps nearly all.",
                        ),
                        text(
                            _D,
                            "block_strengths",
                            "Strengths baked into the file, as blocks 0-9: 0.5, attn: 1.2, others 1. The first part "
                            "that names a layer holds for it; empty = 1 everywhere.",
                        ),
                    ]
                ),
            ],
            outputs=[io.String.Output("path", tooltip="Absolute path of the file; of two models that for high noise.")],
        )

    @classmethod
    def fingerprint_inputs(cls, name="", **_values):
        """Changes when the file that was written is gone or another's."""
        return given_state(EXPORT, name if isinstance(name, str) else "")

    @classmethod
    def validate_inputs(cls, name=None, block_strengths=None):
        """Whether the name and the strengths can be: told when the graph is queued, not after its training."""
        try:
            if isinstance(name, str):
                lora_path(name)
            if isinstance(block_strengths, str):
                check_parts(block_strengths, STRENGTHS)
        except MaskLoraError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, lora, name, **values) -> io.NodeOutput:
        """Write the file."""
        wanted, settings = lora_path(name), ExportSettings(**values)
        lora, told = reshaped(lora, settings)
        paths = export_lora(lora, wanted, settings)
        asked = [file for _, file in files_of(lora, wanted)]
        taken = [
            warning(f"name: {file.name} is another file and stays.")
            for file, path in zip(asked, paths, strict=True)
            if path != file
        ]
        return io.NodeOutput(str(paths[0]), ui=tell([*taken, *told, *(f"Written: {path}" for path in paths)]))
