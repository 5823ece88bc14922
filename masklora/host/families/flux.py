"""FLUX.1 dev and schnell, Kontext, which is shown references, and Fill, a picture and a mask."""

from .family import Defaults, DiffusersNames, Family, Note, References
from .flux_blocks import FLUX_BLOCKS, FLUX_TARGETS

FAMILY = Family(
    name="flux",
    title="FLUX.1",
    configs=("Flux", "FluxInpaint", "FluxSchnell"),
    blocks=FLUX_BLOCKS,
    targets=FLUX_TARGETS,
    architecture="flux-1-dev",
    base_model_version="flux1",
    mutates=True,
    text_layer="txt_in",
    pooled_layer=r"vector_in\.in_layer",
    text_fills=True,
    references=References(),
    inpainting=("FluxInpaint",),
    diffusers=DiffusersNames("transformer"),
    defaults=Defaults(
        learning_rate=1e-4,
        rank=16,
        alpha=16.0,
        steps=2000,
        timestep_sampling="sigmoid",
        source="ai-toolkit's published FLUX.1 example (rank 16, 1e-4, 2000 steps, sigmoid timesteps)",
    ),
    notes=(
        Note(
            "FLUX.1 schnell is distilled for four steps, which training undoes: train dev, whose LoRAs both take, or "
            "set schnell's training adapter as assistant_lora.",
            without="guidance_in.in_layer",
        ),
    ),
)
