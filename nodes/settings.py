"""Nodes that hold settings of a training: the masked loss, the adapter, the optimizer."""

import dataclasses

import folder_paths
from comfy_api.latest import io

from ..masklora.archs import FAMILIES
from ..masklora.config import (
    ALGORITHMS,
    ELEMENTWISE,
    FLOOR_MODES,
    MASK_TYPES,
    NORMALIZE,
    OPTIMIZERS,
    PROBABILITY_SCOPES,
    REDUCTIONS,
    SCHEDULES,
    TIMESTEP_SAMPLING,
    TIMESTEP_WEIGHTS,
    AdapterSettings,
    LossSettings,
    OptimizerSettings,
    check_loss,
)
from ..masklora.presets import PRESET_NAMES, apply_preset, overruled_options, preset_help
from .types import MLT_ADAPTER, MLT_LOSS, MLT_OPTIMIZER, TRAIN_CATEGORY, advanced, choice

INITS = ("default", "gaussian")
NO_FILE = "none"
LOSS, ADAPTER, OPTIM = LossSettings(), AdapterSettings(), OptimizerSettings()


def number(settings, name, low, high, tooltip, *, step=0.01):
    """A widget for a float or int field, default from the dataclass, range told by the tooltip."""
    default = getattr(settings, name)
    kind = io.Int if isinstance(default, int) else io.Float
    return kind.Input(name, default=default, min=low, max=high, step=step, tooltip=tooltip)


def switch(settings, name, tooltip):
    """A widget for a bool field."""
    return io.Boolean.Input(name, default=getattr(settings, name), tooltip=tooltip)


class MaskedLoss(io.ComfyNode):
    """The masked objective."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return io.Schema(
            node_id="MLT_MaskedLoss",
            display_name="Masked Loss (masked LoRA)",
            category=TRAIN_CATEGORY,
            description="How the mask weighs the loss. Only needed to change the defaults.",
            inputs=[*cls._visible(), *advanced([*cls._mask_options(), *cls._time_options()])],
            outputs=[
                MLT_LOSS.Output("loss", tooltip="For the training node."),
                io.String.Output("report", tooltip="What the preset does and which widgets it overrules."),
            ],
        )

    @staticmethod
    def _visible():
        return [
            choice(
                "preset",
                PRESET_NAMES,
                LOSS.preset,
                "Ours, or the exact loss of another trainer; the report tells which widgets it overrules. "
                "custom = every widget counts.",
            ),
            choice(
                "normalize",
                NORMALIZE,
                LOSS.normalize,
                "What the masked loss is divided by. area: the mask's size, so that every picture has an "
                "equal "
                "say. none: the whole picture's. batch, batch_mean: the batch's weights.",
            ),
            choice("mask_type", MASK_TYPES, LOSS.mask_type, "soft: grey is a weight. hard: cut at 0.5."),
            number(LOSS, "floor", 0.0, 1.0, "Least weight of an ignored cell, 0 to 1; 0 ignores it fully."),
            number(LOSS, "outside_share", 0.0, 1.0, "Share of the weight, 0 to 1, given to what is ignored."),
            number(
                LOSS, "mask_probability", 0.0, 1.0, "Share of the steps, 0 to 1, in which the mask applies."
            ),
            choice(
                "timestep_sampling",
                TIMESTEP_SAMPLING,
                LOSS.timestep_sampling,
                "How noise levels are drawn; default = as usual for the model's family.",
            ),
            choice(
                "timestep_weight",
                TIMESTEP_WEIGHTS,
                LOSS.timestep_weight,
                "Factor on the loss by noise level. min-snr and debiased are for SD 1.5 and SDXL, the others "
                "for flow models.",
            ),
        ]

    @staticmethod
    def _mask_options():
        return [
            choice("elementwise", ELEMENTWISE, LOSS.elementwise, "Loss of one value; mse is usual."),
            number(LOSS, "elementwise_param", 1e-6, 1000.0, "Its β, δ or c, above 0 to 1000."),
            number(
                LOSS,
                "area_min",
                0.0,
                1.0,
                "normalize area: smaller masks, as share of the picture, 0 to 1, count as this size.",
            ),
            number(
                LOSS, "area_beta", 0.0, 1.0, "normalize area: exponent of the size, 0 (none) to 1 (full)."
            ),
            choice("reduction", REDUCTIONS, LOSS.reduction, "How pixels of the mask become latent cells."),
            switch(LOSS, "reduction_binarize", "Count every cell above 0 fully."),
            choice(
                "mask_probability_scope",
                PROBABILITY_SCOPES,
                LOSS.mask_probability_scope,
                "Draw the mask probability per sample or once per batch.",
            ),
            number(
                LOSS,
                "edge_jitter",
                0.0,
                0.5,
                "Blur the mask by a random radius per step, up to this share of the shorter side, 0 to 0.5.",
                step=0.001,
            ),
            number(
                LOSS, "gamma", 0.01, 10.0, "Exponent on the weights, 0.01 to 10; above 1 thins soft edges."
            ),
            choice(
                "floor_mode",
                FLOOR_MODES,
                LOSS.floor_mode,
                "affine: squeeze the weights into floor to 1. max: raise those below.",
            ),
            number(LOSS, "ceiling", 0.0, 1.0, "Largest weight of a cell, 0 to 1."),
            number(
                LOSS,
                "latent_blur",
                0,
                63,
                "Blur the weights over this odd number of cells, 0 (off) to 63.",
                step=1,
            ),
            number(LOSS, "weight_threshold", 0.0, 1.0, "Cells below this weight, 0 to 1, learn nothing."),
        ]

    @staticmethod
    def _time_options():
        return [
            number(LOSS, "timestep_mean", -10.0, 10.0, "Mean of logit-normal sampling, −10 to 10."),
            number(LOSS, "timestep_std", 0.01, 10.0, "Spread of logit-normal sampling, 0.01 to 10."),
            number(LOSS, "timestep_shift", 0.0, 100.0, "Shift towards noise, 0 (the model's own) to 100."),
            number(LOSS, "timestep_min", 0.0, 1.0, "Least noise level, 0 (clean) to 1 (noise)."),
            number(LOSS, "timestep_max", 0.0, 1.0, "Largest noise level, 0 (clean) to 1 (noise)."),
            number(
                LOSS,
                "snr_gamma",
                0.01,
                1000.0,
                "γ of the min-snr weights, 0.01 to 1000; 5 is usual.",
                step=0.5,
            ),
            number(
                LOSS,
                "noise_offset",
                0.0,
                1.0,
                "Add one random level per channel to the noise, 0 to 1. SD 1.5 and SDXL.",
            ),
            number(
                LOSS,
                "multires_noise",
                0.0,
                0.99,
                "Add coarser noise, each octave times this, 0 to 0.99. SD 1.5 and SDXL.",
            ),
            switch(
                LOSS, "zero_terminal_snr", "Rescale the noise schedule to end in pure noise. v models only."
            ),
        ]

    @classmethod
    def execute(cls, preset, **widgets):
        """The preset decides its options; what it overrules is told."""
        asked = check_loss(dataclasses.replace(LOSS, **widgets))
        loss = check_loss(apply_preset(preset, asked))
        overruled = overruled_options(preset, asked)
        report = preset_help(preset)
        if overruled:
            report += (
                f"\nOverruled by the preset: {', '.join(overruled)}. Choose custom to set them yourself."
            )
        if loss.mask_channel:
            report += f"\nThis trainer reads the {loss.mask_channel} of a mask file: set mask_channel so."
        return io.NodeOutput(loss, report)


class Adapter(io.ComfyNode):
    """What is trained."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        targets = dict.fromkeys(name for family in FAMILIES for name in family.targets)
        files = [NO_FILE, *folder_paths.get_filename_list("loras")]
        return io.Schema(
            node_id="MLT_Adapter",
            display_name="Adapter (masked LoRA)",
            category=TRAIN_CATEGORY,
            description="What kind of LoRA is trained on which layers. Only needed to change the defaults.",
            inputs=[
                choice(
                    "algorithm",
                    ALGORITHMS,
                    ADAPTER.algorithm,
                    "lora; rslora: scaled by the root of the rank, for high ranks; dora: learns the length "
                    "of the weights apart, slower.",
                ),
                number(
                    ADAPTER,
                    "rank",
                    0,
                    1024,
                    "Size of the LoRA, 1 to 1024; 0 = default of the model's family.",
                    step=1,
                ),
                number(
                    ADAPTER,
                    "alpha",
                    0.0,
                    4096.0,
                    "Scale numerator: the change is multiplied by alpha / "
                    "rank. 0 = default of the model's family, to 4096.",
                    step=1.0,
                ),
                choice("targets", targets, ADAPTER.targets, "Which layers are trained."),
                number(ADAPTER, "dropout", 0.0, 0.9, "Share of the LoRA's input that is dropped, 0 to 0.9."),
                switch(
                    ADAPTER, "convolutions", "Also train convolutions that the targets match. U-Nets only."
                ),
                choice("start_from", files, NO_FILE, "LoRA file in models/loras to continue from."),
                *advanced(
                    [
                        choice(
                            "init",
                            INITS,
                            ADAPTER.init,
                            "How the first factor starts; the second is zero, so the model starts unchanged.",
                        ),
                        io.String.Input(
                            "include",
                            default=ADAPTER.include,
                            tooltip="Regular expression; layers whose path it finds are added to the "
                            "targets.",
                        ),
                        io.String.Input(
                            "exclude",
                            default=ADAPTER.exclude,
                            tooltip="Regular expression; layers whose path it finds are taken out.",
                        ),
                    ]
                ),
            ],
            outputs=[MLT_ADAPTER.Output("adapter", tooltip="For the training node.")],
        )

    @classmethod
    def execute(cls, start_from, **widgets):
        """`start_from` stays the name in models/loras: the same graph works on another machine."""
        name = "" if start_from == NO_FILE else start_from
        return io.NodeOutput(AdapterSettings(start_from=name, **widgets))


class Optimizer(io.ComfyNode):
    """How it is trained."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        beta1, beta2 = OPTIM.betas
        return io.Schema(
            node_id="MLT_Optimizer",
            display_name="Optimizer (masked LoRA)",
            category=TRAIN_CATEGORY,
            description="Optimizer, learning rate and schedule. Only needed to change the defaults.",
            inputs=[
                choice(
                    "optimizer",
                    OPTIMIZERS,
                    OPTIM.optimizer,
                    "adamw8bit needs the package bitsandbytes. prodigy finds the learning rate itself: "
                    "give it 1.",
                ),
                number(
                    OPTIM,
                    "learning_rate",
                    0.0,
                    10.0,
                    "Step size, above 0 to 10; 0 = default of the model's family.",
                    step=1e-6,
                ),
                choice("schedule", SCHEDULES, OPTIM.schedule, "How the learning rate changes over the run."),
                number(
                    OPTIM,
                    "warmup_steps",
                    0,
                    1_000_000,
                    "Steps over which the learning rate rises from 0.",
                    step=1,
                ),
                number(
                    OPTIM, "weight_decay", 0.0, 10.0, "Pull of the weights towards 0, 0 to 10.", step=0.001
                ),
                number(
                    OPTIM,
                    "clip_norm",
                    0.0,
                    1000.0,
                    "Largest norm of the gradient, 0 (no limit) to 1000.",
                    step=0.1,
                ),
                number(
                    OPTIM,
                    "ema_decay",
                    0.0,
                    0.99999,
                    "Average the weights over steps with this decay, 0 "
                    "(off) to 0.99999; the average is saved.",
                    step=0.0001,
                ),
                number(
                    OPTIM,
                    "lora_plus_ratio",
                    0.01,
                    1000.0,
                    "Learning rate of the second factor over the first's, 0.01 to 1000; LoRA+ uses 16.",
                    step=0.5,
                ),
                *advanced(
                    [
                        io.Float.Input(
                            "beta1",
                            default=beta1,
                            min=0.0,
                            max=0.99999,
                            step=0.001,
                            tooltip="Memory of the gradient, 0 to 0.99999.",
                        ),
                        io.Float.Input(
                            "beta2",
                            default=beta2,
                            min=0.0,
                            max=0.99999,
                            step=0.001,
                            tooltip="Memory of its square, 0 to 0.99999.",
                        ),
                        number(OPTIM, "eps", 0.0, 1.0, "Kept from dividing by zero, 0 to 1.", step=1e-9),
                        number(
                            OPTIM, "restarts", 1, 1000, "Cycles of cosine with restarts, 1 to 1000.", step=1
                        ),
                        number(
                            OPTIM, "power", 0.01, 100.0, "Exponent of the polynomial schedule, 0.01 to 100."
                        ),
                        number(
                            OPTIM,
                            "min_lr_ratio",
                            0.0,
                            1.0,
                            "Learning rate at the end over that at the start, 0 to 1.",
                        ),
                    ]
                ),
            ],
            outputs=[MLT_OPTIMIZER.Output("optimizer_settings", tooltip="For the training node.")],
        )

    @classmethod
    def execute(cls, beta1=OPTIM.betas[0], beta2=OPTIM.betas[1], **widgets):
        """The two betas are one field."""
        return io.NodeOutput(OptimizerSettings(betas=(beta1, beta2), **widgets))
