"""The pack's nodes, one file per stage of a workflow."""

from comfy_api.latest import ComfyExtension

from .cache import CacheDataset
from .dataset import DatasetFromImages, LoadDataset, MergeDatasets
from .inspect import InspectDataset
from .loss import MaskedLoss
from .masks import RefineMask, TransformMasks
from .settings import Adapter, Optimizer

NODES = [
    LoadDataset,
    DatasetFromImages,
    MergeDatasets,
    TransformMasks,
    RefineMask,
    InspectDataset,
    CacheDataset,
    MaskedLoss,
    Adapter,
    Optimizer,
]


class MaskedLoraExtension(ComfyExtension):
    """What ComfyUI asks for the nodes."""

    async def get_node_list(self):
        """Every node class, in the order of a workflow."""
        return NODES
