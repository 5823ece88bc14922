"""Settings of a training: what is trained, how, for how long, and how it is written."""

from __future__ import annotations

from dataclasses import dataclass

from .fields import being, chosen, other_than, ranged, seeded, texted

TLORA = "tlora"
ALGORITHMS = ("lora", "rslora", "dora", TLORA, "lokr", "loha")
# Those whose change is no product of two factors.
OTHER_ALGORITHMS = ("lokr", "loha")
# What the family's learning rate is multiplied by, so that first steps change weights about as much as a LoRA's.
USUAL_RATES = {"lokr": 0.5, "loha": 10.0}
INITS = ("default", "gaussian")
OPTIMIZERS = (
    "adamw",
    "adamw8bit",
    "adafactor",
    "lion",
    "prodigy",
    "schedule-free adamw",
    "came",
    "muon",
    "soap",
    "adopt",
)
SCHEDULES = ("constant", "linear", "cosine", "cosine with restarts", "polynomial")
OFFLOADED = "per block, offloaded"
CHECKPOINTING = ("per block", "off", "whole model", OFFLOADED)
# Those by which each block is recomputed by itself.
PER_BLOCK = ("per block", OFFLOADED)
EXISTING_RUNS = ("go on", "start anew")
OVER_MEMORY = ("refuse", "go on")
TEXT_ENCODERS = ("all", "clip_l", "clip_g", "none")
EXPORT_FORMATS = ("comfyui", "diffusers")
DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class AdapterSettings:
    """What is trained. Zero rank or alpha means the default of the model family, zero least rank half of the rank."""

    algorithm: str = chosen("lora", ALGORITHMS)
    rank: int = ranged(0, 0, 1024)
    alpha: float = ranged(0.0, 0.0, 4096.0)
    targets: str = "default"
    include: str = ""
    exclude: str = ""
    convolutions: bool = False
    dropout: float = ranged(0.0, 0.0, 0.9)
    init: str = chosen("default", INITS, used=[{"algorithm": other_than(*OTHER_ALGORITHMS)}])
    start_from: str = ""
    least_rank: int = ranged(0, 0, 1024, used=[{"algorithm": being(TLORA)}])
    rank_by_layer: str = ""
    full_layers: str = ""
    lokr_factor: int = ranged(8, 0, 1024, used=[{"algorithm": being("lokr")}])


@dataclass(frozen=True)
class OptimizerSettings:
    """How it is trained. Zero learning rate means the default of the model family."""

    optimizer: str = chosen("adamw", OPTIMIZERS)
    learning_rate: float = ranged(0.0, 0.0, 10.0)
    weight_decay: float = ranged(0.01, 0.0, 10.0)
    betas: tuple[float, float] = ranged(
        (0.9, 0.999), 0.0, 0.99999, "beta1", "beta2", used=[{"optimizer": other_than("adafactor")}]
    )
    eps: float = ranged(1e-8, 0.0, 1.0, used=[{"optimizer": other_than("adafactor", "lion", "came")}])
    schedule: str = chosen("constant", SCHEDULES)
    warmup_steps: int = ranged(0, 0, 1_000_000)
    restarts: int = ranged(1, 1, 1000, used=[{"schedule": being("cosine with restarts")}])
    power: float = ranged(1.0, 0.01, 100.0, used=[{"schedule": being("polynomial")}])
    min_lr_ratio: float = ranged(0.0, 0.0, 1.0, used=[{"schedule": other_than("constant")}])
    clip_norm: float = ranged(1.0, 0.0, 1000.0)
    lora_plus_ratio: float = ranged(1.0, 0.01, 1000.0)
    ema_decay: float = ranged(0.0, 0.0, 0.99999)


@dataclass(frozen=True)
class TrainSettings:
    """Length, batch and bookkeeping of a run. `epochs` wins over `steps` when it is not zero."""

    steps: int = ranged(0, 0, 1_000_000)
    epochs: int = ranged(0, 0, 100_000)
    batch_size: int = ranged(1, 1, 256)
    gradient_accumulation: int = ranged(1, 1, 1024)
    seed: int = seeded()
    checkpointing: str = chosen("per block", CHECKPOINTING)
    compile: bool = False
    guidance: float = ranged(-1.0, -1.0, 100.0)
    save_every: int = ranged(250, 0, 1_000_000)
    keep_last: int = ranged(3, 1, 1000)
    validate_every: int = ranged(0, 0, 1_000_000)
    validation_share: float = ranged(0.1, 0.0, 0.9, used=[{"validate_every": other_than(0)}])
    regularisation_weight: float = ranged(1.0, 0.0, 100.0)
    name: str = "masked-lora"
    if_a_run_exists: str = chosen("go on", EXISTING_RUNS)
    keep_finished_runs: int = ranged(3, 0, 1000)
    unknown_model: bool = False
    assistant_lora: str = ""
    swap_blocks: int = ranged(0, -1, 1000)
    over_memory: str = chosen("refuse", OVER_MEMORY)
    quantized_compute: bool = False
    keep_every: int = ranged(0, 0, 1_000_000)
    expert_switch: float = ranged(0.0, 0.0, 0.999)
    switch_experts_every: int = ranged(10, 1, 1_000_000)
    leak_every: int = ranged(0, -1, 1_000_000)


_ENCODER = [{"encoders": other_than("none")}]
_WORD = [{"new_word": being(True)}]


@dataclass(frozen=True)
class TextEncoderSettings:
    """Which text encoders are trained beside the model. Zero rate, rank or alpha is the model's own; no stop is 0.

    `new_word` stands for the data set's trigger word: vectors of its own, beside or instead of the encoders' LoRA.
    """

    encoders: str = chosen("all", TEXT_ENCODERS)
    learning_rate: float = ranged(5e-5, 0.0, 1.0, used=_ENCODER)
    stop_after: int = ranged(0, 0, 1_000_000, used=_ENCODER)
    new_word: bool = False
    word_vectors: int = ranged(2, 1, 32, used=_WORD)
    word_start: str = texted("", used=_WORD)
    word_learning_rate: float = ranged(1e-3, 0.0, 1.0, used=_WORD)
    word_stop_after: int = ranged(0, 0, 1_000_000, used=_WORD)
    rank: int = ranged(0, 0, 1024, used=_ENCODER)
    alpha: float = ranged(0.0, 0.0, 4096.0, used=_ENCODER)


@dataclass(frozen=True)
class ExportSettings:
    """How a finished LoRA is written."""

    format: str = chosen("comfyui", EXPORT_FORMATS)
    dtype: str = chosen("float16", DTYPES)
    title: str = ""
    trigger: str = ""
    new_rank: int = ranged(0, 0, 1024)
    keep_energy: float = ranged(0.0, 0.0, 1.0)
    block_strengths: str = ""
