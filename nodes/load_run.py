"""MLT_LoadRun: the LoRA of a run's checkpoint, without training."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..masklora.errors import MaskLoraError
from ..masklora.findings import counted, warning
from ..masklora.host.exporting import (
    LOAD,
    apply_all,
    apply_lora,
    export_word,
    find_chosen,
    load_run,
    loaded_files,
    loaded_state,
)
from ..masklora.host.outputs import runs_folder
from ..masklora.host.page.telling import tell
from ..masklora.runs.history import began, run_folders
from .types import NO_FILE, TRAIN_CATEGORY, drop_down


def run_drop_down():
    """A drop-down of all runs."""
    runs = sorted(run_folders(runs_folder()), key=began, reverse=True)
    return drop_down(
        "run",
        [folder.name for folder in runs] or [NO_FILE],
        runs[0].name if runs else NO_FILE,
        "Of all runs, the newest first. In API form the name of a LoRA will do: its newest run.",
    )


def run_is_there(run):
    """True, or why there is no such run: one that is newer than the page's list is one too."""
    try:
        if isinstance(run, str):
            find_chosen(run)
    except MaskLoraError as error:
        return str(error)
    return True


class LoadRun(io.ComfyNode):
    """What a run had learned at one of its checkpoints."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's inputs and outputs."""
        return io.Schema(
            node_id="MLT_LoadRun",
            display_name="Load Run (masked LoRA)",
            category=TRAIN_CATEGORY,
            description="Loads the LoRA of a training that was done before, at any step that was kept.",
            search_aliases=["checkpoint", "use this lora", "compare"],
            inputs=[
                run_drop_down(),
                io.Int.Input(
                    "step", default=0, min=0, max=10**9, tooltip="Of a checkpoint that was kept; 0: the newest."
                ),
                io.Model.Input("model", optional=True, tooltip="What the LoRA is to be applied to."),
                io.Model.Input(
                    "model_low",
                    optional=True,
                    tooltip="Of a run that trained two models, the low noise one; model is the high noise one.",
                ),
                io.Clip.Input("clip", optional=True, tooltip="Of a run that trained text encoders: theirs."),
            ],
            outputs=[
                io.Custom("LORA_MODEL").Output("lora", tooltip="The LoRA's tensors, for Export Masked LoRA."),
                io.Model.Output("model_with_lora", tooltip="The MODEL with the LoRA applied at strength 1."),
                io.String.Output("path", tooltip="Absolute path of the LoRA's file, written if it was not there."),
                io.Model.Output(
                    "model_low_with_lora", tooltip="model_low with the second LoRA at strength 1, of a run of two."
                ),
                io.Clip.Output(
                    "clip_with_lora", tooltip="The CLIP with the LoRA and the new word, of a run that trained them."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, run=None):
        """Whether there is such a run."""
        return run_is_there(run)

    @classmethod
    def fingerprint_inputs(cls, run="", **_values):
        """Changes with the run's checkpoints and its file."""
        return loaded_state(run if isinstance(run, str) else "")

    @classmethod
    def execute(cls, run, step, model=None, model_low=None, clip=None) -> io.NodeOutput:
        """Load it."""
        lora = load_run(run, step)
        word = export_word(lora, (LOAD, lora.kept.folder))
        written = loaded_files(lora)
        taken = [warning(f"run: {one.taken} is another file and stays.") for one in written if one.taken]
        if model_low is not None and lora.low is None:
            taken.append(warning("model_low: this run trained one model, whose LoRA is for model. Disconnect it."))
        clip_with_lora = apply_all(clip, lora)
        if clip is not None and clip_with_lora is None:
            taken.append(warning("clip: this run trained no text encoder. Disconnect it."))
        steps = counted(lora.kept.record.steps, "[step|steps]")
        told = [f"New word: prompts call it embedding:{word.path.stem}."] if word else []
        told += [f"{lora.kept.folder.name} after {steps}.", *(f"The file: {one.path}" for one in written)]
        with_lora = ExecutionBlocker(None) if model is None else apply_lora(model, lora)
        low = model_low is not None and lora.low is not None
        return io.NodeOutput(
            lora,
            with_lora,
            str(written[0].path),
            apply_lora(model_low, lora.low) if low else ExecutionBlocker(None),
            clip_with_lora or ExecutionBlocker(None),
            ui=tell([*taken, *told]),
        )
