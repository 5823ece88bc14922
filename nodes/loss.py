"""The node that holds the settings of the masked loss."""

import dataclasses

from comfy_api.latest import io, ui

from ..masklora.config import (
    ELEMENTWISE,
    FADES,
    FLOOR_MODES,
    MASK_TYPES,
    NORMALIZE,
    PRIOR_REDUCTIONS,
    PROBABILITY_SCOPES,
    REDUCTIONS,
    ROUTE_SELECTIONS,
    TIMESTEP_SAMPLING,
    TIMESTEP_WEIGHTS,
    LossSettings,
    check_loss,
)
from ..masklora.presets import PRESET_DECIDES, PRESET_NAMES, apply_preset, overruled_options, preset_help
from .types import MLT_LOSS, TRAIN_CATEGORY, advanced, choice, number, switch

LOSS = LossSettings()


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
            # New inputs go to the end: saved workflows know widgets by their place.
            inputs=[
                *cls._visible(),
                *advanced(
                    [
                        *cls._mask_options(),
                        *cls._time_options(),
                        *cls._remedies(),
                        *cls._prior(),
                        *cls._fades(),
                        *cls._preservation(),
                        *cls._noise_aware(),
                        *cls._tokens(),
                    ]
                ),
            ],
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
            number(LOSS, "mask_probability", 0.0, 1.0, "Share of the steps, 0 to 1, in which the mask applies."),
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
            number(LOSS, "elementwise_param", 0.0, 1000.0, "Its β, δ or c, 0 (the usual one) to 1000."),
            number(
                LOSS,
                "area_min",
                0.0,
                1.0,
                "normalize area: smaller masks, as share of the picture, 0 to 1, count as this size.",
            ),
            number(LOSS, "area_beta", 0.0, 1.0, "normalize area: exponent of the size, 0 (none) to 1 (full)."),
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
            number(LOSS, "gamma", 0.01, 10.0, "Exponent on the weights, 0.01 to 10; above 1 thins soft edges."),
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
            number(
                LOSS,
                "timestep_shift",
                0.0,
                100.0,
                "Shift towards noise, 0 to 100. 0: none; with shifted: the model's own.",
            ),
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
            switch(LOSS, "zero_terminal_snr", "Rescale the noise schedule to end in pure noise. v models only."),
        ]

    @staticmethod
    def _remedies():
        return [
            number(
                LOSS,
                "infill_probability",
                0.0,
                1.0,
                "Share of the steps, 0 to 1, that see one of the replaced backgrounds that Cache Dataset made. "
                "No other trainer has it.",
            ),
        ]

    @staticmethod
    def _prior():
        return [
            io.Float.Input(
                "prior_weight",
                default=PRESET_DECIDES,
                min=PRESET_DECIDES,
                max=1000.0,
                step=0.01,
                tooltip="Hold what is ignored to what the base model paints there, with this weight; 0 (off) to 1000, "
                "−1 = as the preset has it: 1 in ours. ai-toolkit, OneTrainer and blissful-tuner have it too.",
            ),
            number(
                LOSS,
                "prior_probability",
                0.01,
                1.0,
                "Share of the steps, 0.01 to 1, in which the base model is asked, weighted up to the same mean. Less "
                "is faster. No other trainer has it.",
            ),
            choice(
                "prior_normalize",
                NORMALIZE,
                LOSS.prior_normalize,
                "What the prior is divided by: as normalize, but of the outside. With area, area_min keeps a tiny "
                "outside small; blissful-tuner and OneTrainer do not. batch_mean is ai-toolkit's.",
            ),
            switch(
                LOSS,
                "prior_multiplier",
                "The data set's loss multiplier counts for the prior too, as in OneTrainer; not in ai-toolkit.",
            ),
            choice(
                "prior_schedule",
                FADES,
                LOSS.prior_schedule,
                "How the prior fades from full at the first step to none at the last. No other trainer has it.",
            ),
            choice(
                "prior_timestep_schedule",
                FADES,
                LOSS.prior_timestep_schedule,
                "How the prior fades with the noise, from full at prior_pivot and above to none at 0, where details "
                "form. blissful-tuner has it too.",
            ),
        ]

    @staticmethod
    def _fades():
        return [
            number(
                LOSS,
                "prior_pivot",
                0.0,
                1.0,
                "prior_timestep_schedule: noise level, 0 to 1, below which the prior fades. blissful-tuner: 300 of "
                "1000.",
            ),
            number(
                LOSS,
                "prior_timestep_min",
                0.0,
                1.0,
                "Noise level, 0 to 1, up to which there is no prior at all. blissful-tuner has it too.",
            ),
            number(
                LOSS,
                "prior_warmup",
                0.0,
                1.0,
                "Share of the run, 0 to 1, over which the prior rises from none to full. blissful-tuner has it too.",
            ),
            choice(
                "prior_reduction",
                PRIOR_REDUCTIONS,
                LOSS.prior_reduction,
                "Where the prior counts: as the mask leaves it, or by ai-toolkit's own bicubic copy of the mask.",
            ),
        ]

    @staticmethod
    def _preservation():
        return [
            number(
                LOSS,
                "preservation_weight",
                0.0,
                1000.0,
                "Hold other prompts to the base model: its prediction for the caption without the trigger word is the "
                "target of that caption, with this weight; 0 (off) to 1000, 0.1 to 0.5 is usual. Keeps the subject out "
                "of other prompts; too much of it unlearns the subject. No other trainer has it for masks.",
            ),
            number(
                LOSS,
                "preservation_probability",
                0.01,
                1.0,
                "Share of the steps, 0.01 to 1, that do so, weighted up to the same mean. Such a step costs about "
                "twice its time.",
            ),
        ]

    @staticmethod
    def _noise_aware():
        return [
            number(
                LOSS,
                "noise_blur",
                0.0,
                0.5,
                "Experimental. Blur the mask the more, the noisier the step: by up to this share of the shorter side, "
                "0 (off) to 0.5, at full noise. No other trainer has it.",
                step=0.001,
            ),
            number(
                LOSS,
                "masked_timestep_max",
                0.0,
                1.0,
                "Experimental. Largest noise level, 0 to 1, of pictures with a mask: position and background are "
                "learned at the highest levels. No other trainer has it.",
            ),
        ]

    @staticmethod
    def _tokens():
        return [
            switch(
                LOSS,
                "attention_mask",
                "Hide what is ignored from attention: other tokens do not look at image tokens without weight. FLUX.1 "
                "and Stable Diffusion 3. No other trainer has it.",
            ),
            switch(
                LOSS,
                "text_padding_mask",
                "Hide the padding after the caption from attention, as OneTrainer and kohya's T5 attention mask do. "
                "FLUX.1 and Stable Diffusion 3.",
            ),
            io.String.Input(
                "routes",
                default=LOSS.routes,
                tooltip="Token routing (TREAD): share of the tokens, 0 to 1, that skip blocks, then the first and the "
                "last of these blocks, such as 0.75: 2..-3; several apart by ;. Negative numbers count from the last "
                "block. Empty = off. Faster steps. FLUX.1 and Stable Diffusion 3. SimpleTuner has it too.",
            ),
            choice(
                "route_selection",
                ROUTE_SELECTIONS,
                LOSS.route_selection,
                "Which tokens skip. mask kept: only what is ignored, that share of it. mask-aware: that share of all, "
                "ignored ones first. random: that share of all.",
            ),
            number(
                LOSS,
                "route_until",
                0.0,
                1.0,
                "Share of the run, 0 to 1, with token routing; the rest trains whole, as the model will be used.",
            ),
        ]

    @classmethod
    def execute(cls, preset, **widgets):
        """The preset decides its options; what it overrules is told."""
        asked = dataclasses.replace(LOSS, **{"prior_weight": PRESET_DECIDES, **widgets})
        loss = check_loss(apply_preset(preset, asked))
        overruled = overruled_options(preset, asked)
        report = preset_help(preset)
        if overruled:
            report += f"\nOverruled by the preset: {', '.join(overruled)}. Choose custom to set them yourself."
        details = [name for name in widgets if name.startswith("prior_") and name != "prior_weight"]
        idle = {name for name in details if widgets[name] != getattr(LOSS, name)}
        if loss.prior_weight == 0 and idle - set(overruled):
            report += "\nThere is no prior while prior_weight is 0: the other prior_ widgets do nothing."
        if loss.mask_channel:
            report += f"\nThis trainer reads the {loss.mask_channel} of a mask file: set mask_channel so."
        return io.NodeOutput(loss, report, ui=ui.PreviewText(report))
