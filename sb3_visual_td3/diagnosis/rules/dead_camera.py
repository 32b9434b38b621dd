"""The camera shows nothing, or always the same."""

from __future__ import annotations

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.findings import Cure, Diagnosis, Evidence, bounded
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.trends import onset, recent

ID = "dead_camera"
TITLE = "The camera shows nothing new"
REMEDY = (
    "Look at the frames that the policy gets. Constant: the sensor is covered, not attached, or scaled to nothing. "
    "Frozen: the simulator's clock stands still, or old frames are handed out (a queue that is never emptied, an "
    "array that is reused). Check it across a reset, where everything should change."
)
IS_LIVE = True
EXPLAINED_BY: tuple[str, ...] = ()
CURE = Cure(code=("No hyperparameter cures it: look at the frames that the policy gets."))

ONE_COLOUR = 1.0
"""Standard deviation within a frame, in grey levels: less than one level is nothing to see."""

MIN_POINTS = 6
"""At both resolutions: a car may stand still, in our environments for fifty steps at most."""

SURELY = 190
"""Steps without any change after which no standstill explains it."""


def diagnose(data: SeriesSet) -> Diagnosis | None:
    """Look for frames of one colour, then for frames that never differ from those before."""
    std, change = data[tags.FRAME_STD].finite, data[tags.FRAME_CHANGE].finite
    if len(std) >= MIN_POINTS and recent(std, MIN_POINTS).abs_max() < ONE_COLOUR:
        evidence = Evidence.last_of(std, "grey levels within a frame: it is of one colour")
        return _diagnosis(0.9, evidence, onset(std, std.values < ONE_COLOUR), ONE_COLOUR)
    still = _points_at_end(change)
    if still < MIN_POINTS:
        return None
    evidence = Evidence.last_of(change, f"no pixel has changed for {still} points")
    is_sure = change.steps[-1] - change.steps[-still] >= SURELY
    return _diagnosis(0.9 if is_sure else 0.65, evidence, onset(change, change.values == 0.0), 0.0)


def _points_at_end(change: Series) -> int:
    n_points = 0
    for value in change.values[::-1]:
        if value != 0.0:
            break
        n_points += 1
    return n_points


def _diagnosis(confidence: float, evidence: Evidence, first: int | None, threshold: float) -> Diagnosis:
    return Diagnosis(
        ID, TITLE, bounded(confidence), (evidence,), REMEDY, first, value=evidence.value, threshold=threshold
    )
