"""What the trainer must know about a family of models, as data: a new family is one file beside this one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from ..config import AdapterSettings, LossSettings, OptimizerSettings, TrainSettings
from ..errors import ConfigError


@dataclass(frozen=True)
class Defaults:
    """Training defaults from published practice; `source` names the publication."""

    learning_rate: float
    rank: int
    alpha: float
    steps: int
    timestep_sampling: str
    timestep_mean: float = 0.0
    timestep_std: float = 1.0
    source: str = ""


@dataclass(frozen=True)
class BlockTokens:
    """Where a class of blocks takes its image tokens and gives them back.

    Attributes:
        argument: Place or keyword of the argument that holds them, (B, tokens, width).
        result: Place in the tuple that the block returns; None where it returns that one tensor.
        joined: Whether the text tokens lie in front of them in the same tensor.
    """

    argument: int | str
    result: int | None
    joined: bool


@dataclass(frozen=True)
class TokenLayout:
    """How the tokens of a transformer pass its blocks. In attention the text tokens lie in front of the image tokens.

    Attributes:
        blocks: By block class, in the order in which the tokens pass them.
        rotary: Keyword of the table of positions that every block is given, text in front; None where the
            positions are in the tokens themselves.
        rotary_axis: The axis of that table which counts the tokens.
    """

    blocks: dict[str, BlockTokens] = field(hash=False)
    rotary: str | None = None
    rotary_axis: int = 1


@dataclass(frozen=True)
class Family:
    """One family of diffusion models as ComfyUI holds them.

    Attributes:
        name: Short identifier that users see in errors and metadata.
        title: Name in prose.
        configs: Names of ComfyUI's model configurations that belong to it.
        latent_channels: Channels of the VAE's latents.
        latent_stride: Pixels per latent cell along each side.
        patch: Latent cells per token along each side (1 for U-Nets).
        predictions: What the network may predict: "epsilon", "v" or "flow".
        blocks: Class names of the modules that gradient checkpointing recomputes.
        tails: By block class, the layers whose result is added to the block's result and read by nothing else.
        gate_arguments: Keyword arguments of the blocks that scale those results before they are added.
        gate_layers: Layers in the blocks that do.
        mutates: Whether those modules write to their inputs in place.
        tokens: How image tokens pass the blocks; None for U-Nets, which have no run of tokens.
        targets: Regular expressions (full match on the module path) by preset name.
        text_repeats: Whether texts of unequal token count may be repeated to a common length; else samples
            of unequal text length run one by one.
        size_conditioning: Whether the network is told original size, crop and target size.
        kohya_as_diffusers: Whether kohya's tools name this family's layers as diffusers does.
        base_model_version: Value of `ss_base_model_version` in LoRA files.
        architecture: Value of `modelspec.architecture` in LoRA files, without "/lora".
        defaults: Training defaults.
    """

    name: str
    title: str
    configs: tuple[str, ...]
    latent_channels: int
    latent_stride: int
    patch: int
    predictions: tuple[str, ...]
    blocks: tuple[str, ...]
    tails: dict[str, tuple[str, ...]] = field(hash=False)
    gate_arguments: tuple[str, ...]
    gate_layers: tuple[str, ...]
    mutates: bool
    tokens: TokenLayout | None
    targets: dict[str, str] = field(hash=False)
    text_repeats: bool
    size_conditioning: bool
    kohya_as_diffusers: bool
    base_model_version: str
    architecture: str
    defaults: Defaults


@dataclass(frozen=True)
class Resolved:
    """Settings in which every "default of the family" has been replaced by its value."""

    loss: LossSettings
    adapter: AdapterSettings
    optimizer: OptimizerSettings
    train: TrainSettings


def check_tokens(family: Family, loss: LossSettings) -> None:
    """Nothing if the family has the tokens that the loss settings act on.

    Raises:
        ConfigError: A U-Net has none; names the widget and what does the same there.
    """
    if family.tokens is not None:
        return
    instead = 'Cache Dataset with crop "masked crop" spends the steps on the masked part instead'
    asked = {
        "routes": (loss.routes.strip(), f"Empty it; {instead}."),
        "attention_mask": (loss.attention_mask, f"Switch it off; {instead}."),
        "text_padding_mask": (loss.text_padding_mask, "Switch it off; this model was trained to see the padding."),
    }
    for widget, (on, remedy) in asked.items():
        if on:
            raise ConfigError(f"{widget}: {family.title} is a U-Net, which has no tokens for it. {remedy}")


def resolve(
    family: Family,
    *,
    loss: LossSettings,
    adapter: AdapterSettings,
    optimizer: OptimizerSettings,
    train: TrainSettings,
) -> Resolved:
    """The settings with the family's defaults filled in where the user left zero or "default".

    Raises:
        ConfigError: If `targets` is no preset of the family.
    """
    d = family.defaults
    if adapter.targets not in family.targets:
        known = ", ".join(family.targets)
        raise ConfigError(f"targets: {family.title} has {known}; got {adapter.targets!r}. Choose one of these.")
    if loss.timestep_sampling == "default":
        usual = LossSettings()
        mean = d.timestep_mean if loss.timestep_mean == usual.timestep_mean else loss.timestep_mean
        std = d.timestep_std if loss.timestep_std == usual.timestep_std else loss.timestep_std
        loss = dataclasses.replace(loss, timestep_sampling=d.timestep_sampling, timestep_mean=mean, timestep_std=std)
    rank = adapter.rank or d.rank
    alpha = adapter.alpha or (d.alpha if not adapter.rank else float(rank))
    # Prodigy's rate is a factor on the step size that it finds: the family's would all but stop it.
    usual_rate = 1.0 if optimizer.optimizer == "prodigy" else d.learning_rate
    length = train.steps if train.steps or train.epochs else d.steps
    return Resolved(
        loss=loss,
        adapter=dataclasses.replace(adapter, rank=rank, alpha=alpha),
        optimizer=dataclasses.replace(optimizer, learning_rate=optimizer.learning_rate or usual_rate),
        train=dataclasses.replace(train, steps=length),
    )
