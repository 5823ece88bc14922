"""Nodes that hold settings of a training: the adapter and the optimizer."""

import folder_paths
from comfy_api.latest import io

from ..masklora.adapters.by_layer import check_parts
from ..masklora.adapters.targets import RANKS
from ..masklora.errors import MaskLoraError
from ..masklora.host.families import families
from ..masklora.settings import AdapterSettings, OptimizerSettings
from .types import (
    MLT_ADAPTER,
    MLT_OPTIMIZER,
    NO_FILE,
    TRAIN_CATEGORY,
    advanced,
    choice,
    drop_down,
    number,
    numbers,
    switch,
    text,
)

ADAPTER, OPTIM = AdapterSettings(), OptimizerSettings()


class Adapter(io.ComfyNode):
    """What is trained."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return io.Schema(
            node_id="MLT_Adapter",
            display_name="Adapter (masked LoRA)",
            category=TRAIN_CATEGORY,
            description="What kind of LoRA is trained on which layers. Only needed to change the defaults.",
            inputs=[*cls._visible(), *advanced(cls._advanced())],
            outputs=[MLT_ADAPTER.Output("adapter", tooltip="For the training node.")],
        )

    @staticmethod
    def _visible():
        targets = dict.fromkeys(name for family in families() for name in family.targets)
        files = [NO_FILE, *folder_paths.get_filename_list("loras")]
        return [
            choice(
                ADAPTER,
                "algorithm",
                "lora; rslora: scaled by the root of the rank, for high ranks; dora: learns the length "
                "of the weights apart, slower; tlora: fewer ranks learn at high noise; lokr: small files, reaches all "
                "of a weight; loha: more from the same rank. The help says which for what, with its learning rate.",
            ),
            number(ADAPTER, "rank", "Size of the LoRA, 1 to 1024; 0 = default of the model's family.", step=1),
            number(
                ADAPTER,
                "alpha",
                "Scale numerator: the change is multiplied by alpha / "
                "rank. 0 = default of the model's family, to 4096.",
                step=1.0,
            ),
            drop_down("targets", targets, ADAPTER.targets, "Which layers are trained."),
            number(ADAPTER, "dropout", "Share of the LoRA's input that is dropped, 0 to 0.9."),
            switch(ADAPTER, "convolutions", "Also train convolutions that the targets match. U-Nets only."),
            drop_down("start_from", files, NO_FILE, "LoRA file in models/loras to continue from."),
        ]

    @staticmethod
    def _advanced():
        return [
            choice(ADAPTER, "init", "How the first factor starts; the second is zero, so the model starts unchanged."),
            text(ADAPTER, "include", "Regular expression; layers whose path it finds are added to the targets."),
            text(ADAPTER, "exclude", "Regular expression; layers whose path it finds are taken out."),
            number(
                ADAPTER,
                "least_rank",
                "Of tlora: how many ranks learn at the highest noise, 1 to the rank; 0 = half of the rank.",
                step=1,
            ),
            text(
                ADAPTER,
                "rank_by_layer",
                "Ranks of some layers, as blocks 10-19: 32, attn: 16, others 8. The first part that names a layer "
                "holds for it; empty = rank everywhere.",
            ),
            text(
                ADAPTER,
                "full_layers",
                "Regular expression; of layers whose path it finds the whole weight is learned, and the bias. Each "
                "takes as much memory as in a full training.",
            ),
            number(
                ADAPTER,
                "lokr_factor",
                "Of a lokr: sides of its small factor, to 1024. The higher, the smaller the file, as far as 0 = both "
                "factors as alike as they can be.",
                step=1,
            ),
        ]

    @classmethod
    def validate_inputs(cls, rank_by_layer=None):
        """Whether each part of the ranks is one: told when the graph is queued, before anything is loaded."""
        try:
            check_parts(rank_by_layer or "", RANKS)
        except MaskLoraError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, start_from, **widgets):
        """`start_from` stays the name in models/loras: the same graph works on another machine."""
        check_parts(widgets.get("rank_by_layer", ""), RANKS)
        name = "" if start_from == NO_FILE else start_from
        return io.NodeOutput(AdapterSettings(start_from=name, **widgets))


class Optimizer(io.ComfyNode):
    """How it is trained."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return io.Schema(
            node_id="MLT_Optimizer",
            display_name="Optimizer (masked LoRA)",
            category=TRAIN_CATEGORY,
            description="Optimizer, learning rate and schedule. Only needed to change the defaults.",
            inputs=[*cls._visible(), *advanced(cls._advanced())],
            outputs=[MLT_OPTIMIZER.Output("optimizer_settings", tooltip="For the training node.")],
        )

    @staticmethod
    def _visible():
        return [
            choice(
                OPTIM,
                "optimizer",
                "adamw and adafactor are there; adamw8bit needs the package bitsandbytes, lion lion-pytorch, prodigy "
                "prodigyopt, schedule-free adamw schedulefree; came, muon, soap and adopt pytorch-optimizer. prodigy "
                "finds the learning rate itself: give it 1.",
            ),
            number(OPTIM, "learning_rate", "Step size, above 0 to 10; 0 = default of the model's family.", step=1e-6),
            choice(OPTIM, "schedule", "How the learning rate changes over the run."),
            number(OPTIM, "warmup_steps", "Steps over which the learning rate rises from 0.", step=1),
            number(OPTIM, "weight_decay", "Pull of the weights towards 0, 0 to 10.", step=0.001),
            number(OPTIM, "clip_norm", "Largest norm of the gradient, 0 (no limit) to 1000.", step=0.1),
            number(
                OPTIM,
                "ema_decay",
                "Average the weights over steps with this decay, 0 (off) to 0.99999; the average is saved.",
                step=0.0001,
            ),
            number(
                OPTIM,
                "lora_plus_ratio",
                "Learning rate of the second factor over the first's, 0.01 to 1000; LoRA+ uses 16.",
                step=0.5,
            ),
        ]

    @staticmethod
    def _advanced():
        return [
            *numbers(
                OPTIM,
                "betas",
                ("Memory of the gradient, 0 to 0.99999.", "Memory of its square, 0 to 0.99999."),
                step=0.001,
            ),
            number(OPTIM, "eps", "Kept from dividing by zero, 0 to 1.", step=1e-9),
            number(OPTIM, "restarts", "Returns to the peak of cosine with restarts, 1 to 1000.", step=1),
            number(OPTIM, "power", "Exponent of the polynomial schedule, 0.01 to 100."),
            number(OPTIM, "min_lr_ratio", "Learning rate at the end over that at the start, 0 to 1."),
        ]

    @classmethod
    def execute(cls, beta1=OPTIM.betas[0], beta2=OPTIM.betas[1], **widgets):
        """The two betas are one field."""
        return io.NodeOutput(OptimizerSettings(betas=(beta1, beta2), **widgets))
