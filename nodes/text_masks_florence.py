"""The node that makes masks of what words name, with Florence-2 and SAM 2 from local folders."""

from comfy_api.latest import io

from ..masklora.generators.clips import EACH_FRAME, ClipWay
from ..masklora.generators.florence2 import FLORENCE2
from ..masklora.generators.florence2_sam2 import Florence2Sam2Settings, florence2_sam2_maker
from ..masklora.generators.sam2 import SAM2
from ..masklora.host.finders.model_folders import find_model_folder, model_folders, prepare_device, return_memory
from ..masklora.host.page.progress import NodeProgress
from .generating import Request, generator_schema
from .types import choice, drop_down, number, switch, text

D = Florence2Sam2Settings()


class Florence2Sam2Masks(io.ComfyNode):
    """Text to boxes to masks."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return generator_schema(
            "MLT_Florence2Sam2Masks",
            "Florence-2 + SAM 2 Masks",
            "Masks of what you name: Florence-2 finds boxes, SAM 2 draws what is in them. Runs offline from "
            "model folders; the help page lists their files.",
            visible=cls._visible(),
            hidden=cls._hidden(),
            search_aliases=["florence2", "sam2", "segment anything", "text prompt", "phrase", "grounding"],
        )

    @staticmethod
    def _visible():
        return [
            _folder(FLORENCE2, "Folder below models/florence2 with a Florence-2 model in transformers' layout."),
            _folder(SAM2, "Folder below models/sam2 with a SAM 2 or 2.1 model in transformers' layout."),
            text(
                D,
                "phrases",
                "What to learn, one short phrase per line; all findings are united. A comma does not separate phrases.",
                multiline=True,
            ),
            number(
                D,
                "dilation",
                "Grow the mask by this many picture pixels, round; negative shrinks. −512 to 512.",
                step=1,
            ),
            number(
                D,
                "feather",
                "Soften the edge after that: Gaussian σ in picture pixels, 0 to 256.",
                step=0.5,
            ),
            switch(D, "invert", "Learn everything but what was found. Done last. White = learn."),
        ]

    @staticmethod
    def _hidden():
        return [
            text(
                D,
                "exclude",
                "What to take out of the grown mask again, one phrase per line. Empty = nothing.",
                multiline=True,
            ),
            choice(
                D,
                "task",
                "open vocabulary: boxes of the phrase as a whole. phrase grounding: boxes of everything that "
                "the phrase mentions.",
            ),
            number(
                D,
                "max_boxes",
                "Boxes of each phrase that count at most, the largest first; 0 = all, up to 1000.",
                step=1,
            ),
            switch(D, "fill_holes", "Fill holes that the united mask encloses completely, before it grows."),
            choice(
                D,
                "precision",
                "Numbers that the models compute with. float32 is exact and needs about 4 GB for the large "
                "models; the others need half and place boxes and edges less exactly.",
            ),
        ]

    @classmethod
    def validate_inputs(cls, florence2=None, sam2=None):
        """Leaves a missing model to `execute`, whose message tells which files go where."""
        return True

    @classmethod
    def execute(cls, **lists):
        """Every input arrives as a list; the models are loaded for this run and freed after it."""
        request = Request.read(lists)
        florence2, sam2 = (find_model_folder(kind, request.widgets.pop(kind.folder)) for kind in (FLORENCE2, SAM2))
        maker = florence2_sam2_maker(
            Florence2Sam2Settings(**request.widgets),
            florence2=florence2,
            sam2=sam2,
            device=prepare_device([florence2, sam2]),
            check_cancel=NodeProgress().check_cancel,
        )

        def close():
            maker.close()
            return_memory()

        return request.run(cls, maker, label="Florence-2 + SAM 2", way=ClipWay(EACH_FRAME), close=close)


def _folder(kind, tooltip):
    names = list(model_folders(kind)) or [f"put a model into models/{kind.folder}"]
    return drop_down(kind.folder, names, names[0], f"{tooltip} You download it yourself; see the help page.")
