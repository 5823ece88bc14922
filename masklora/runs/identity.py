"""The part of a run's identity that its settings make up, which stays what it was when a setting is added."""

from __future__ import annotations

import dataclasses
from typing import Any

# The settings that were there when runs began to be known by them. One that came later enters where it is not at its
# default, so that runs of before are still found.
FIRST = {
    "LossSettings": (
        "preset elementwise elementwise_param mask_type normalize area_min area_beta reduction reduction_binarize "
        "mask_channel mask_probability mask_probability_scope edge_jitter gamma floor_mode floor ceiling outside_share "
        "timestep_sampling timestep_mean timestep_std timestep_shift timestep_min timestep_max timestep_weight "
        "snr_gamma noise_offset multires_noise zero_terminal_snr latent_blur weight_threshold infill_probability "
        "prior_weight prior_probability prior_normalize prior_multiplier prior_schedule prior_timestep_schedule "
        "prior_pivot prior_timestep_min prior_warmup prior_reduction preservation_weight preservation_probability "
        "noise_blur masked_timestep_max attention_mask text_padding_mask routes route_selection route_until"
    ),
    "AdapterSettings": "algorithm rank alpha targets include exclude convolutions dropout init start_from",
    "OptimizerSettings": (
        "optimizer learning_rate weight_decay betas eps schedule warmup_steps restarts power min_lr_ratio clip_norm "
        "lora_plus_ratio ema_decay"
    ),
    "TextEncoderSettings": (
        "encoders learning_rate stop_after new_word word_vectors word_start word_learning_rate word_stop_after rank "
        "alpha"
    ),
    "TrainSettings": (
        "steps epochs batch_size gradient_accumulation seed guidance validate_every validation_share "
        "regularisation_weight"
    ),
}
# These change what is kept, not what is learned.
KEPT_ONLY = {"name", "save_every", "keep_last", "keep_every", "if_a_run_exists", "keep_finished_runs", "over_memory"}
KEPT_ONLY |= {"leak_every"}
# These change how it is computed.
KEPT_ONLY |= {"checkpointing", "swap_blocks", "compile"}
# What is in the file counts, which is part of the model then.
KEPT_ONLY |= {"assistant_lora"}


def lasting(settings: Any) -> dict[str, Any]:
    """What of a settings dataclass decides what is learned, by name."""
    first, usual = FIRST[type(settings).__name__].split(), type(settings)()
    values = dataclasses.asdict(settings)
    return {
        name: value
        for name, value in values.items()
        if name in first or (name not in KEPT_ONLY and value != getattr(usual, name))
    }
