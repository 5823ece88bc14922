"""AuraFlow and Pony V7: a few double blocks, then single ones; tokens of no text lie in front of the text."""

from dataclasses import replace

from .family import Blocks, Defaults, DiffusersNames, Family, Slot, attention_and_mlp

_DOUBLE = Blocks(
    path=r"double_layers\.\d+",
    image=Slot("x"),
    result=Slot(1),
    order=("text", "image"),
    tails=("mlpX.c_proj", "mlpC.c_proj"),
    gates=(Slot("global_cond"),),
    gate_layers=("modX", "modC"),
)
_SINGLE = replace(_DOUBLE, path=r"single_layers\.\d+", tails=("mlp.c_proj",), gate_layers=("modCX",))
_SINGLE = replace(_SINGLE, image=Slot("cx", joined=True), result=Slot(joined=True))

FAMILY = Family(
    name="auraflow",
    title="AuraFlow",
    configs=("AuraFlow",),
    blocks=(_DOUBLE, _SINGLE),
    targets=attention_and_mlp(r".*\.attn\.w[12][qkvo]", r".*\.mlp[CX]?\.c_(fc1|fc2|proj)"),
    architecture="auraflow-v1",
    base_model_version="auraflow",
    text_layer="cond_seq_linear",
    text_fills=True,
    diffusers=DiffusersNames("transformer"),
    defaults=Defaults(
        learning_rate=4e-5,
        rank=16,
        alpha=16.0,
        steps=2000,
        timestep_sampling="sigmoid",
        source="SimpleTuner's guide for AuraFlow (4e-5, logit-normal timesteps); rank 16 and 2000 steps as for FLUX.1",
    ),
)
