"""HunyuanVideo 1.5: HunyuanVideo's double blocks alone; a picture is a clip of one frame."""

from .family import ALONE, Defaults, Family, attention_and_mlp
from .flux_blocks import DOUBLE_ATTENTION, DOUBLE_MLP, FLUX_BLOCKS, TEXT_REFINER

FAMILY = Family(
    name="hunyuan_video15",
    title="HunyuanVideo 1.5",
    configs={"HunyuanVideo15": 24.0},
    blocks=(TEXT_REFINER, FLUX_BLOCKS[0]),
    targets=attention_and_mlp(DOUBLE_ATTENTION, DOUBLE_MLP),
    architecture="hunyuan-video-1.5",
    base_model_version="hunyuan_video_1_5",
    patch=(1, 1, 1),
    distilled="time_r_in",
    mutates=True,
    text_layer=r"txt_in\.input_embedder",
    first_frame={"HunyuanVideo15": ALONE},
    defaults=Defaults(
        learning_rate=1e-4,
        rank=32,
        alpha=32.0,
        steps=2000,
        timestep_sampling="shifted",
        timestep_shift=2.0,
        source="musubi-tuner, docs/hunyuan_video_1_5.md (1e-4, rank 32, shift 2.0); 2000 steps as for Wan",
    ),
)
