"""Which widgets of Masked Loss have an effect under which preset, and which of them are told first."""

from ..masklora.loss.presets import CUSTOM, PRESET_DECIDES, PRESET_NAMES, PRESETS, presets_that_read
from ..masklora.settings import BY_GOAL, LossSettings, about

_OURS = LossSettings().preset
# Of our preset and of custom, which read every option; of the others, all that the trainer lets its users set.
_FIRST = {
    _OURS: ("floor", "outside_share", "mask_probability", "infill_probability", "prior_weight", "preservation_weight"),
    CUSTOM: (
        "normalize", "elementwise", "floor", "outside_share", "mask_probability", "infill_probability", "prior_weight",
    ),
}  # fmt: skip
# With a preset that has more of them than a person takes in at once, these wait with the rest.
_LATER = ("prior_timestep_schedule", "prior_pivot", "prior_warmup")


def add_use(inputs):
    """The inputs of the masked loss, told with presets in mind.

    `used_when`: the ways in which the option comes to have an effect. `first_when`: the presets with which the page
    shows it at once, not only among the advanced ones.
    """
    for one in inputs:
        ways = ways_of(one.id)
        if ways != [{}]:
            one.extra_dict["used_when"] = ways
        if first := [name for name in presets_that_read(one.id) if _is_first(name, one.id)]:
            one.extra_dict["first_when"] = [{"preset": {"is": _shown(first)}}]
    return inputs


def ways_of(option):
    """The ways in which an option comes to have an effect, with what each preset decides taken in."""
    presets_by_way = []
    for preset in presets_that_read(option):
        for way in about(LossSettings, option).metadata.get("used") or ({},):
            left = _left_to_widgets(way, preset)
            if left is None:
                continue
            alike = next((presets for same, presets in presets_by_way if same == left), None)
            if alike is None:
                presets_by_way.append((left, [preset]))
            else:
                alike.append(preset)
    return [
        way if len(presets) == len(PRESET_NAMES) else {**way, "preset": {"is": _shown(presets)}}
        for way, presets in presets_by_way
    ]


def _shown(presets):
    """These presets and, with ours, the choice that leaves ours to the goal."""
    return [BY_GOAL, *presets] if _OURS in presets else presets


def _left_to_widgets(way, preset):
    """Of one way, what the widgets still decide with a preset; None where the preset rules the way out."""
    left = {}
    for option, condition in way.items():
        if preset == CUSTOM or preset in presets_that_read(option):
            left[option] = _with_preset_s_own(condition, option, preset)
        elif not holds(condition, getattr(PRESETS[preset], option)):
            return None
    return left


def _with_preset_s_own(condition, option, preset):
    """A prior weight of −1 is the preset's: none at all with most of them."""
    own = LossSettings() if preset == CUSTOM else PRESETS[preset]
    if option != "prior_weight" or holds(condition, own.prior_weight):
        return condition
    return {"not": [*condition["not"], PRESET_DECIDES]}


def holds(condition, value):
    """Whether a value is one of those that a condition names, or none of them."""
    return value in condition["is"] if "is" in condition else value not in condition["not"]


def _is_first(preset, option):
    return option in _FIRST[preset] if preset in _FIRST else option not in _LATER and _preset_decides(option)


def _preset_decides(option):
    """Whether presets decide it: noise levels and the like stay the user's with each of them."""
    return presets_that_read(option) != PRESET_NAMES
