"""LoRA targets that SD 1.5 and SDXL share, because both are the same U-Net in other sizes."""

_ATTENTION = r".*transformer_blocks\.\d+\.attn[12]\.to_(q|k|v|out\.0)"
_FEED_FORWARD = r".*transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)"
_PROJECTION = r".*\.proj_(in|out)"

UNET_TARGETS = {
    "default": f"{_ATTENTION}|{_FEED_FORWARD}|{_PROJECTION}",
    "attention": _ATTENTION,
    "attention and mlp": f"{_ATTENTION}|{_FEED_FORWARD}",
    "all": r".*",
}
UNET_BLOCKS = ("ResBlock", "BasicTransformerBlock")
UNET_TAILS = {"ResBlock": ("out_layers.3", "skip_connection"), "BasicTransformerBlock": ("ff.net.2",)}
