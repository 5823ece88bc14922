"""What all mask generator nodes share: sockets, how masks join, previews, report."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from comfy_api.latest import io, ui

from ..masklora.dataset.loading import from_images
from ..masklora.dataset.sample import Dataset, fit_mask, load_mask, told_kinds
from ..masklora.errors import ConfigError
from ..masklora.findings import note, warning, warnings_of
from ..masklora.generators.apply import GenerateSettings, Watch, generate
from ..masklora.generators.clips import ClipWay
from ..masklora.generators.finding import Maker
from ..masklora.host.page.progress import NodeProgress
from ..masklora.host.page.telling import tell
from ..masklora.viewing.inspection import inspect
from ..masklora.viewing.sheet import dataset_sheet
from .dataset import picture_arrays
from .types import MASK_CATEGORY, MLT_DATASET, advanced, choice

D = GenerateSettings()
SHOWN = 24
MASKS_OF_A_DATASET = 16
LINES = 200


def generator_schema(node_id, display_name, description, *, visible, hidden=(), search_aliases=()):
    """The schema of a generator node: its own inputs between the shared sockets and the shared options."""
    return io.Schema(
        node_id=node_id,
        display_name=f"{display_name} (masked LoRA)",
        category=MASK_CATEGORY,
        description=description,
        search_aliases=["mask generator", *search_aliases],
        is_input_list=True,
        inputs=[*_sockets(), *visible, *advanced([*_options(), *hidden])],
        outputs=[
            MLT_DATASET.Output("dataset", tooltip="The pictures with their new masks, kept in memory."),
            io.Mask.Output(
                "masks",
                is_output_list=True,
                tooltip="One mask batch per batch of images, B×H×W in 0 to 1; 1 = learn. Of a dataset, "
                f"the masks of its first {MASKS_OF_A_DATASET} pictures, of a clip that of its first frame.",
            ),
            io.Image.Output(
                "sheet",
                tooltip=f"The first {SHOWN} pictures, 1×H×W×3; what is ignored is tinted.",
            ),
            io.String.Output("report", tooltip="What was found in each picture. Plain text."),
        ],
    )


def _sockets():
    return [
        MLT_DATASET.Input("dataset", optional=True, tooltip="Dataset that gets masks. Or connect images."),
        io.Image.Input(
            "images",
            optional=True,
            tooltip="Pictures that get masks, single, as a batch or as a list. Or connect a dataset.",
        ),
    ]


def _options():
    return [
        io.Mask.Input(
            "mask",
            tooltip="The masks that the images have already: none, one for all, or one per picture. Those "
            "of a dataset come with it.",
        ),
        choice(
            D,
            "combine",
            "How a new mask joins the one that is there: only where there is none, instead of it, both "
            "together, where both are white, or the old one without the new.",
        ),
        choice(
            D,
            "nothing_found",
            "What a picture gets in which nothing is found: an error that names it, a white mask (learn "
            "all), a black mask (learn nothing), or skip: leave it out of the dataset.",
        ),
    ]


@dataclass
class Request:
    """What one run of a generator node was asked for."""

    dataset: Dataset
    batches: list | None
    settings: GenerateSettings
    widgets: dict

    @classmethod
    def read(cls, lists, *, seed=0):
        """The request in the lists of an `is_input_list` node; `widgets` holds what is the node's own.

        Raises `ConfigError` unless exactly one of dataset and images is connected.
        """
        datasets, images, masks = (_given(lists.pop(name, None)) for name in ("dataset", "images", "mask"))
        widgets = {name: values[0] for name, values in lists.items() if values}
        shared = {name: widgets.pop(name) for name in ("combine", "nothing_found") if name in widgets}
        settings = GenerateSettings(**shared, seed=widgets.get("seed", seed))
        if bool(datasets) == bool(images) or len(datasets) > 1:
            got = "both" if datasets and images else f"{len(datasets)} datasets" if datasets else "neither"
            raise ConfigError(f"dataset, images: expected one of the two to be connected, got {got}.")
        if datasets and masks:
            raise ConfigError("mask: a dataset brings its own masks. Unplug mask, or connect images instead.")
        if datasets:
            return cls(datasets[0], None, settings, widgets)
        if settings.nothing_found == "skip":
            raise ConfigError(
                "nothing_found: skip leaves pictures out of a dataset; with images choose error, white or black."
            )
        dataset = from_images(picture_arrays(images, frame_dims=3), picture_arrays(masks, frame_dims=2))
        return cls(dataset, images, settings, widgets)

    def run(
        self,
        cls,
        make: Maker,
        *,
        label: str,
        way: ClipWay | None = None,
        close: Callable[[], None] = lambda: None,
    ):
        """The node's output; `close`, which frees the model, is called however the run ends."""
        progress = NodeProgress()
        watch = Watch(progress, progress.check_cancel, progress.show)
        try:
            dataset, lines = generate(self.dataset, make, self.settings, label=label, watch=watch, way=way)
        finally:
            close()
        said = [_counted(dataset.report.notes[-1], lines), *lines[:LINES]]
        if len(lines) > LINES:
            said.append(note(f"… and what became of more: {told_kinds(self.dataset.samples[LINES:])}."))
        text = "\n".join(one.text for one in said)
        progress.status(said[0].text)
        rgb = _sheet(dataset, progress)
        progress.show(rgb, last=True)
        sheet = torch.from_numpy(rgb).float().div_(255)[None]
        shown = ui.PreviewImage(sheet, cls=cls).as_dict() | tell(_shown(said), text=text)
        return io.NodeOutput(dataset, self._masks(dataset), sheet, text, ui=shown)

    def _masks(self, dataset):
        """The masks as core's sockets carry them, batched as the images came."""
        if self.batches is None:
            return [_tensor(sample)[None] for sample in dataset.samples[:MASKS_OF_A_DATASET]]
        masks, waiting = [], iter(dataset.samples)
        for batch in self.batches:
            count = 1 if batch.ndim == 3 else batch.shape[0]
            made = [_tensor(next(waiting)) for _ in range(count)]
            masks.append(torch.stack(made) if made else torch.zeros(0, *batch.shape[1:3]))
        return masks


def _shown(said):
    """What stands on the node: everything of a small set, of a large one the counts and what is amiss."""
    return said if len(said) <= SHOWN else [said[0], *warnings_of(said[1:])]


def _counted(line, lines):
    """The line with the counts; a warning where there is one on a picture."""
    return warning(line) if warnings_of(lines) else note(line)


def _given(values):
    return [value for value in values or [] if value is not None]


def _tensor(sample):
    mask = load_mask(sample)
    width, height = sample.size
    return torch.ones(height, width) if mask is None else torch.from_numpy(fit_mask(mask, sample.size).copy())


def _sheet(dataset, progress):
    shown = dataset.samples[:SHOWN]
    stats = inspect(Dataset(shown), check_cancel=progress.check_cancel).pictures
    return dataset_sheet(shown, stats, check_cancel=progress.check_cancel)
