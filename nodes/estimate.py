"""The node that tells how much memory a training will take, before anything is trained."""

from comfy_api.latest import io

from ..masklora.host.estimating import Question, estimated
from ..masklora.host.page.telling import tell
from ..masklora.settings import BY_GOAL, AdapterSettings, LossSettings, OptimizerSettings, TrainSettings
from .types import (
    MLT_ADAPTER,
    MLT_CACHE,
    MLT_LOSS,
    MLT_OPTIMIZER,
    MLT_TEXT_ENCODER,
    TRAIN_CATEGORY,
    advanced,
    choice,
    drop_down,
    number,
    switch,
)

_THIS = "this card"
_CARDS = (8, 12, 16, 24, 32)
_D = TrainSettings()


class EstimateMemory(io.ComfyNode):
    """Memory of a training, counted."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return io.Schema(
            node_id="MLT_EstimateMemory",
            display_name="Estimate Memory (masked LoRA)",
            category=TRAIN_CATEGORY,
            description="Tells how much memory a training takes and what makes it fit a card. It trains nothing.",
            search_aliases=["vram", "out of memory", "which card"],
            is_output_node=True,
            inputs=[*cls._sockets(), *cls._widgets(), *advanced(cls._advanced())],
            outputs=[
                io.String.Output("report", tooltip="The peak, what it is made of, and what makes it fit."),
                io.Float.Output("gib", tooltip="The peak in GiB, weights included."),
            ],
        )

    @staticmethod
    def _sockets():
        return [
            io.Model.Input("model", tooltip="The model that is to be trained; it stays where it is."),
            MLT_CACHE.Input(
                "cache",
                optional=True,
                tooltip="From Cache Dataset: its largest bucket and longest caption replace width and height.",
            ),
            MLT_LOSS.Input("loss", optional=True, tooltip="From Masked Loss, as the training node takes it."),
            MLT_ADAPTER.Input("adapter", optional=True, tooltip="From Adapter: rank and targets."),
            MLT_OPTIMIZER.Input("optimizer", optional=True, tooltip="From Optimizer: its state takes memory too."),
        ]

    @staticmethod
    def _widgets():
        return [
            drop_down(
                "card",
                (_THIS, *(f"{size} GB" for size in _CARDS)),
                _THIS,
                "Card that it is to fit into: the one at hand, or one with so much memory in all.",
            ),
            *(_side(name) for name in ("width", "height")),
        ]

    @staticmethod
    def _advanced():
        return [
            number(_D, "batch_size", "Pictures a step, 1 to 256."),
            choice(_D, "checkpointing", "As in the training node. Per block: little memory."),
            number(_D, "gradient_accumulation", "Batches a step, 1 to 1024."),
            switch(_D, "unknown_model", "Take a MODEL of a family that this pack does not know."),
            io.Model.Input(
                "model_low", tooltip="The low noise model of two that are trained in one run, as in the training node."
            ),
            MLT_TEXT_ENCODER.Input(
                "text_encoder", tooltip="From Train Text Encoder, where CLIP is trained too; as in the training node."
            ),
        ]

    @classmethod
    def execute(cls, model, card, width, height, model_low=None, text_encoder=None, **values):
        """Counts a step without running it."""
        sockets = {name: values.pop(name, None) for name in ("cache", "loss", "adapter", "optimizer")}
        plan, findings = estimated(
            Question(
                model,
                sockets["cache"],
                loss=sockets["loss"] or LossSettings(preset=BY_GOAL),
                adapter=sockets["adapter"] or AdapterSettings(),
                optimizer=sockets["optimizer"] or OptimizerSettings(),
                train=TrainSettings(**values),
                size=(width, height),
                card=None if card == _THIS else int(card.split()[0]) * 2**30,
                model_low=model_low,
                texts=text_encoder,
            )
        )
        text = "\n".join(finding.text for finding in findings)
        return io.NodeOutput(text, plan.total / 2**30, ui=tell(findings))


def _side(name):
    return io.Int.Input(
        name,
        default=1024,
        min=64,
        max=8192,
        step=8,
        tooltip=f"{name.capitalize()} of the training pictures in pixels, 64 to 8192, with captions of 512 tokens.",
    )
