"""The camera's frames have a single colour, or never change."""

from __future__ import annotations

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.trends import onset, recent

ID = "dead_camera"
TITLE = "The camera shows nothing new"
REMEDY = (
    "Look at the frames that the policy gets. A frame of one colour: the sensor is covered, not attached, or its "
    "values are scaled to 0. Frames that never change: the simulator's clock does not advance, or the environment "
    "returns old frames (a queue that is never emptied, an array that is reused). Compare frames before and after a "
    "reset, where everything should change."
)
IS_LIVE = True
EXPLAINED_BY: tuple[str, ...] = ()
CURE = Cure(code=("No hyperparameter cures it: look at the frames that the policy gets."))

ONE_COLOUR = 1.0
"""A frame counts as a single colour if the standard deviation of its pixels is below this value, in grey levels."""

MIN_POINTS = 6
"""Frames that do not change are reported only after this many points. By default, six points cover sixty steps during
training. If a car stands still without a reason, the driving environments of this package end the episode after fifty
steps (``max_idle_steps``)."""

SURE_STEPS = 190
"""The confidence is high if the frames do not change for at least this many environment steps (in a report) or
gradient updates (in an alert during training). The value is below 200, because alerts see only the last 200
updates."""


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Look for frames of a single colour, then for frames that always equal the previous frame."""
    std, change = data[tags.FRAME_STD].finite, data[tags.FRAME_CHANGE].finite
    if len(std) >= MIN_POINTS and recent(std, MIN_POINTS).abs_max() < ONE_COLOUR:
        evidence = Evidence.last_of(
            std, "standard deviation of the pixels, in grey levels: the frame has a single colour"
        )
        return RuleResult(
            0.9, (evidence,), onset(std, std.values < ONE_COLOUR), value=evidence.value, threshold=ONE_COLOUR
        )
    # The deviation is checked first: a frame of one colour does not change either, and naming the single colour is more
    # specific.
    still = _points_at_end(change)
    if still < MIN_POINTS:
        return None
    evidence = Evidence.last_of(change, f"no pixel has changed for {still} points")
    is_sure = change.steps[-1] - change.steps[-still] >= SURE_STEPS
    confidence = 0.9 if is_sure else 0.65
    return RuleResult(confidence, (evidence,), onset(change, change.values == 0.0), value=evidence.value, threshold=0.0)


def _points_at_end(change: Series) -> int:
    """Count the consecutive zeros at the end of a series."""
    n_points = 0
    for value in change.values[::-1]:
        if value != 0.0:
            break
        n_points += 1
    return n_points
