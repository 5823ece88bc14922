"""The widgets of what helps beside the mask: replaced backgrounds, priors, tokens; each tells who has it too."""

from ..masklora.loss.presets import PRESET_DECIDES
from .loss_widgets import LOSS
from .types import choice, number, switch, text

_WITH_TOKENS = "Not in U-Nets; docs/families.md lists the models."


def infill_inputs():
    """Backgrounds that were replaced."""
    return [
        number(
            LOSS,
            "infill_probability",
            "Share of the steps, 0 to 1, that see one of the replaced backgrounds that Cache Dataset made; "
            "the others see the picture's own.",
        ),
    ]


def prior_inputs():
    """The inverted mask prior."""
    return [
        number(
            LOSS,
            "prior_weight",
            "Hold what is ignored to what the base model paints there, with this weight; 0 (off) to 1000, "
            "−1 = as the preset has it: 1 in ours. ai-toolkit, OneTrainer and blissful-tuner have it too.",
            default=PRESET_DECIDES,
            min=PRESET_DECIDES,
        ),
        number(
            LOSS,
            "prior_probability",
            "Share of the steps, 0.01 to 1, in which the base model is asked, weighted up to the same mean. Less "
            "is faster.",
        ),
        choice(
            LOSS,
            "prior_normalize",
            "What the prior is divided by: as normalize, but of the outside. With area, area_min keeps a tiny "
            "outside small; blissful-tuner and OneTrainer do not. batch_mean is ai-toolkit's.",
        ),
        switch(
            LOSS,
            "prior_multiplier",
            "The data set's loss multiplier counts for the prior too, as in OneTrainer; not in ai-toolkit.",
        ),
        choice(LOSS, "prior_schedule", "How the prior fades from full at the first step to none at the last."),
        choice(
            LOSS,
            "prior_timestep_schedule",
            "How the prior fades with the noise, from full at prior_pivot and above to none at 0, where details "
            "form. blissful-tuner has it too.",
        ),
    ]


def fade_inputs():
    """When the prior counts, and where."""
    return [
        number(
            LOSS,
            "prior_pivot",
            "prior_timestep_schedule: noise level, 0 to 1, below which the prior fades. blissful-tuner: 300 of 1000.",
        ),
        number(
            LOSS,
            "prior_timestep_min",
            "Noise level, 0 to 1, up to which there is no prior at all. blissful-tuner has it too.",
        ),
        number(
            LOSS,
            "prior_warmup",
            "Share of the run, 0 to 1, over which the prior rises from none to full. blissful-tuner has it too.",
        ),
        choice(
            LOSS,
            "prior_reduction",
            "Where the prior counts: as the mask leaves it, or by ai-toolkit's own bicubic copy of the mask.",
        ),
    ]


def preservation_inputs():
    """Other prompts, held to the base model."""
    return [
        number(
            LOSS,
            "preservation_weight",
            "Hold other prompts to the base model: its prediction for the caption without the trigger word is the "
            "target of that caption, with this weight; 0 (off) to 1000, 0.1 to 0.5 is usual. Keeps the subject out "
            "of other prompts; too much of it unlearns the subject.",
        ),
        number(
            LOSS,
            "preservation_probability",
            "Share of the steps, 0.01 to 1, that do so, weighted up to the same mean. Such a step takes "
            "twice its time and more.",
        ),
    ]


def noise_inputs():
    """Experimental: what the mask says at which noise level."""
    return [
        number(
            LOSS,
            "noise_blur",
            "Experimental. Blur the mask the more, the noisier the step: by up to this share of the shorter side, "
            "0 (off) to 0.5, at full noise.",
            step=0.001,
        ),
        number(
            LOSS,
            "masked_timestep_max",
            "Experimental. Largest noise level, 0 to 1, of pictures with a mask: position and background are "
            "learned at the highest levels.",
        ),
    ]


def token_inputs():
    """Where masks meet tokens."""
    return [
        switch(
            LOSS,
            "attention_mask",
            "Hide what is ignored from attention: other tokens do not look at image tokens without weight. "
            f"{_WITH_TOKENS}",
        ),
        switch(
            LOSS,
            "text_padding_mask",
            "Hide the padding after the caption from attention, as OneTrainer and kohya's T5 attention mask do. "
            "FLUX.1 and Stable Diffusion 3.",
        ),
        text(
            LOSS,
            "routes",
            "Token routing (TREAD): share of the tokens, 0 to 1, that skip blocks, then the first and the "
            "last of these blocks, such as 0.75: 2..-3; several apart by ;. Blocks count from 0, negative numbers "
            f"from the last block. Empty = off. Faster steps. {_WITH_TOKENS} SimpleTuner has it too.",
        ),
        choice(
            LOSS,
            "route_selection",
            "Which tokens skip. mask kept: only what is ignored, that share of it. mask-aware: that share of all, "
            "ignored ones first. random: that share of all.",
        ),
        number(
            LOSS,
            "route_until",
            "Share of the run, 0 to 1, with token routing; the rest trains whole, as the model will be used.",
        ),
    ]
