"""What SD 1.5 and SDXL share, because both are the same U-Net in other sizes."""

from .family import Blocks

_ATTENTION = r".*transformer_blocks\.\d+\.attn[12]\.to_(q|k|v|out\.0)"
_FEED_FORWARD = r".*transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)"
_PROJECTION = r".*\.proj_(in|out)"

UNET_TARGETS = {
    "default": f"{_ATTENTION}|{_FEED_FORWARD}|{_PROJECTION}",
    "attention": _ATTENTION,
    "attention and mlp": f"{_ATTENTION}|{_FEED_FORWARD}",
    "all": r".*",
}
UNET_BLOCKS = (
    Blocks(kind="ResBlock", tails=("out_layers.3", "skip_connection")),
    Blocks(path=r".*transformer_blocks\.\d+", tails=("ff.net.2",)),
)
UNET_TEXT = r".*\.attn2\.to_k"
