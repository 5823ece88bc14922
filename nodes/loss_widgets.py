"""The widgets of the masked loss, by what they are about; each tells which trainers have it too."""

from ..masklora.loss.presets import PRESET_NAMES
from ..masklora.settings import BY_GOAL, LossSettings
from .types import choice, drop_down, number, switch

LOSS = LossSettings()


def preset_input():
    """What decides nearly everything."""
    return drop_down(
        "preset",
        (BY_GOAL, *PRESET_NAMES),
        BY_GOAL,
        "by goal: masked lora, and what the goal of Load Dataset changes of it; options that you set stay. masked "
        "lora: our recommended loss, with the background held to the base model's. Others: the exact loss of another "
        "trainer; the report tells which widgets it overrules. custom: every widget counts.",
    )


def first_inputs():
    """What was there first: saved workflows know widgets by their place."""
    return [
        choice(
            LOSS,
            "normalize",
            "What the masked loss is divided by. area: the mask's size, so that every picture has an equal say (ours, "
            "blissful-tuner per sample). none: the whole picture's (kohya, SimpleTuner, OneTrainer). batch: the "
            "batch's weights (blissful-tuner). batch_mean: likewise (ai-toolkit).",
        ),
        choice(
            LOSS,
            "mask_type",
            "soft: grey is a weight, as elsewhere. hard: cut at 0.5, so that every pixel counts wholly or not at all.",
        ),
        number(
            LOSS,
            "floor",
            "Least weight of an ignored cell, 0 to 1; 0 ignores it fully. Dangerous with small masks: see "
            "outside_share. OneTrainer (unmasked weight), ai-toolkit and blissful-tuner have it.",
        ),
        number(
            LOSS,
            "outside_share",
            "Share of the weight, 0 to 1, given to what is ignored, however large it is: a small mask keeps the rest.",
        ),
        number(
            LOSS,
            "mask_probability",
            "Share of the steps, 0 to 1, in which the mask applies. SimpleTuner and OneTrainer (unmasked probability) "
            "have it.",
        ),
        choice(
            LOSS,
            "timestep_sampling",
            "How noise levels are drawn; default = as usual for the model's family. shifted by resolution = as in "
            "FLUX's own sampler, the more noise the larger the picture: shift 1.88 at 512×512, 2.33 at 768×768, 3.16 "
            "at 1024×1024. Most trainers have some of these.",
        ),
        choice(
            LOSS,
            "timestep_weight",
            "Factor on the loss by noise level. min-snr and debiased are for SD 1.5 and SDXL, the others "
            "for flow models. Most trainers have some of these; a name tells whose curve differs.",
        ),
    ]


def mask_inputs():
    """From the mask's pixels to weights, and from errors to a loss."""
    return [
        choice(
            LOSS,
            "elementwise",
            "Loss of one value; mse is usual. smooth_l1 (kohya) = that of kohya's scripts, 2(√(d²+c²)−c), which is not "
            "torch's smooth_l1. Most trainers have some of these; a name tells whose curve differs.",
        ),
        number(
            LOSS,
            "elementwise_param",
            "Its β, δ or c, 0 (the usual one) to 1000; where the trainers have the curve, they have this.",
        ),
        number(
            LOSS,
            "area_min",
            "normalize area: smaller masks, as share of the picture, 0 to 1, count as this size, so that "
            "a speck does not weigh as much as a large mask.",
        ),
        number(
            LOSS,
            "area_beta",
            "normalize area and batch: exponent of the size, 0 (none) to 1 (full). blissful-tuner's mask area scale is "
            "1 less this.",
        ),
        choice(
            LOSS,
            "reduction",
            "How pixels of the mask become latent cells. area: kohya, SimpleTuner, blissful-tuner. any: SimpleTuner's "
            "segmentation. nearest: ai-toolkit. bilinear antialiased: OneTrainer. all: nobody else.",
        ),
        switch(LOSS, "reduction_binarize", "Count every cell above 0 fully, as SimpleTuner's segmentation does."),
        choice(
            LOSS,
            "mask_probability_scope",
            "Draw the mask probability per sample (OneTrainer) or once per batch (SimpleTuner).",
        ),
    ]


def cell_inputs():
    """What happens to the weights on the latent grid."""
    return [
        number(
            LOSS,
            "edge_jitter",
            "Blur the mask by a random radius per step, up to this share of the shorter side, 0 to 0.5. ai-toolkit "
            "has it.",
            step=0.001,
        ),
        number(LOSS, "gamma", "Exponent on the weights, 0.01 to 10; above 1 thins soft edges. blissful-tuner has it."),
        choice(
            LOSS,
            "floor_mode",
            "affine: squeeze the weights into floor to 1 (ai-toolkit, blissful-tuner). max: raise those below "
            "(OneTrainer).",
        ),
        number(LOSS, "ceiling", "Largest weight of a cell, 0 to 1; 1 lowers none."),
        number(
            LOSS,
            "latent_blur",
            "Blur the weights over this odd number of cells, 0 (off) to 63. blissful-tuner has it.",
            step=1,
        ),
        number(
            LOSS,
            "weight_threshold",
            "Cells below this weight, 0 to 1, learn nothing and are all that the prior holds. blissful-tuner has it.",
        ),
    ]


def frame_inputs():
    """How the masks of a clip's frames become one of a latent frame."""
    return [
        choice(
            LOSS,
            "frame_reduction",
            "Clips: which weight a latent frame gets from the masks of its frames, such as four: their mean, the "
            "largest or the smallest.",
        )
    ]


def time_inputs():
    """Noise, its levels and their weights."""
    return [
        number(
            LOSS,
            "timestep_mean",
            "Mean of logit-normal sampling, −10 to 10. kohya, SimpleTuner and OneTrainer have it.",
        ),
        number(
            LOSS,
            "timestep_std",
            "Spread of logit-normal sampling, 0.01 to 10. kohya, SimpleTuner and OneTrainer have it.",
        ),
        number(
            LOSS,
            "timestep_shift",
            "Shift towards noise, 0 to 100. 0: none; with shifted: the model's own. kohya, SimpleTuner, OneTrainer and "
            "blissful-tuner have it.",
        ),
        number(LOSS, "timestep_min", "Least noise level, 0 (clean) to 1 (noise). Most trainers have it."),
        number(LOSS, "timestep_max", "Largest noise level, 0 (clean) to 1 (noise). Most trainers have it."),
        number(
            LOSS, "snr_gamma", "γ of the min-snr weights, 0.01 to 1000; 5 is usual. Most trainers have it.", step=0.5
        ),
        number(
            LOSS,
            "noise_offset",
            "Add one random level per channel to the noise, 0 to 1. SD 1.5 and SDXL. kohya, SimpleTuner, ai-toolkit "
            "and OneTrainer have it.",
        ),
        number(
            LOSS,
            "multires_noise",
            "Add coarser noise, each octave times this, 0 to 0.99. SD 1.5 and SDXL. kohya has it.",
        ),
        switch(
            LOSS,
            "zero_terminal_snr",
            "Rescale the noise schedule to end in pure noise. v models only. Most trainers have it.",
        ),
    ]
