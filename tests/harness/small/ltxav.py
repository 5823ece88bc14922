"""LTX-2, small."""

from unittest import mock

from comfy.text_encoders import llama as language
from comfy.text_encoders import lt
from torch import nn

from .encoder import Encoder, llama
from .small import Small

_WIDTH, _LAYERS = 64, 2


class _Text(lt.LTXAVTEModel):
    """ComfyUI's text encoder of LTX-2, whose sizes beyond the language model's it knows by heart."""

    def __init__(self, device="cpu", dtype=None, model_options=None):
        nn.Module.__init__(self)
        self.dtypes, self.compat_mode, self.text_projection_type = {dtype}, False, "single_linear"
        # ComfyUI takes an encoder's own sizes by this name alone.
        named = {**(model_options or {}), "model_name": "gemma3_12b"}
        with mock.patch.dict(language.GEMMA3_VISION_CONFIG, hidden_size=32, intermediate_size=32, num_hidden_layers=1):
            self.gemma3_12b = lt.Gemma3_12BModel(device=device, dtype=dtype, model_options=named)
        joined = self.gemma3_12b.operations.Linear
        self.text_embedding_projection = joined(_WIDTH * (_LAYERS + 1), _WIDTH, bias=False, dtype=dtype, device=device)


_CONNECTORS = {"connector_attention_head_dim": 32, "connector_num_attention_heads": 2, "connector_num_layers": 1}
SMALL = {
    "ltxav": Small(
        family="ltxav",
        encoder=Encoder(
            "lt", "LTXAVGemmaTokenizer", {"gemma3_12b": llama(_WIDTH, _LAYERS, vocab_size=300)}, model=_Text, words=True
        ),
        text=_WIDTH,
        full_text=3840,
        vae="clip 128",
        keys={
            "adaln_single.emb.timestep_embedder.linear_1.bias": (4096,),
            "audio_adaln_single.linear.weight": (12288, 2048),
            "transformer_blocks.0.attn2.to_k.weight": (4096, 4096),
        },
        config={
            "caption_channels": 64,
            "cross_attention_dim": 128,
            "attention_head_dim": 64,
            "num_attention_heads": 2,
            "audio_cross_attention_dim": 64,
            "audio_attention_head_dim": 32,
            "audio_num_attention_heads": 2,
            "num_layers": 3,
            **_CONNECTORS,
        },
        full={"num_layers": 48, "caption_channels": 3840},
    ),
}
