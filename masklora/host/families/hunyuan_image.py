"""HunyuanImage 2.1."""

from .family import Defaults, Family
from .flux_blocks import FLUX_BLOCKS, FLUX_TARGETS, TEXT_REFINER

FAMILY = Family(
    name="hunyuan_image",
    title="HunyuanImage 2.1",
    configs=("HunyuanImage21",),
    blocks=(TEXT_REFINER, *FLUX_BLOCKS),
    targets=FLUX_TARGETS,
    architecture="hunyuan-image-2.1",
    base_model_version="hunyuan_image_2_1",
    patch=(1, 1, 1),
    distilled="time_r_in",
    mutates=True,
    text_layer=r"txt_in\.input_embedder",
    defaults=Defaults(
        learning_rate=1e-4,
        rank=16,
        alpha=16.0,
        steps=2000,
        timestep_sampling="shifted",
        timestep_shift=5.0,
        source="sd-scripts, docs/hunyuan_image_train_network.md (shift 5.0); all else as for FLUX.1",
    ),
)
