"""FLUX.2 dev and klein: FLUX.1's blocks, one modulation for all of a kind."""

from .family import Defaults, DiffusersNames, Family, Note, References
from .flux_blocks import FLUX_TARGETS, PLAIN_FLUX_BLOCKS

FAMILY = Family(
    name="flux2",
    title="FLUX.2",
    configs=("Flux2",),
    blocks=PLAIN_FLUX_BLOCKS,
    targets=FLUX_TARGETS,
    architecture="flux-2",
    base_model_version="flux2",
    patch=(1, 1, 1),
    mutates=True,
    text_layer="txt_in",
    references=References(),
    diffusers=DiffusersNames("transformer", preferred=r".*\.(linear_in|linear_out|to_out)"),
    defaults=Defaults(
        learning_rate=1e-4,
        rank=32,
        alpha=32.0,
        steps=2000,
        timestep_sampling="shifted",
        timestep_shift=3.0,
        source="musubi-tuner, docs/flux_2.md (1e-4, rank 32); diffusion-pipe for shift 3; 2000 steps as for FLUX.1",
    ),
    notes=(
        Note(
            "A distilled klein draws in four steps, which training undoes: train the base, whose LoRAs both take.",
            without="guidance_in.in_layer",
        ),
    ),
)
