"""The critics learn towards target networks that never change.

Whether a target moves is measured directly. Its distance from the critic would not show it: in the first hundreds of
updates it grows in a healthy run almost as it does here.
"""

from __future__ import annotations

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import ACTOR_MLP, CRITIC_MLP
from sb3_visual_td3.diagnosis.findings import Cure, Diagnosis, Evidence, SettingChange, bounded
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.trends import onset

ID = "stale_target_network"
TITLE = "The target networks do not follow the critics"
REMEDY = (
    "Call the soft update after the critics' step, with the networks that are trained (not with a reference to "
    "networks that have been replaced since), and check that tau is above 0; 0.005 is usual."
)
IS_LIVE = True
EXPLAINED_BY: tuple[str, ...] = ()
CURE = Cure(
    changes=(SettingChange(key="tau", at_least=0.005, reason="makes the targets follow the critics; 0.005 is SB3's"),),
    if_nothing_to_change=(
        "No hyperparameter cures it: tau has a usual value, so the soft update does not reach the networks that are "
        "trained."
    ),
)

MIN_POINTS = 5


def diagnose(data: SeriesSet) -> Diagnosis | None:
    """Look for a target of the critics that did not change while critics and actor were updated."""
    moved, steps = data[tags.TARGET_MOVED["critic"]].finite, data[tags.UPDATE_RATIO[CRITIC_MLP.name]].finite
    still = _still_end(moved)
    if len(still) < MIN_POINTS:
        return None
    # A target that stands still is wrong only while the critics take steps.
    since = still.steps[0]
    learning = steps.where(steps.steps >= since)
    # TD3 moves its targets only when it updates the actor (policy_delay): without such an update they need not move.
    actor = data[tags.GRADIENT_NORM[ACTOR_MLP.name]]
    if not learning.abs_max() > 0 or (actor.steps >= since).sum() < MIN_POINTS:
        return None
    evidence = [Evidence.last_of(still, f"not one of its weights has changed over {len(still)} points")]
    distance = data[tags.TARGET_DISTANCE["critic"]].finite
    if len(distance):
        evidence.append(Evidence.last_of(distance, "distance of the critics from it by now"))
    first = onset(moved, moved.values == 0.0)
    return Diagnosis(ID, TITLE, bounded(0.9), tuple(evidence), REMEDY, first, value=0.0, threshold=0.0)


def _still_end(moved: Series) -> Series:
    """Return the points at the end of a series that are 0."""
    begin = len(moved)
    while begin and moved.values[begin - 1] == 0.0:
        begin -= 1
    return Series(moved.name, moved.steps[begin:], moved.values[begin:])
