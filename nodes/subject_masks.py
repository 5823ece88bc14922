"""The node that makes masks of the subject with ComfyUI's background-removal model."""

from comfy_api.latest import io

from ..masklora.generators.clips import EACH_FRAME, ClipWay
from ..masklora.host.finders.subject import SubjectMasks as SubjectFinder
from ..masklora.host.finders.subject import SubjectSettings
from .generating import Request, generator_schema
from .types import number, switch

D = SubjectSettings()


class SubjectMasks(io.ComfyNode):
    """The subject's masks."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return generator_schema(
            "MLT_SubjectMasks",
            "Subject Masks",
            "Masks of each picture's subject, found by a background removal model (BiRefNet).",
            visible=[
                io.BackgroundRemoval.Input("model", tooltip="Model of Load Background Removal Model."),
                number(
                    D,
                    "threshold",
                    "0 = keep the soft edge as grey weights. Above 0: learn pixels that are surer than this, "
                    "ignore all others.",
                ),
                switch(
                    D,
                    "largest_only",
                    "Keep only the largest connected part of the subject.",
                ),
            ],
            search_aliases=["birefnet", "background removal", "rembg", "foreground", "cut out"],
        )

    @classmethod
    def execute(cls, **lists):
        """Every input arrives as a list; the model is used for this run and unloaded after it."""
        request = Request.read(lists)
        finder = SubjectFinder(request.widgets.pop("model", None), SubjectSettings(**request.widgets))
        return request.run(cls, finder, label="Subject masks", way=ClipWay(EACH_FRAME), close=finder.close)
