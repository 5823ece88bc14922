"""Which families have a diffusers format, asked of each, and that every text of it names just these."""

import re
from pathlib import Path

import pytest

from harness.models import small_model
from masklora.adapters import to_diffusers
from masklora.errors import AdapterError
from masklora.host.families import families
from masklora.host.model.layer_names import layer_names
from masklora.host.model.trainable import TrainableModel
from masklora.settings import AdapterSettings

ROOT = Path(__file__).resolve().parents[3]
# What stands before the list of families in each text.
TEXTS = {
    "locales/en/nodeDefs.json": "diffusers names ComfyUI knows: ",
    "locales/fr/nodeDefs.json": "ComfyUI connaît les noms diffusers : ",
    "web/docs/MLT_ExportLoRA.md": "diffusers names ComfyUI knows: ",
    "docs/node-reference.md": "diffusers names ComfyUI knows: ",
}


def has_diffusers_format(family):
    """Whether the layers that a training of the family adapts by default can be written under diffusers' names."""
    trainable = TrainableModel(small_model(family.name))
    factors = trainable.make_adapters(AdapterSettings(rank=1, alpha=1.0), seed=0).factors()
    names = layer_names(trainable.model, paths=list(factors), kohya_as_diffusers=family.kohya_as_diffusers)
    try:
        return bool(to_diffusers(factors, names=names.diffusers, prefix="transformer"))
    except AdapterError:
        return False


@pytest.fixture(scope="module")
def offered():
    return sorted(family.title for family in families() if has_diffusers_format(family))


@pytest.mark.parametrize("file", TEXTS)
def test_every_text_of_the_diffusers_format_names_the_families_that_have_it(offered, file):
    text = " ".join((ROOT / file).read_text(encoding="utf-8").split())
    # A list ends with a full stop; those in names, such as FLUX.1, are followed by a digit.
    (named,) = re.findall(re.escape(TEXTS[file]) + r"(.+?)\.(?!\d)", text)
    assert named.split(", ") == offered
