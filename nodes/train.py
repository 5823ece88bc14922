"""MLT_TrainLoRA: the loop as a node."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import folder_paths
from comfy.model_management import InterruptProcessingException
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..masklora.experts import steps_of
from ..masklora.findings import Finding, counted, note, warning
from ..masklora.host.exporting import (
    TRAIN,
    LoraTensors,
    apply_all,
    apply_lora,
    export_once,
    export_word,
    given_state,
)
from ..masklora.host.outputs import lora_path, runs_folder
from ..masklora.host.page.telling import tell
from ..masklora.host.page.train_hooks import NodeHooks
from ..masklora.host.training import Request, train_lora
from ..masklora.peers import here
from ..masklora.runs.history import stopped_runs
from ..masklora.runs.own_files import Written
from ..masklora.runs.retention import make_room
from ..masklora.runs.told import failure_told, read_told
from ..masklora.settings import BY_GOAL, AdapterSettings, ExportSettings, LossSettings, OptimizerSettings, TrainSettings
from ..masklora.training.metrics import SUMMARISED
from .types import (
    MLT_ADAPTER,
    MLT_CACHE,
    MLT_LOSS,
    MLT_OPTIMIZER,
    MLT_SAMPLES,
    MLT_TEXT_ENCODER,
    NO_FILE,
    TRAIN_CATEGORY,
    advanced,
    choice,
    drop_down,
    number,
    seed,
    switch,
    text,
)

_D = TrainSettings()


class TrainLoRA(io.ComfyNode):
    """Train a LoRA with a masked loss on the MODEL that ComfyUI holds."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's inputs and outputs."""
        return io.Schema(
            node_id="MLT_TrainLoRA",
            display_name="Train Masked LoRA",
            category=TRAIN_CATEGORY,
            description=(
                "Trains a LoRA on the masked part of each picture. The queue is occupied until it ends; cancel "
                "leaves a checkpoint, and queueing the same graph again goes on from there."
            ),
            is_output_node=True,
            inputs=[
                *_sockets(),
                *_widgets(),
                *advanced([*_advanced(), _samples(), *_existing(), *_second(), _text_encoder()]),
            ],
            outputs=[
                io.Custom("LORA_MODEL").Output(
                    "lora", tooltip="The LoRA's tensors, for Export Masked LoRA or core's Save LoRA."
                ),
                io.Model.Output("model_with_lora", tooltip="The MODEL with the LoRA applied at strength 1."),
                io.Custom("LOSS_MAP").Output("loss_map", tooltip="Loss of every step, for core's Plot Loss Graph."),
                io.Int.Output("steps_done", tooltip="Finished optimizer steps, 1 or more."),
                io.String.Output(
                    "path",
                    tooltip="Absolute path of the LoRA file that was written; of two, that for high noise.",
                ),
                io.Model.Output(
                    "model_low_with_lora", tooltip="model_low with its own LoRA at strength 1, where two were trained."
                ),
                io.Clip.Output(
                    "clip_with_lora",
                    tooltip="The CLIP of Train Text Encoder with its LoRA at strength 1 and its new word.",
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def fingerprint_inputs(cls, name="", **_values):
        """Changes when a run was stopped, to go on, and when a file that was given out is gone or another's."""
        name = name if isinstance(name, str) else ""
        return [*stopped_runs(runs_folder(), name), given_state(TRAIN, name)]

    @classmethod
    def execute(cls, model, cache, model_low=None, **values) -> io.NodeOutput:
        """Train, resume or load; then write the file once."""
        sockets = {k: values.pop(k, None) for k in ("loss", "adapter", "optimizer", "samples", "text_encoder")}
        rate = values.pop("learning_rate")
        assistant = values.pop("assistant_lora", NO_FILE)
        values["assistant_lora"] = "" if assistant == NO_FILE else assistant
        settings = TrainSettings(**values)
        destination = lora_path(settings.name)
        adapter = sockets["adapter"] or AdapterSettings()
        optimizer = sockets["optimizer"] or OptimizerSettings()
        if rate != 0:
            optimizer = dataclasses.replace(optimizer, learning_rate=rate)
        told: list[Finding] = []
        request = Request(
            model=model,
            cache=cache,
            loss=sockets["loss"] or LossSettings(preset=BY_GOAL),
            adapter=adapter,
            optimizer=optimizer,
            train=settings,
            start_from=_lora_file(adapter.start_from),
            assistant=_lora_file(settings.assistant_lora),
            samples=sockets["samples"],
            destination=destination,
            model_low=model_low,
            texts=sockets["text_encoder"],
        )
        hooks = NodeHooks(settings.steps, node_id=cls.hidden.unique_id, graph=_graph(cls.hidden))
        with hooks:
            trained = train_lora(request, runs=runs_folder(), hooks=hooks, report=lambda one: _tell(hooks, told, one))
            if not trained.result.steps:
                # A file would teach nothing, and core's Plot Loss Graph fails on no numbers.
                hooks.on_message("Stopped before the first step: there is no LoRA. Queue the graph to begin.")
                raise InterruptProcessingException
            lora = LoraTensors(trained)
            result = trained.result
            if lora.low is not None and not steps_of(1, result.steps, settings.switch_experts_every):
                told.append(warning("Stopped before the first step of model_low: its file changes nothing yet."))
            # Of several processes the first one writes, and keeps what is written in order.
            first, word, written, room = here().first, None, [], []
            if first:
                with failure_told(result.folder):
                    word = export_word(lora, (TRAIN, destination))
                    written = export_once(lora, destination, ExportSettings())
                hooks.on_written(read_told(result.folder))
        if first:
            room = make_room(runs_folder(), keep=settings.keep_finished_runs, spare=result.folder)
        files = [*_word(word), *(line for one in written for line in _file(one))]
        lines = [*told, *hooks.messages, *room, _summary(trained), f"Run folder: {result.folder}", *files]
        return io.NodeOutput(
            lora,
            apply_lora(model, lora),
            {"loss": list(result.losses)},
            result.steps,
            str(written[0].path) if written else "",
            ExecutionBlocker(None) if lora.low is None else apply_lora(model_low, lora.low),
            (sockets["text_encoder"] and apply_all(sockets["text_encoder"].clip, lora)) or ExecutionBlocker(None),
            ui=tell(lines),
        )


def _tell(hooks: NodeHooks, told: list[Finding], finding: Finding) -> None:
    told.append(finding)
    hooks.on_plan(finding.text)


def _graph(hidden) -> dict:
    """What the page needs to open this run's graph again."""
    page = hidden.extra_pnginfo if isinstance(hidden.extra_pnginfo, dict) else {}
    # ComfyUI notes in the prompt what has changed.
    nodes = (hidden.prompt or {}).items()
    prompt = {name: {k: v for k, v in node.items() if k != "is_changed"} for name, node in nodes}
    return {"prompt": prompt, "workflow": page.get("workflow"), "node": hidden.unique_id}


def _file(written: Written) -> list[Finding]:
    """Which file is this run's LoRA: the last line is that file and nothing else."""
    line = note(f"{'Written:' if written.new else 'It is already there:'} {written.path}")
    if written.taken is None:
        return [line]
    return [warning(f"name: {written.taken} is another file and stays; this LoRA is {written.path.name}."), line]


def _word(written: Written | None) -> list[Finding]:
    """Which file the new word is in, and how prompts call it."""
    if written is None:
        return []
    line = note(f"New word: prompts call it embedding:{written.path.stem}. Its file: {written.path}")
    if written.taken is None:
        return [line]
    return [warning(f"new_word: {written.taken} is another file and stays."), line]


def _lora_file(name: str) -> Path | None:
    return Path(folder_paths.get_full_path_or_raise("loras", name)) if name else None


def _summary(trained) -> str:
    result, facts = trained.result, trained.result.summary
    if result.loaded:
        how = "Loaded the finished run."
    elif result.resumed_from:
        how = f"Trained {counted(result.steps, '[step|steps]')}, resumed from step {result.resumed_from}."
    else:
        how = f"Trained {counted(result.steps, '[step|steps]')}."
    experts = facts.get("experts") or {"": facts}
    numbers = "; ".join(" ".join(filter(None, (e.replace("_", " "), _numbers(own)))) for e, own in experts.items())
    lost = facts.get("zero_weight_samples")
    shown = "sample was" if lost == 1 else "samples were"
    empty = f"{lost:g} {shown} shown without any weight and taught nothing." if lost else ""
    return " ".join(filter(None, (how, numbers and f"In the last steps: {numbers}.", empty)))


def _numbers(facts) -> str:
    return ", ".join(f"{name} {facts[name]:.4g}" for name in (*SUMMARISED, "leak") if facts.get(name) is not None)


def _sockets() -> list:
    return [
        io.Model.Input("model", tooltip="The model to train on; LoRAs and patches on it stay in force. Not changed."),
        MLT_CACHE.Input("cache", tooltip="From Cache Dataset: latents, masks and captions made with this model's VAE."),
        MLT_LOSS.Input("loss", optional=True, tooltip="From Masked Loss. Without it: masked, normalised by area."),
        MLT_ADAPTER.Input("adapter", optional=True, tooltip="From Adapter. Without it: LoRA, the family's own rank."),
        MLT_OPTIMIZER.Input("optimizer", optional=True, tooltip="From Optimizer. Without it: AdamW, constant rate."),
    ]


def _samples():
    # Last, because saved workflows know the others by their place.
    return MLT_SAMPLES.Input("samples", tooltip="From Sample Pictures: prompts that are drawn during the training.")


def _existing() -> list:
    # After the socket, for the same reason.
    return [
        choice(
            _D,
            "if_a_run_exists",
            "Go on: load it if it is finished, resume it, or make it longer. Start anew: train from step 0 at "
            "every queue; the run that is there stays.",
        ),
        number(
            _D,
            "keep_finished_runs",
            "How many finished runs keep the optimizer's state, newest first, 0 to 1000. Of older ones "
            "weights, curves and pictures stay.",
        ),
        switch(
            _D,
            "unknown_model",
            "Train a MODEL of a family that this pack does not know, with targets and defaults that no one has "
            "tried for it.",
        ),
        drop_down(
            "assistant_lora",
            [NO_FILE, *folder_paths.get_filename_list("loras")],
            NO_FILE,
            "Training adapter of a distilled model: the training runs on top of it; sample pictures, "
            "model_with_lora and the file are without it.",
        ),
        number(
            _D,
            "swap_blocks",
            "How many of the model's blocks wait in main memory until they are needed, 0 to 1000: less memory on the "
            "card, same LoRA. -1: as many as needed. Needs checkpointing per block.",
        ),
        switch(
            _D,
            "compile",
            "Compile the model's blocks for each size of picture: a slower first step, then faster ones. Needs "
            "checkpointing per block; what cannot be compiled runs as it is, and the node says why.",
        ),
        choice(
            _D,
            "over_memory",
            "Where the counted memory is more than the card has. Refuse: end before the first step and tell what to "
            "change. Go on: train all the same.",
        ),
        switch(
            _D,
            "quantized_compute",
            "Multiply the layers of an fp8 or int8 model in these 8 bits, as ComfyUI does when it draws, for speed on "
            "cards that can. Gradients are rounded. Where no layer can be, it ends before the first step.",
        ),
        number(
            _D,
            "keep_every",
            "Steps between checkpoints that stay beside keep_last, 0 (none) to 1000000: to compare, sample or export "
            "them later. Each takes about twice the room of the LoRA file.",
        ),
    ]


def _second() -> list:
    return [
        io.Model.Input(
            "model_low",
            tooltip="The low noise model of two, as of Wan 2.2 14B; model is then the high noise one. Both are trained "
            "in one run, by turns, and two files are written.",
        ),
        number(
            _D,
            "expert_switch",
            "Noise level from which up model is trained, and below which model_low, 0 to 0.999. 0: as the models draw "
            "(Wan 2.2 14B: 0.875 from text, 0.9 from a picture).",
            step=0.005,
        ),
        number(
            _D,
            "switch_experts_every",
            "With model_low: steps until the other model's turn, 1 to 1000000. The weights of the one that waits are "
            "in main memory; few steps mean much moving.",
        ),
        number(
            _D,
            "leak_every",
            "Steps between measures of how much of the pictures' backgrounds was learned, 0 (only at the end) to "
            "1000000, -1: never. Each takes about as long as 15 steps of one picture, and keeps a checkpoint.",
        ),
    ]


def _text_encoder():
    return MLT_TEXT_ENCODER.Input(
        "text_encoder", tooltip="From Train Text Encoder: CLIP is trained too. Without it: captions as they are cached."
    )


def _widgets() -> list:
    return [
        number(
            _D, "steps", "Optimizer steps, 0 to 1000000. 0: the number usual for the model's family (1500 to 2000)."
        ),
        number(
            OptimizerSettings,
            "learning_rate",
            "0 to 1. 0: the optimizer node's, else the one usual for the family (1e-4).",
            max=1.0,
            step=1e-6,
            round=False,
        ),
        text(_D, "name", "File name of the LoRA under output/loras, without suffix."),
    ]


def _advanced() -> list:
    return [
        number(_D, "batch_size", "Pictures a step, 1 to 256."),
        seed(_D, "Decides start weights, order, noise and captions, 0 to 4294967295. Same seed: same LoRA."),
        number(_D, "epochs", "Passes over the data set, 0 to 100000. Above 0 it replaces steps."),
        number(_D, "gradient_accumulation", "Batches a step, 1 to 1024: a larger batch without its memory."),
        choice(
            _D,
            "checkpointing",
            "What is recomputed in backward. Per block: little memory. Per block, offloaded: less still, inputs of "
            "blocks wait in main memory; same LoRA. Off: about a quarter faster.",
        ),
        number(
            _D,
            "guidance",
            "Guidance told to guidance-distilled models while training, 0 to 100. -1: as usual for the model "
            "(FLUX.1 dev 1, Chroma 0).",
            step=0.1,
        ),
        number(_D, "save_every", "Steps between checkpoints, 0 (only at the end or on cancel) to 1000000."),
        number(_D, "keep_last", "How many checkpoints stay, 1 to 1000; the best by held-out loss stays besides."),
        number(_D, "validate_every", "Steps between held-out losses, 0 (never) to 1000000."),
        number(_D, "validation_share", "Share of the pictures held out for it, 0 to 0.9."),
        number(_D, "regularisation_weight", "Factor on the loss of regularisation data sets, 0 to 100.", step=0.05),
    ]
