"""ComfyUI's SAM 3 and BiRefNet networks at a thousandth of their size, made of its own parts.

A file may carry a switch that lets a network answer by rule instead of by its random weights, so that what
must be found is known: SAM 3 then finds "red", "green" and "blue" things, no "nothing", and for every other
phrase what has none of the colours of the picture's rim, which is also BiRefNet's subject.
"""

import comfy.background_removal.birefnet as birefnet
import comfy.bg_removal_model
import comfy.ldm.sam3.detector as sam3
import comfy.ldm.sam3.tracker as sam3_tracker
import comfy.sd1_clip as sd1_text
import comfy.sdxl_clip as sdxl_text
import comfy.supported_models
import comfy.text_encoders.flux as flux_text
import comfy.text_encoders.sam3_clip as sam3_text
import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

WORDS = ("red", "green", "blue", "nothing")
TEXT_WIDTH = 64
PATCH = 56
SAM3_SIZES = {
    "embed_dim": TEXT_WIDTH,
    "depth": 1,
    "d_model": 64,
    "mem_dim": 64,
    "num_multiplex": 2,
    "patch_size": PATCH,
    "global_att_blocks": (),
    "window_size": 6,
    "num_queries": 12,
}
TEXT_SIZES = {
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 1,
}
# Sizes of the encoders of FLUX.1 and Stable Diffusion 3, as ComfyUI's text encoders take them.
_SMALL_CLIP = {"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 64}
SMALL_TEXT = {
    "clip_l_model_config": _SMALL_CLIP,
    "clip_g_model_config": _SMALL_CLIP,
    "t5xxl_model_config": {"d_model": 64, "d_ff": 128, "d_kv": 16, "num_heads": 2, "num_layers": 2},
}
# The U-Nets read texts of a fixed width, so only the depth of their encoders can be small.
_FLAT = {"num_attention_heads": 2, "num_hidden_layers": 3, "intermediate_size": 16}
UNET_TEXT = {
    "clip_l_model_config": {**_FLAT, "hidden_size": 768},
    "clip_g_model_config": {**_FLAT, "hidden_size": 1280},
}
# How deep SDXL's transformers are, in the small one.
SDXL_DEPTH = [0, 0, 1, 1, 1, 1]
_SDXL = {"transformer_depth": SDXL_DEPTH}
SIDE = 1008
RULED_SIDE = 252
SMALLEST_BLOB = 12
RIM_STEP = 4
DIFFERENCE = 0.12
BIREFNET_WIDTH = 8
BIREFNET_SIDE = 64


def replacements():
    """(owner, attribute, value) of everything in ComfyUI that makes the small files load."""
    text = {**sam3_text.SAM3_CLIP_CONFIG, **TEXT_SIZES}
    removers = {**comfy.bg_removal_model.BG_REMOVAL_MODELS, "birefnet": SmallBiRefNet}
    return [
        (comfy.supported_models.SAM3, "unet_extra_config", SAM3_SIZES),
        (sam3_text, "SAM3_CLIP_CONFIG", text),
        (sam3, "SAM3Model", SmallSAM3),
        (comfy.bg_removal_model, "BG_REMOVAL_MODELS", removers),
        (flux_text, "FluxClipModel", SmallFluxText),
        (sd1_text, "SD1ClipModel", SmallSD1Text),
        (sdxl_text, "SDXLClipModel", SmallSDXLText),
        (comfy.supported_models.SDXL, "unet_config", {**comfy.supported_models.SDXL.unet_config, **_SDXL}),
    ]


class SmallFluxText(flux_text.FluxClipModel):
    """The text encoders of FLUX.1 in the sizes of `SMALL_TEXT`."""

    def __init__(self, model_options=None, **options):
        super().__init__(model_options={**(model_options or {}), **SMALL_TEXT}, **options)


class SmallSD1Text(sd1_text.SD1ClipModel):
    """The text encoder of Stable Diffusion 1.5 in the depth of `UNET_TEXT`."""

    def __init__(self, model_options=None, **options):
        super().__init__(model_options={**(model_options or {}), **UNET_TEXT}, **options)


class SmallSDXLText(sdxl_text.SDXLClipModel):
    """The text encoders of SDXL likewise; ComfyUI tells their files apart by the depth of the published ones."""

    def __init__(self, model_options=None, **options):
        super().__init__(model_options={**(model_options or {}), **UNET_TEXT}, **options)

    def load_sd(self, sd):
        """Into the encoder of the file's width."""
        width = sd["text_model.embeddings.token_embedding.weight"].shape[1]
        return (self.clip_g if width == UNET_TEXT["clip_g_model_config"]["hidden_size"] else self.clip_l).load_sd(sd)


class SmallSAM3(sam3.SAM3Model):
    """SAM 3 with patches of 56 pixels; finds by colour where the file holds the encodings of `WORDS`."""

    def __init__(self, **sizes):
        super().__init__(**sizes)
        for part in self.tracker.modules():
            if hasattr(part, "image_embedding_size"):
                part.image_embedding_size = (SIDE // PATCH, SIDE // PATCH)
        self.register_buffer("words", torch.zeros(len(WORDS), TEXT_WIDTH))

    def forward(self, images, **inputs):
        """The network's own answer, or the rule's."""
        if not self.words.any():
            return super().forward(images, **inputs)
        things = find_things(images, self._word(inputs["text_embeddings"]))
        return things_as_detections(things, inputs["orig_size"], images)

    def forward_segment(self, images, mask_inputs=None, **inputs):
        """Refines with the network's weights; by rule a mask is good as it is, and a prompt means what it touches."""
        if not self.words.any():
            return super().forward_segment(images, mask_inputs=mask_inputs, **inputs)
        return things_at(find_things(images, None), images, **inputs) if mask_inputs is None else mask_inputs

    def forward_video(self, images, initial_masks, pbar=None, **options):
        """Tracks with the network's weights; by rule a thing is what has its colour and touches where it was last."""
        if not self.words.any():
            return super().forward_video(images, initial_masks, pbar=pbar, **options)
        last = F.interpolate(initial_masks.float(), (RULED_SIDE, RULED_SIDE), mode="area")[:, 0].cpu().numpy() > 0.5
        kinds, answers = [], []
        for index in range(images.shape[0]):
            frame = sam3_tracker._prep_frame(images, slice(index, index + 1), "cpu", torch.float32, SIDE)
            things = {kind: find_things(frame, kind) > 0 for kind in ("red", "green", "blue", None)}
            kinds = kinds or [max(things, key=lambda kind: likeness(touched(things[kind], old), old)) for old in last]
            seen = [touched(things[kind], old) for kind, old in zip(kinds, last, strict=True)]
            last = [new if new.any() else old for new, old in zip(seen, last, strict=True)]
            full = F.interpolate(torch.from_numpy(np.stack(seen)).float()[None], (SIDE, SIDE))[0]
            answers.append(sam3_tracker.pack_masks(full))
            pbar.update(1)
        return {"packed_masks": torch.stack(answers), "n_frames": len(answers), "scores": [1.0] * len(last)}

    def _word(self, text):
        """The known word that a phrase begins with, else None: the text is causal."""
        same = F.cosine_similarity(self.words.to(text), text[:, 1]) > 0.999
        return WORDS[int(same.nonzero()[0])] if same.any() else None


def find_things(images, word):
    """Masks (n, 252, 252), largest first: blobs of the word's colour, or all that differ from the rim."""
    small = F.interpolate(images.float(), (RULED_SIDE, RULED_SIDE), mode="area")[0]
    if word == "nothing":
        return np.zeros((0, RULED_SIDE, RULED_SIDE), np.float32)
    if word is None:
        wanted = rim_difference(images)[0, 0] > DIFFERENCE
    else:
        others = torch.stack([small[i] for i in range(3) if i != WORDS.index(word)])
        wanted = small[WORDS.index(word)] - others.amax(0) > DIFFERENCE
    blobs, labels, stats, _ = cv2.connectedComponentsWithStats(wanted.cpu().numpy().astype(np.uint8))
    areas = stats[:, cv2.CC_STAT_AREA]
    order = [i for i in np.argsort(-areas[1:]) + 1 if areas[i] >= SMALLEST_BLOB]
    order = order[: SAM3_SIZES["num_queries"]]
    return np.stack([labels == i for i in order]).astype(np.float32) if blobs > 1 and order else _no_things()


def touched(things, mask):
    """The union (252, 252) of the things that share a pixel with the mask."""
    return things[[bool((thing & mask).any()) for thing in things]].any(axis=0)


def likeness(one, other):
    """Overlap of two masks, 0 to 1."""
    return (one & other).sum() / max(1, (one | other).sum())


def things_at(things, images, point_inputs=None, box_inputs=None):
    """Logits (1, 1, 252, 252) of the things that hold a point inside and none outside, or lie within a box."""
    scale = RULED_SIDE / images.shape[-1]
    chosen = np.zeros((RULED_SIDE, RULED_SIDE), np.float32)
    for thing in things:
        if point_inputs is not None:
            places = (point_inputs["point_coords"][0].float() * scale).long().clamp(0, RULED_SIDE - 1).tolist()
            labels = point_inputs["point_labels"][0].tolist()
            touched = [(bool(thing[y, x]), label == 1) for (x, y), label in zip(places, labels, strict=True)]
            wanted = (True, True) in touched and (True, False) not in touched
        else:
            (left, top), (right, bottom) = (box_inputs[0].float() * scale).tolist()
            rows, columns = np.nonzero(thing)
            wanted = left <= columns.mean() <= right and top <= rows.mean() <= bottom
        chosen = np.maximum(chosen, thing * wanted)
    return torch.from_numpy(chosen * 20 - 10)[None, None].to(images)


def _no_things():
    return np.zeros((0, RULED_SIDE, RULED_SIDE), np.float32)


def rim_difference(images):
    """(B, 1, 252, 252): how far each pixel's colour lies from the nearest one on the picture's rim."""
    small = F.interpolate(images.float(), (RULED_SIDE, RULED_SIDE), mode="area")
    rim = torch.cat([small[..., 0, :], small[..., -1, :], small[..., :, 0], small[..., :, -1]], dim=-1)
    distances = torch.cdist(small.flatten(2).mT, rim[..., ::RIM_STEP].mT, p=torch.inf)
    return distances.amin(-1).view(-1, 1, RULED_SIDE, RULED_SIDE)


def things_as_detections(things, size, like):
    """What SAM 3's detector returns for these masks: logits of 4, 3.75, … and unused queries at −12."""
    queries = SAM3_SIZES["num_queries"]
    height, width = size
    masks = torch.full((queries, RULED_SIDE, RULED_SIDE), -10.0)
    scores, boxes = torch.full((queries,), -12.0), torch.zeros(queries, 4)
    for i, thing in enumerate(things):
        x, y, w, h = cv2.boundingRect(thing.astype(np.uint8))
        boxes[i] = torch.tensor([x, y, x + w, y + h]) / RULED_SIDE * torch.tensor([width, height] * 2)
        masks[i], scores[i] = torch.from_numpy(thing * 20 - 10), 4 - 0.25 * i
    masks = F.interpolate(masks[None], size, mode="bilinear", align_corners=False)
    return {"boxes": boxes[None].to(like), "scores": scores[None].to(like), "masks": masks.to(like)}


class SmallBiRefNet(birefnet.BiRefNet):
    """BiRefNet with a Swin of width 8 that looks at 64×64 pixels; `by_rule` above 0 switches the rule on."""

    def __init__(self, config=None, dtype=None, device=None, operations=None):
        nn.Module.__init__(self)
        parts = {"device": device, "dtype": dtype, "operations": operations}
        widths = [BIREFNET_WIDTH * 2**i for i in range(4)]
        self.bb = birefnet.SwinTransformer(
            embed_dim=BIREFNET_WIDTH, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4], window_size=4, **parts
        )
        channels = [width * 2 for width in reversed(widths)]
        self.cxt = channels[1:][::-1][-3:]
        joined = channels[0] + sum(self.cxt)
        self.squeeze_module = nn.Sequential(birefnet.BasicDecBlk(joined, channels[0], **parts))
        self.decoder = birefnet.Decoder(channels, **parts)
        self.register_buffer("by_rule", torch.zeros(1))

    def forward(self, pixel_values, intermediate_output=None):
        """Logits (B, 1, h, w); ComfyUI scales them to the picture."""
        if self.by_rule.any():
            return 60 * (rim_difference(pixel_values) - DIFFERENCE)
        small = F.interpolate(pixel_values, (BIREFNET_SIDE, BIREFNET_SIDE), mode="area")
        return super().forward(small, intermediate_output)
