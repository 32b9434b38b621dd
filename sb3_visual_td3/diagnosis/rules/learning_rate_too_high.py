"""Single steps are as large as the weights that they move: the optimizer replaces the network.

Source: Karpathy 2015, CS231n notes, "Ratio of weights:updates": about 1e-3 is usual. With Adam the first steps of a
fresh network are the learning rate over the weights' own size: 0.01 to 0.02 measured for 1e-3, 0.05 to 0.1 for
1e-2, 0.4 to 0.7 for 0.1, and 3 to 7 for 1 (means of the first 25 updates).
"""

from __future__ import annotations

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.findings import Cure, Diagnosis, Evidence, SettingChange, bounded
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.trends import onset, recent

ID = "learning_rate_too_high"
TITLE = "Single steps are of the size of the weights they move"
REMEDY = (
    "Lower the learning rate of the group named in the evidence: 1e-4 to 1e-3 is usual for Adam. What a step of this "
    "size has overwritten does not come back: start again, or from the last healthy snapshot."
)
IS_LIVE = True
EXPLAINED_BY: tuple[str, ...] = ()
CURE = Cure(
    changes=(
        SettingChange(
            key="group_lr",
            at_most=0.0001,
            times=0.3,
            reason="a step is no longer of the size of the weights; 1e-4 is DrQ-v2's, below it the factor is a guess",
        ),
    )
)

HALF = 0.5
"""One step this large replaces the network. It shows at once, for large weights make later steps look small."""

TENTH = 0.1
"""Steps this large one after the other replace it in ten, the resolution of a live window."""

OUT_OF_THE_BLUE = 30.0
"""Over the median of the points: a network that had settled. Fresh ones begin within ten times their later steps."""


def diagnose(data: SeriesSet) -> Diagnosis | None:
    """Look at the ratio of steps to weights of all four groups; the largest speaks."""
    ratios = [series for tag in tags.UPDATE_RATIO.values() if len(series := data[tag].finite)]
    found = [d for series in ratios if (d := _judge(data, series)) is not None]
    return max(found, key=lambda d: (d.confidence, d.value), default=None)


def _judge(data: SeriesSet, ratio: Series) -> Diagnosis | None:
    largest, late = ratio.abs_max(), recent(ratio, 3)
    if largest >= HALF:
        confidence, value, threshold = 0.9 if largest >= 1.0 else 0.8, largest, HALF
    elif len(late) >= 3 and late.median() >= TENTH:
        confidence, value, threshold = 0.85, late.median(), TENTH
    elif largest >= TENTH and len(ratio) >= 5 and largest >= OUT_OF_THE_BLUE * ratio.median():
        confidence, value, threshold = 0.76, largest, TENTH
    else:
        return None
    evidence = [Evidence.largest_of(ratio, f"of the weights' norm in one step; median {rounded(ratio.median())}")]
    group = next(g for g, tag in tags.UPDATE_RATIO.items() if tag == ratio.name)
    rate = data[tags.GROUP_LR[group]].finite
    if len(rate):
        evidence.append(Evidence.largest_of(rate, "its learning rate"))
    first = onset(ratio, ratio.values >= threshold)
    return Diagnosis(ID, TITLE, bounded(confidence), tuple(evidence), REMEDY, first, value=value, threshold=threshold)
