"""The pack's nodes, one file per stage of a workflow."""

from comfy_api.latest import ComfyExtension

from ..masklora.host.apart.routes import APART_GETS, APART_POSTS
from ..masklora.host.outputs import offer_embeddings
from ..masklora.host.page.routes import register
from .cache import CacheDataset
from .captions import PicturesToCaption, SaveCaptions
from .dataset import DatasetFromImages, LoadDataset, MergeDatasets
from .estimate import EstimateMemory
from .export import ExportLoRA
from .inspect import InspectDataset
from .load_run import LoadRun
from .loss import MaskedLoss
from .mask_generators import ColorMasks, GrabCutMasks, RandomMasks, ShapeMasks
from .masks import RefineMask, TransformMasks
from .samples import SampleRun, Samples
from .save import SaveMasks
from .settings import Adapter, Optimizer
from .subject_masks import SubjectMasks
from .text_encoder import TextEncoder
from .text_masks import TextMasks
from .text_masks_florence import Florence2Sam2Masks
from .train import TrainLoRA

NODES = [
    LoadDataset,
    DatasetFromImages,
    MergeDatasets,
    TransformMasks,
    RefineMask,
    RandomMasks,
    ShapeMasks,
    ColorMasks,
    GrabCutMasks,
    TextMasks,
    Florence2Sam2Masks,
    SubjectMasks,
    SaveMasks,
    PicturesToCaption,
    SaveCaptions,
    InspectDataset,
    CacheDataset,
    MaskedLoss,
    Adapter,
    Optimizer,
    TextEncoder,
    Samples,
    EstimateMemory,
    TrainLoRA,
    LoadRun,
    SampleRun,
    ExportLoRA,
]


class MaskedLoraExtension(ComfyExtension):
    """What ComfyUI asks for the nodes and routes."""

    async def on_load(self):
        """Adds the routes of the page's panels to ComfyUI's server, and lets prompts find words that were learned."""
        register(APART_GETS, APART_POSTS)
        offer_embeddings()

    async def get_node_list(self):
        """Every node class, in the order of a workflow."""
        return NODES
