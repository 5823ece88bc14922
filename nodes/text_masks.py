"""The node that makes masks of what words name, with ComfyUI's SAM 3."""

from comfy_api.latest import io

from ..masklora.generators.clips import parse_key_frames
from ..masklora.host.finders.sam3 import TextMasks as TextSearch
from ..masklora.host.finders.sam3 import TextSettings
from ..masklora.host.finders.tracking import tracked
from ..masklora.host.page.progress import NodeProgress
from .generating import Request, generator_schema
from .types import number, text

D = TextSettings()


class TextMasks(io.ComfyNode):
    """Text to masks."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return generator_schema(
            "MLT_TextMasks",
            "Text Masks",
            "Masks of what you name, found by SAM 3. Load its checkpoint with Load Checkpoint.",
            visible=cls._visible(),
            hidden=[
                number(
                    D,
                    "instances",
                    "How many findings of each phrase count at most, the surest first; 0 = all, up to 200.",
                    step=1,
                ),
                number(
                    D,
                    "refine",
                    "How often the outline of each finding is refined, 0 to 5. Each time takes about as long "
                    "as the search.",
                    step=1,
                ),
                text(
                    D,
                    "key_frames",
                    'Frames of a clip that are searched, counted from 0, such as "0, 40"; what is found is followed '
                    "through the others, backwards and forwards. Those that a clip does not have are passed over.",
                ),
            ],
            search_aliases=["sam3", "segment anything", "text prompt", "phrase", "open vocabulary"],
        )

    @staticmethod
    def _visible():
        return [
            io.Model.Input("model", tooltip="MODEL of a SAM 3 checkpoint, from Load Checkpoint."),
            io.Clip.Input("clip", tooltip="CLIP of the same SAM 3 checkpoint."),
            text(
                D,
                "phrases",
                "What to find, one short phrase per line, exactly as typed; all findings together make "
                "the mask. A comma does not separate phrases.",
                multiline=True,
                placeholder="what to learn, one phrase per line:\ncat\nred scarf",
            ),
            text(
                D,
                "exclude",
                "What to take out of the mask again, one phrase per line. Empty = nothing.",
                multiline=True,
                placeholder="what to leave out, one phrase per line",
            ),
            number(D, "threshold", "How sure a finding must be, 0 to 1. Lower finds more and errs more."),
        ]

    @classmethod
    def execute(cls, **lists):
        """Every input arrives as a list; the models are used for this run and unloaded after it."""
        request = Request.read(lists)
        model, clip = request.widgets.pop("model", None), request.widgets.pop("clip", None)
        settings = TextSettings(**request.widgets)
        search = TextSearch(model, clip, settings, check_cancel=NodeProgress().check_cancel)
        way = tracked(model, parse_key_frames(settings.key_frames))
        return request.run(cls, search, label="Text masks", way=way, close=search.close)
