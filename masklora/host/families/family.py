"""What the trainer must know about a family of models, as data: a new family is one file beside this one.

How a network is called, which conditions it takes and what its latents look like is ComfyUI's business and is read
from the loaded model. A family says where to put adapters, which blocks repeat, and how its tokens pass them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ...errors import ConfigError
from ...goals import UNDECIDED, Goal
from ...settings import USUAL_RATES, AdapterSettings, LossSettings, OptimizerSettings, TrainSettings

# The guidance that stands for the family's own: no model is trained with a negative one.
FAMILY_GUIDANCE = -1.0
# How a network is given the first frame of a clip that it continues: beside the noise, the latent of that frame
# followed by grey frames, or of the frame alone; in place of the noise; or for the network to put it there by itself.
BEFORE_GREY, ALONE, IN_PLACE, BY_NETWORK = "before grey", "alone", "in place", "by network"
# Of the sequence that self-attention looks at.
PARTS = ("text", "image", "references", "pad")


@dataclass(frozen=True)
class Defaults:
    """Training defaults from published practice; `source` names the publication.

    Attributes:
        timestep_shift: Of "shifted" noise levels; 0 for the model's own, with which it samples.
        guidance: What a guidance-distilled model is told.
    """

    learning_rate: float
    rank: int
    alpha: float
    steps: int
    timestep_sampling: str
    timestep_mean: float = 0.0
    timestep_std: float = 1.0
    timestep_shift: float = 0.0
    timestep_min: float = 0.0
    timestep_max: float = 1.0
    guidance: float = 1.0
    source: str = ""


@dataclass(frozen=True)
class Slot:
    """Where a tensor lies in the call of a block, or in what the block returns.

    Attributes:
        at: The parameter's name or place in the block's `forward`, however it is passed. In a result: the element of
            the tuple, or None for all of it.
        item: Element of the tuple that lies there; None where the tensor itself does.
        axis: The axis that counts its tokens; 0 where there is none for samples.
        joined: Whether that axis runs over all parts of the block's `order`; else over the image tokens alone.
    """

    at: int | str | None = None
    item: int | None = None
    axis: int = 1
    joined: bool = False


@dataclass(frozen=True)
class Blocks:
    """One kind of block that a network repeats.

    Attributes:
        path: Regular expression that fully matches the paths of such modules in the network.
        kind: Their class's name where paths alone do not tell them apart.
        image: Where they are given the image tokens; None where no run of image tokens passes them.
        result: Where these are in what they return.
        rotary: Tables of positions, which follow the tokens.
        bounds: Where they are told at which tokens a part begins or ends, as a number or in lists of such: what lies
            behind the image tokens moves up where some of these are left out. May be missing in a call.
        order: The parts of the sequence that their self-attention looks at: "text", "image", "references" for the
            tokens of reference pictures, where a sample has some, and "pad" for tokens that fill the image up to a
            multiple of `pad`. Empty where nothing needs to be hidden from it.
        pad: See `order`.
        mask: Their parameter for a mask of attention (B, 1, L, L), where they are given no options that could carry it;
            "" where they are.
        cross: Layers in them that look at another sequence than these tokens: the text's.
        tails: Layers in them whose result is added to the block's result and read by nothing else.
        gates: What scales those results before they are added.
        gate_layers: Layers in them that do.
    """

    path: str = r".*"
    kind: str = ""
    image: Slot | None = None
    result: Slot = Slot()
    rotary: tuple[Slot, ...] = ()
    bounds: tuple[Slot, ...] = ()
    order: tuple[str, ...] = ()
    pad: int = 1
    mask: str = ""
    cross: tuple[str, ...] = ()
    tails: tuple[str, ...] = ()
    gates: tuple[Slot, ...] = ()
    gate_layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class References:
    """How the models of a family are given reference pictures, as ComfyUI's own nodes and templates give them.

    Attributes:
        method: ComfyUI's `reference_latents_method`; "" for the network's own.
        own_size: Whether a reference keeps its own aspect, at about as many pixels as the picture that is learned; else
            it is cut exactly as that picture is.
        pictures: How the text encoder is shown them, a name in `host.references.ways`; "" where it is not.
        most: How many a sample may have.
        needed: Whether the models make nothing without one.
    """

    method: str = ""
    own_size: bool = True
    pictures: str = ""
    most: int = 16
    needed: bool = False


@dataclass(frozen=True)
class DiffusersNames:
    """How diffusers' loaders know the layers in a LoRA file.

    Attributes:
        prefix: What stands before a name: "transformer" where names are diffusers', of which ComfyUI has a table,
            "diffusion_model" where they are ComfyUI's own.
        preferred: Regular expression for the names of layers for which ComfyUI's table has others too.
        layers: Regular expression for the paths of the layers that the loaders take.
    """

    prefix: str
    preferred: str = ""
    layers: str = r".*"


@dataclass(frozen=True)
class Note:
    """What a person should know who trains some models of a family.

    Attributes:
        text: The sentence.
        without: Path of a layer that these models lack; "" for all of the family.
    """

    text: str
    without: str = ""


@dataclass(frozen=True)
class Family:
    """One family of diffusion models as ComfyUI holds them.

    Attributes:
        name: Short identifier that users see in errors and metadata.
        title: Name in prose.
        configs: Names of ComfyUI's model configurations that belong to it; of models for clips with the frames per
            second that these were made for, 0 where nobody tells, None for a configuration of pictures.
        blocks: The blocks that gradient checkpointing recomputes, in the order in which tokens pass them.
        targets: Regular expressions (full match on the module path) by preset name.
        architecture: Value of `modelspec.architecture` in LoRA files, without "/lora".
        base_model_version: Value of `ss_base_model_version` in LoRA files.
        defaults: Training defaults.
        predictions: What the network may predict: "epsilon", "v" or "flow".
        channels: Channels of a picture's latent where ComfyUI tells those of another part of a sample; 0 for what it
            tells.
        sound: Shape of one sample's sound for a network that takes it beside the picture; its time is 0, since a
            picture has none. () for all others.
        alone: Whether the network takes one sample at a time.
        decoded: How often a drawn picture is given to the VAE as a frame, of which the first is shown: what decodes
            clips may need more than one.
        patch: Latent cells per token: frames, rows, columns (1 for U-Nets).
        divides: Whether rows and columns of a latent must be multiples of `patch`; else the network fills them up.
        places: Attribute of the network that tells how many tokens a side it has places for; "" for any number.
        distilled: Attribute of the network that only models distilled for few steps fill, which ask for the steps of a
            sampler; these are refused.
        least: What the mean of a latent's rows and columns must be at least; 0 for any.
        mutates: Whether the blocks write to their inputs in place.
        text_layer: Regular expression for the path of the first layer that reads the texts' features; "" for unknown.
        text_taps: The same of the layer that reads how many layers of the text encoder a token's features join; ""
            for one.
        pooled_layer: The same of the layer that reads the pooled text.
        text_extras: What the text encoder must give beside the features, by ComfyUI's names.
        text_adapter: Regular expression for layers that look at texts alone and never change in a run, as long as
            none of them has an adapter: ComfyUI then puts each text through them once, as it does when it samples.
        text_repeats: Whether texts of unequal token count may be repeated to a common length.
        text_fills: Whether they may be filled up to one: whatever in the network looks at texts is listed in `blocks`,
            and no position depends on their length. With neither, samples of unequal text length run one by one.
        kohya_as_diffusers: Whether kohya's tools name this family's layers as diffusers does.
        diffusers: How diffusers' loaders know its layers; None where they take no names that ComfyUI knows too.
        first_frame: How the models of a configuration are given a clip's first frame, `BEFORE_GREY`, `ALONE`,
            `IN_PLACE` or `BY_NETWORK`; those of the first two kinds only where they have the channels for it.
        references: How its models are given reference pictures; None where they take none.
        inpainting: Configurations whose models may have channels for a mask and for the picture without what it covers.
        experts: Of models that are two, one for high and one for low noise: the noise level at which they change over
            when they draw, by ComfyUI's configuration and the channels that the network is given.
        notes: What a person should know who trains it.
    """

    name: str
    title: str
    configs: tuple[str, ...] | dict[str, float | None] = field(hash=False)
    blocks: tuple[Blocks, ...]
    targets: dict[str, str] = field(hash=False)
    architecture: str
    base_model_version: str
    defaults: Defaults
    predictions: tuple[str, ...] = ("flow",)
    channels: int = 0
    sound: tuple[int, ...] = ()
    alone: bool = False
    decoded: int = 1
    patch: tuple[int, int, int] = (1, 2, 2)
    divides: bool = False
    places: str = ""
    distilled: str = ""
    least: int = 0
    mutates: bool = False
    text_layer: str = ""
    text_taps: str = ""
    pooled_layer: str = ""
    text_extras: tuple[str, ...] = ()
    text_adapter: str = ""
    text_repeats: bool = False
    text_fills: bool = False
    kohya_as_diffusers: bool = False
    diffusers: DiffusersNames | None = None
    first_frame: dict[str, str] = field(default_factory=dict, hash=False)
    references: References | None = None
    inpainting: tuple[str, ...] = ()
    experts: dict[tuple[str, int], float] = field(default_factory=dict, hash=False)
    notes: tuple[Note, ...] = ()

    @property
    def rates(self) -> dict[str, float]:
        """Frames per second by the configuration of models for clips."""
        given = self.configs if isinstance(self.configs, dict) else {}
        return {name: rate for name, rate in given.items() if rate is not None}

    def notes_for(self, network: nn.Module) -> list[str]:
        """The sentences for this network."""
        layers = {path for path, _ in network.named_modules()}
        return [note.text for note in self.notes if not note.without or note.without not in layers]

    def switch_for(self, config: Any) -> float:
        """The entry of `experts` for ComfyUI's configuration of a model; 0 of one that is not two."""
        return self.experts.get((type(config).__name__, config.unet_config.get("in_dim", 0)), 0.0)

    def reads_texts_once(self, targets: Iterable[str]) -> bool:
        """Whether texts pass the network's layers for texts once, before the training of layers with these paths."""
        given = list(targets)
        return bool(self.text_adapter and given) and not any(re.fullmatch(self.text_adapter, path) for path in given)

    @property
    def has_tokens(self) -> bool:
        """Whether image tokens pass its blocks, so that they can be routed and hidden; not in U-Nets."""
        return any(blocks.image is not None for blocks in self.blocks)


def family_fault(family: Any) -> str | None:
    """What cannot be right in a family as its file gives it, to be read after the file's name; None for nothing."""
    if not isinstance(family, Family):
        return f"holds a {type(family).__name__} as FAMILY, expected a Family"
    if not isinstance(family.configs, (tuple, dict)) or not family.configs:
        return 'names no configs, expected a tuple such as ("Flux",)'
    if not family.targets.get("default"):
        return 'has no targets of the name "default"'
    unknown = set(family.predictions) - {"epsilon", "v", "flow"}
    if unknown or not family.predictions:
        return f"has predictions {family.predictions!r}, expected a tuple of epsilon, v and flow"
    if family.diffusers and family.diffusers.prefix not in ("transformer", "diffusion_model"):
        return f"has the prefix {family.diffusers.prefix!r} for diffusers, expected transformer or diffusion_model"
    patterns = (*family.targets.values(), *(b.path for b in family.blocks), family.text_layer, family.pooled_layer)
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            return f"has {pattern!r}, which is no regular expression ({error})"
    parts = {part for blocks in family.blocks for part in blocks.order} - set(PARTS)
    return f"has blocks in whose order is {', '.join(sorted(parts))}, expected {', '.join(PARTS)}" if parts else None


def attention_and_mlp(attention: str, mlp: str) -> dict[str, str]:
    """The presets of targets that every transformer has, from the patterns of its attention and its feed-forward."""
    both = f"{attention}|{mlp}"
    return {"default": both, "attention": attention, "attention and mlp": both, "all": r".*"}


@dataclass(frozen=True)
class Resolved:
    """Settings in which every "default of the family" has been replaced by its value.

    `plain_rate` is the learning rate of a plain LoRA beside these adapters, whose usual one may be another.
    """

    loss: LossSettings
    adapter: AdapterSettings
    optimizer: OptimizerSettings
    train: TrainSettings
    plain_rate: float


def with_defaults(
    family: Family,
    *,
    loss: LossSettings,
    adapter: AdapterSettings,
    optimizer: OptimizerSettings,
    train: TrainSettings,
    goal: Goal = UNDECIDED,
) -> Resolved:
    """The settings with the family's defaults, as the goal has them, where the user left zero or "default".

    Raises:
        ConfigError: If `targets` is no preset of the family.
    """
    d = family.defaults
    if adapter.targets not in family.targets:
        known = ", ".join(family.targets)
        raise ConfigError(f"targets: {family.title} has {known}; got {adapter.targets!r}. Choose one of these.")
    rank = adapter.rank or d.rank * goal.rank
    alpha = adapter.alpha or (d.alpha * goal.rank if not adapter.rank else float(rank))
    # Prodigy's rate is a factor on the step size that it finds: the family's would all but stop it.
    prodigy = optimizer.optimizer == "prodigy"
    plain_rate = optimizer.learning_rate or (1.0 if prodigy else d.learning_rate)
    own_scale = 1.0 if prodigy or optimizer.learning_rate else USUAL_RATES.get(adapter.algorithm, 1.0)
    length = train.steps if train.steps or train.epochs else round(d.steps * goal.length)
    guidance = d.guidance if train.guidance == FAMILY_GUIDANCE else train.guidance
    return Resolved(
        loss=_with_noise_levels(loss, d),
        adapter=dataclasses.replace(adapter, rank=rank, alpha=alpha),
        optimizer=dataclasses.replace(optimizer, learning_rate=plain_rate * own_scale),
        train=dataclasses.replace(train, steps=length, guidance=guidance),
        plain_rate=plain_rate,
    )


def _with_noise_levels(loss: LossSettings, defaults: Defaults) -> LossSettings:
    """The family's noise levels where their sampling is "default"; a number that the user changed stays."""
    if loss.timestep_sampling != "default":
        return loss
    usual = LossSettings()
    names = ("timestep_mean", "timestep_std", "timestep_shift", "timestep_min", "timestep_max")
    own = {name: getattr(defaults, name) for name in names if getattr(loss, name) == getattr(usual, name)}
    return dataclasses.replace(loss, timestep_sampling=defaults.timestep_sampling, **own)
