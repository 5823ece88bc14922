"""The node that holds the settings of the masked loss."""

import dataclasses

from comfy_api.latest import io

from ..masklora.host.page.telling import tell
from ..masklora.loss.check import check_loss
from ..masklora.loss.presets import PRESET_DECIDES, apply_preset, overruled_options, preset_help
from ..masklora.settings import BY_GOAL
from . import loss_widgets, remedy_widgets
from .loss_use import add_use
from .loss_widgets import LOSS
from .types import MLT_LOSS, TRAIN_CATEGORY, advanced


class MaskedLoss(io.ComfyNode):
    """The masked objective."""

    @classmethod
    def define_schema(cls):
        """Ids, widgets and tooltips."""
        return io.Schema(
            node_id="MLT_MaskedLoss",
            display_name="Masked Loss (masked LoRA)",
            category=TRAIN_CATEGORY,
            description="How the mask weighs the loss: choose a preset. Only needed to change the default.",
            # New inputs go to the end: saved workflows know widgets by their place.
            inputs=[
                loss_widgets.preset_input(),
                *add_use(
                    advanced(
                        [
                            *loss_widgets.first_inputs(),
                            *loss_widgets.mask_inputs(),
                            *loss_widgets.cell_inputs(),
                            *loss_widgets.time_inputs(),
                            *remedy_widgets.infill_inputs(),
                            *remedy_widgets.prior_inputs(),
                            *remedy_widgets.fade_inputs(),
                            *remedy_widgets.preservation_inputs(),
                            *remedy_widgets.noise_inputs(),
                            *remedy_widgets.token_inputs(),
                            *loss_widgets.frame_inputs(),
                        ]
                    )
                ),
            ],
            outputs=[
                MLT_LOSS.Output("loss", tooltip="For the training node."),
                io.String.Output("report", tooltip="What the preset does and which widgets it overrules."),
            ],
        )

    @classmethod
    def execute(cls, preset, **widgets):
        """The preset decides its options; what it overrules is told."""
        asked = dataclasses.replace(LOSS, **{"prior_weight": PRESET_DECIDES, **widgets})
        left, preset = preset == BY_GOAL, LOSS.preset if preset == BY_GOAL else preset
        loss = check_loss(apply_preset(preset, asked))
        overruled = overruled_options(preset, asked)
        report = preset_help(preset)
        if overruled:
            report += f"\nOverruled by the preset: {', '.join(overruled)}. Choose custom to set them yourself."
        details = [name for name in widgets if name.startswith("prior_") and name != "prior_weight"]
        idle = {name for name in details if widgets[name] != getattr(LOSS, name)}
        if loss.prior_weight == 0 and idle - set(overruled):
            report += "\nThere is no prior while prior_weight is 0: the other prior_ widgets do nothing."
        if loss.mask_channel:
            report += f"\nThis trainer reads the {loss.mask_channel} of a mask file: set mask_channel so."
        if left:
            loss = dataclasses.replace(loss, preset=BY_GOAL)
            report += "\nThe goal of Load Dataset may change options that you left alone; the training tells which."
        return io.NodeOutput(loss, report, ui=tell(report.splitlines()))
