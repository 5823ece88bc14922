"""MLT_TextEncoder: the text encoders that are trained beside the model, and a new word."""

from comfy_api.latest import io

from ..masklora.host.texts.parts import text_request
from ..masklora.settings import TextEncoderSettings
from .types import MLT_TEXT_ENCODER, TRAIN_CATEGORY, advanced, choice, number, switch, text

_D = TextEncoderSettings()


class TextEncoder(io.ComfyNode):
    """Whether and how text encoders are trained."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return io.Schema(
            node_id="MLT_TextEncoder",
            display_name="Train Text Encoder (masked LoRA)",
            category=TRAIN_CATEGORY,
            description=(
                "Trains CLIP beside the model, for Stable Diffusion 1.5, 2, XL, 3 and FLUX.1: a LoRA of its layers, a "
                "new word for the subject, or both. The training node takes it as text_encoder."
            ),
            search_aliases=["textual inversion", "pivotal tuning", "embedding", "clip", "te lr"],
            inputs=[*cls._visible(), *advanced(cls._advanced())],
            outputs=[MLT_TEXT_ENCODER.Output("text_encoder", tooltip="For the training node.")],
        )

    @staticmethod
    def _visible():
        return [
            io.Clip.Input("clip", tooltip="The CLIP that Cache Dataset has, with the same CLIP skip. Not changed."),
            choice(
                _D,
                "encoders",
                "Which encoders get a LoRA: all that the CLIP has, clip_l or clip_g alone, or none, where only the new "
                "word is learned.",
            ),
            number(
                _D,
                "learning_rate",
                "Of the encoders' LoRA, 0 to 1. 0: that of the model, as kohya's scripts have it.",
                max=1.0,
                step=1e-6,
                round=False,
            ),
            number(
                _D,
                "stop_after",
                "Steps after which the encoders stay as they are, 0 (never) to 1000000. They overfit before the model.",
            ),
            switch(
                _D,
                "new_word",
                "Also learn vectors of its own for the data set's trigger word. They are written as an embedding, "
                "which prompts call embedding:word.",
            ),
            number(_D, "word_vectors", "How many tokens the new word takes of a prompt, 1 to 32."),
            text(_D, "word_start", "Words that it begins with, such as a dog. Empty: random vectors."),
        ]

    @staticmethod
    def _advanced():
        return [
            number(
                _D,
                "word_learning_rate",
                "Of the new word, 0 to 1. 0: that of the model.",
                max=1.0,
                step=1e-5,
                round=False,
            ),
            number(_D, "word_stop_after", "Steps after which the word stays as it is, 0 (never) to 1000000."),
            number(_D, "rank", "Of the encoders' LoRA, 1 to 1024; 0: that of the model's LoRA."),
            number(
                _D,
                "alpha",
                "Scale numerator of the encoders' LoRA, to 4096. 0: that of the model, or their rank where one is set.",
                step=1.0,
            ),
        ]

    @classmethod
    def execute(cls, clip, **widgets):
        """What cannot be trained is told here, before anything else is done."""
        return io.NodeOutput(text_request(clip, TextEncoderSettings(**widgets)))
