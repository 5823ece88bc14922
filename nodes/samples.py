"""MLT_Samples and MLT_SampleRun: pictures that show what a LoRA has learned, meanwhile and afterwards."""

import comfy.samplers
from comfy_api.latest import io

from ..masklora.generators.apply import Watch
from ..masklora.host.finders.model_folders import find_model_folder, model_folders
from ..masklora.host.likeness.dinov2 import DINOV2, class_of
from ..masklora.host.page.progress import NodeProgress
from ..masklora.host.page.telling import tell
from ..masklora.host.references.shown import references_for
from ..masklora.host.sampling import encode_prompts
from ..masklora.host.strengths import Wanted, draw_run, drawn_state
from ..masklora.runs.sample_pictures import MOST_STRENGTHS, SIDES, STRENGTHS, SampleSettings, split_prompts
from .load_run import run_drop_down, run_is_there
from .types import MLT_DATASET, MLT_SAMPLES, NO_FILE, TRAIN_CATEGORY, advanced, drop_down, number, seed, text

_D = SampleSettings()
_EXAMPLE = "a photo of my subject on a beach\na photo of my subject at night"


class Samples(io.ComfyNode):
    """Prompts for pictures that show how a training is getting on."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return io.Schema(
            node_id="MLT_Samples",
            display_name="Sample Pictures (masked LoRA)",
            category=TRAIN_CATEGORY,
            description=(
                "Prompts that are drawn before the training, every so many steps and at its end, with the same seed "
                "each time. The training panel shows them beside the base model's. They do not change the training."
            ),
            inputs=[
                *cls._sockets(),
                *cls._visible(),
                *advanced(cls._advanced()),
                *cls._references(),
                *advanced([cls._likeness()]),
            ],
            outputs=[MLT_SAMPLES.Output("samples", tooltip="For the training node.")],
        )

    @staticmethod
    def _sockets():
        return [
            io.Clip.Input("clip", tooltip="The model's text encoder. It runs here, not during the training."),
            io.Vae.Input("vae", tooltip="The model's VAE, which turns latents into pictures."),
        ]

    @staticmethod
    def _visible():
        low, high = SIDES
        return [
            io.String.Input(
                "prompts",
                multiline=True,
                default=_EXAMPLE,
                tooltip="One prompt a line, 1 to 16 lines: one picture each.",
            ),
            number(_D, "width", f"Of the pictures, {low} to {high} px.", step=16),
            number(_D, "height", f"Of the pictures, {low} to {high} px.", step=16),
            seed(_D, "Of every picture: those of one prompt differ only by the weights."),
            number(
                _D,
                "every",
                "Training steps between pictures, 0 (only before and at the end) to 1000000. Drawing takes time.",
            ),
        ]

    @staticmethod
    def _advanced():
        kinds = comfy.samplers.KSampler
        return [
            text(_D, "negative", "What to stay away from; needs a cfg above 1."),
            number(_D, "steps", "Sampling steps of a picture, 1 to 1000.", step=1),
            number(_D, "cfg", "Classifier-free guidance, 0 to 100. 1: none, as FLUX.1 takes it.", step=0.1),
            drop_down("sampler", kinds.SAMPLERS, _D.sampler, "ComfyUI's sampler."),
            drop_down("scheduler", kinds.SCHEDULERS, _D.scheduler, "ComfyUI's scheduler."),
            number(
                _D,
                "guidance",
                "Told to guidance-distilled models, 0 to 100. -1: what ComfyUI tells the model where a graph says "
                "nothing (FLUX.1 dev 3.5, Chroma 0).",
                step=0.1,
            ),
            number(
                _D,
                "frames",
                "Video models: frames of each clip, 1 (a picture) to 257, rounded down to what the VAE takes. Few are "
                "enough to see what moves: 17 take several times as long as a picture.",
            ),
        ]

    @staticmethod
    def _references():
        return [
            io.Image.Input(
                "references",
                optional=True,
                tooltip="For models that edit pictures: N×H×W×3 in 0 to 1, the reference pictures of every prompt.",
            ),
            *advanced(
                [
                    MLT_DATASET.Input(
                        "dataset",
                        tooltip="In place of references: those of the pictures of Load Dataset, one picture after the "
                        "other, or of the one that reference_of names.",
                    ),
                    io.String.Input(
                        "reference_of",
                        default="",
                        tooltip="Name of the picture of dataset whose references every prompt gets. Empty: the first "
                        "prompt gets those of the first picture that has some, and so on.",
                    ),
                ]
            ),
        ]

    @staticmethod
    def _likeness():
        return drop_down(
            "likeness",
            [NO_FILE, *model_folders(DINOV2)],
            NO_FILE,
            "Measure how sample pictures resemble the pictures that are learned, with a DINOv2 model that you put into "
            "a folder below models/dinov2; see the help page. none: not measured.",
        )

    @classmethod
    def validate_inputs(cls, likeness=None):
        """Leaves a missing model to `execute`, whose message tells which files go where."""
        return True

    @classmethod
    def execute(cls, clip, vae, prompts, references=None, dataset=None, reference_of="", likeness=NO_FILE, **widgets):
        """The prompts are encoded now, before the training needs the memory."""
        folder = None if likeness == NO_FILE else find_model_folder(DINOV2, likeness)
        if folder is not None:
            class_of(folder)
        settings = SampleSettings(prompts=split_prompts(prompts), **widgets)
        shown = references_for(len(settings.prompts), given=references, dataset=dataset, name=reference_of)
        return io.NodeOutput(encode_prompts(clip, vae, settings, references=shown, likeness=folder))


class SampleRun(io.ComfyNode):
    """Pictures of a run's checkpoints at several strengths."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return io.Schema(
            node_id="MLT_SampleRun",
            display_name="Sample Run (masked LoRA)",
            category=TRAIN_CATEGORY,
            description=(
                "Draws the sample pictures of a training's kept checkpoints at several strengths, so that step and "
                "strength can be chosen side by side. Pictures that are there are not drawn again."
            ),
            search_aliases=["strength", "compare", "xyz plot"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The model that the run was trained on."),
                MLT_SAMPLES.Input("samples", tooltip="From Sample Pictures: prompts, size and seed."),
                run_drop_down(),
                *cls._places(),
                io.Model.Input(
                    "model_low",
                    optional=True,
                    tooltip="Of a run that trained two models, the low noise one; model is the high noise one.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "pictures",
                    tooltip="N×H×W×3 in 0 to 1, in the order of steps, then strengths, then prompts; of clips all "
                    "their frames.",
                ),
                io.String.Output("report", tooltip="What was drawn. Plain text."),
            ],
        )

    @staticmethod
    def _places():
        low, high = STRENGTHS
        return [
            io.String.Input(
                "steps",
                default="",
                tooltip="Of checkpoints that were kept, with commas: 250, 500. Empty: all of them.",
            ),
            io.String.Input(
                "strengths",
                default="0.6, 0.8, 1",
                tooltip=f"Of the LoRA: 1 to {MOST_STRENGTHS} numbers with commas between them, {low:g} to {high:g}, "
                "two decimals at most. 1: as the training draws it.",
            ),
        ]

    @classmethod
    def validate_inputs(cls, run=None):
        """Whether there is such a run."""
        return run_is_there(run)

    @classmethod
    def fingerprint_inputs(cls, run="", **_values):
        """Changes with the run's checkpoints and its pictures."""
        return drawn_state(run if isinstance(run, str) else "")

    @classmethod
    def execute(cls, model, samples, run, steps, strengths, model_low=None):
        """Draws what is missing."""
        progress = NodeProgress()
        watch = Watch(progress, progress.check_cancel, progress.show)
        pictures, findings = draw_run(model, samples, Wanted(run, steps, strengths), watch, model_low=model_low)
        text = "\n".join(finding.text for finding in findings)
        return io.NodeOutput(pictures, text, ui=tell(findings))
