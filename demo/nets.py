"""The demo's two networks in plain torch, with the tensor names of the layouts ComfyUI recognises.

`SceneCodec` is a narrow autoencoder that `layout_tensors` pads with zeros into the 16-channel TAESD
layout. `SceneDiT` is a small diffusion transformer in the layout of SD 3. Training uses these; painting
and LoRA training use ComfyUI's own classes on the same tensors.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LATENT_CHANNELS = 16
LAYOUT_WIDTH = 64
POSITION_GRID = 32
# SD 3's fixed latent scaling: with these in the file the diffusion model sees unit-variance latents.
LATENT_SCALE, LATENT_SHIFT = 1.5305, 0.0609


class ResidualBlock(nn.Module):
    """Three 3×3 convolutions around a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(3):
            layers += [nn.Conv2d(width, width, 3, padding=1)] + ([nn.ReLU()] if i < 2 else [])
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


class Passing(nn.Module):
    """Stands where the layout has a block that this net leaves out: a block of zeros is a ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class SoftClamp(nn.Module):
    """3·tanh(x/3), as the layout's decoder begins."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def _blocks(width: int, count: int, places: int) -> list[nn.Module]:
    return [ResidualBlock(width) if i < count else Passing() for i in range(places)]


class SceneCodec(nn.Module):
    """Pictures in [0, 1] to (B, 16, H/8, W/8) latents of unit variance, and back.

    The batch normalisation between the halves keeps every latent channel at zero mean and unit variance while
    training; `layout_tensors` folds it into the last encoder convolution.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (16, 32, 48, 64)) -> None:
        super().__init__()
        a, b, c, d = widths
        down = [(a, b), (b, c), (c, d)]
        self.taesd_encoder = nn.Sequential(
            nn.Conv2d(3, a, 3, padding=1), *_blocks(a, 0, 1),
            nn.Conv2d(*down[0], 3, stride=2, padding=1, bias=False), *_blocks(b, 1, 3),
            nn.Conv2d(*down[1], 3, stride=2, padding=1, bias=False), *_blocks(c, 1, 3),
            nn.Conv2d(*down[2], 3, stride=2, padding=1, bias=False), *_blocks(d, 1, 3),
            nn.Conv2d(d, LATENT_CHANNELS, 3, padding=1),
        )  # fmt: skip
        self.whiten = nn.BatchNorm2d(LATENT_CHANNELS, affine=False, momentum=0.02)
        self.taesd_decoder = nn.Sequential(
            SoftClamp(), nn.Conv2d(LATENT_CHANNELS, d, 3, padding=1), nn.ReLU(), *_blocks(d, 2, 3),
            nn.Upsample(scale_factor=2), nn.Conv2d(d, c, 3, padding=1, bias=False), *_blocks(c, 1, 3),
            nn.Upsample(scale_factor=2), nn.Conv2d(c, b, 3, padding=1, bias=False), *_blocks(b, 1, 3),
            nn.Upsample(scale_factor=2), nn.Conv2d(b, a, 3, padding=1, bias=False), *_blocks(a, 0, 1),
            nn.Conv2d(a, 3, 3, padding=1),
        )  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                nn.init.normal_(module.conv[4].weight, std=0.01)

    def encode(self, pictures: Tensor) -> Tensor:
        return self.whiten(self.taesd_encoder(pictures))

    def decode(self, latents: Tensor) -> Tensor:
        return self.taesd_decoder(latents)

    def layout_tensors(self) -> dict[str, Tensor]:
        """The tensors of the full TAESD layout, float32: ours in the low channels, zeros elsewhere."""
        tensors = {}
        for half, first, last in (("taesd_encoder", 0, 14), ("taesd_decoder", 1, 19)):
            for index, module in enumerate(getattr(self, half)):
                stem = f"{half}.{index}."
                tensors |= _padded(module, stem, first=index == first, last=index == last)
        deviation = (self.whiten.running_var + self.whiten.eps).sqrt()
        last = "taesd_encoder.14."
        tensors[last + "weight"] /= deviation[:, None, None, None]
        tensors[last + "bias"] = (tensors[last + "bias"] - self.whiten.running_mean) / deviation
        tensors["vae_scale"] = torch.tensor(LATENT_SCALE)
        tensors["vae_shift"] = torch.tensor(LATENT_SHIFT)
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _padded(module: nn.Module, stem: str, *, first: bool, last: bool) -> dict[str, Tensor]:
    """One module's tensors grown to 64 channels; the picture and latent ends keep their own counts."""
    if isinstance(module, nn.Conv2d):
        rows = module.out_channels if last else LAYOUT_WIDTH
        columns = module.in_channels if first else LAYOUT_WIDTH
        weight = torch.zeros(rows, columns, 3, 3)
        weight[: module.out_channels, : module.in_channels] = module.weight.detach()
        tensors = {stem + "weight": weight}
        if module.bias is not None:
            tensors[stem + "bias"] = F.pad(module.bias.detach(), (0, rows - module.out_channels))
        return tensors
    tensors = {}
    if isinstance(module, ResidualBlock | Passing):
        for i in (0, 2, 4):
            part = module.conv[i] if isinstance(module, ResidualBlock) else _silent_convolution()
            tensors |= _padded(part, f"{stem}conv.{i}.", first=False, last=False)
    return tensors


def _silent_convolution() -> nn.Conv2d:
    part = nn.Conv2d(1, 1, 3)
    nn.init.zeros_(part.weight)
    nn.init.zeros_(part.bias)
    return part


def timestep_features(t: Tensor, width: int = 256) -> Tensor:
    """(B, width) cosines and sines of t in 0..1000, periods from 2π to 2π·10 000."""
    rates = torch.exp(-math.log(10000) * torch.arange(width // 2) / (width // 2))
    angles = t[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], 1)


def _unit_rms(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, weight.shape, weight.to(x.dtype), 1e-6)


class Attention(nn.Module):
    """The projections of one stream; the attention itself joins both streams."""

    def __init__(self, width: int, *, project: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.ln_q, self.ln_k = nn.RMSNorm(64, eps=1e-6), nn.RMSNorm(64, eps=1e-6)
        if project:
            self.proj = nn.Linear(width, width)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, 64)).unbind(2)
        return _unit_rms(q, self.ln_q.weight), _unit_rms(k, self.ln_k.weight), v


class Mlp(nn.Module):
    """Linear, tanh-GELU, linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    normed = F.layer_norm(x, x.shape[-1:], eps=1e-6)
    return torch.addcmul(shift[:, None], normed, 1 + scale[:, None])


class StreamBlock(nn.Module):
    """One stream's half of a joint block; the last text half only feeds the attention."""

    def __init__(self, width: int, *, feeds_only: bool) -> None:
        super().__init__()
        self.feeds_only = feeds_only
        self.attn = Attention(width, project=not feeds_only)
        if not feeds_only:
            self.mlp = Mlp(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, (2 if feeds_only else 6) * width))

    def before(self, x: Tensor, c: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, ...]]:
        parts = self.adaLN_modulation(c).chunk(2 if self.feeds_only else 6, 1)
        return self.attn.heads(_modulate(x, parts[0], parts[1])), parts[2:]

    def after(self, x: Tensor, attended: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
        gate, shift, scale, gate_mlp = parts
        x = x + gate[:, None] * self.attn.proj(attended)
        return x + gate_mlp[:, None] * self.mlp(_modulate(x, shift, scale))


class JointBlock(nn.Module):
    """Text and picture tokens attend to each other, then go through their own MLPs."""

    def __init__(self, width: int, *, last: bool) -> None:
        super().__init__()
        self.context_block = StreamBlock(width, feeds_only=last)
        self.x_block = StreamBlock(width, feeds_only=False)

    def forward(self, text: Tensor, x: Tensor, c: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        text_heads, text_parts = self.context_block.before(text, c)
        x_heads, x_parts = self.x_block.before(x, c)
        q, k, v = (torch.cat(pair, 1).transpose(1, 2) for pair in zip(text_heads, x_heads, strict=True))
        logits = q @ (k * 64**-0.5).transpose(2, 3)
        if bias is not None:
            logits = logits + bias.to(q.dtype)
        attended = (logits.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)
        words = text.shape[1]
        if not self.context_block.feeds_only:
            text = self.context_block.after(text, attended[:, :words], text_parts)
        return text, self.x_block.after(x, attended[:, words:], x_parts)


class SceneDiT(nn.Module):
    """The flow velocity (noise − picture) of latents (B, 16, 16, 16) at t in 0..1000, text (B, L, 768).

    `text_bias` (L,) is added to the attention logits of the text tokens: log(n) on the last lets one
    padding token stand for n identical ones, exactly, which is five times cheaper than all 77.
    """

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        depth = width // 64
        self.width, self.grid = width, 8
        self.x_embedder = nn.Module()
        self.x_embedder.proj = nn.Conv2d(LATENT_CHANNELS, width, 2, stride=2)
        self.t_embedder = nn.Module()
        self.t_embedder.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.context_embedder = nn.Linear(768, width)
        self.position = nn.Parameter(0.3 * wave_positions(self.grid, width))
        self.joint_blocks = nn.ModuleList(JointBlock(width, last=i == depth - 1) for i in range(depth))
        self.final_layer = nn.Module()
        self.final_layer.linear = nn.Linear(width, 4 * LATENT_CHANNELS)
        self.final_layer.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        for name, parameter in self.named_parameters():
            if "adaLN_modulation" in name or name.startswith("final_layer.linear"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, text: Tensor, text_bias: Tensor | None = None) -> Tensor:
        tokens = self.x_embedder.proj(x).flatten(2).transpose(1, 2) + self.position
        c = self.t_embedder.mlp(timestep_features(t))
        words = self.context_embedder(text)
        bias = None if text_bias is None else F.pad(text_bias, (0, tokens.shape[1]))[None, None, None]
        for block in self.joint_blocks:
            words, tokens = block(words, tokens, c, bias)
        shift, scale = self.final_layer.adaLN_modulation(c).chunk(2, 1)
        patches = self.final_layer.linear(_modulate(tokens, shift, scale))
        patches = patches.unflatten(1, (self.grid, self.grid)).unflatten(-1, (2, 2, LATENT_CHANNELS))
        return torch.einsum("bhwpqc->bchpwq", patches).flatten(4).flatten(2, 3)

    def layout_tensors(self) -> dict[str, Tensor]:
        """The tensors under SD 3's names, float32, with 4096 text columns and a 32×32 position table."""
        tensors = {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}
        table = 0.3 * wave_positions(POSITION_GRID, self.width).reshape(POSITION_GRID, POSITION_GRID, self.width)
        start = (POSITION_GRID - self.grid) // 2
        centre = slice(start, start + self.grid)
        table[centre, centre] = tensors.pop("position").reshape(self.grid, self.grid, self.width)
        tensors["pos_embed"] = table.reshape(1, POSITION_GRID**2, self.width)
        columns = tensors["context_embedder.weight"]
        tensors["context_embedder.weight"] = F.pad(columns, (0, 4096 - columns.shape[1]))
        return tensors


def wave_positions(grid: int, width: int) -> Tensor:
    """(1, grid², width) cosines and sines of the row and column."""
    rates = torch.exp(-math.log(10000) * torch.arange(width // 4) / (width // 4))
    angles = (torch.arange(grid)[:, None] - grid / 2) * rates
    line = torch.cat([angles.sin(), angles.cos()], 1)
    rows = line[:, None].expand(grid, grid, -1)
    columns = line[None].expand(grid, grid, -1)
    return torch.cat([rows, columns], -1).reshape(1, grid * grid, width)
