"""The critics learn towards target networks that nobody moves.

Whether a target moves is measured directly: its distance from the critic grows in a sound run's first hundreds of
updates almost as it does here.
"""

from __future__ import annotations

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.findings import Cure, Diagnosis, Evidence, SettingChange, bounded
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.trends import onset

ID = "stale_target_network"
TITLE = "The target networks do not follow the critics"
REMEDY = (
    "Call the soft update after the critics' step, on the very networks that are trained (a copy made before the "
    "networks were replaced is moved in vain), and see that tau is above 0; 0.005 is usual."
)
IS_LIVE = True
EXPLAINED_BY: tuple[str, ...] = ()
CURE = Cure(
    changes=(SettingChange(key="tau", at_least=0.005, reason="the targets follow; 0.005 is SB3's"),),
    if_nothing_to_change=(
        "No hyperparameter cures it: tau is as it should be, so the soft update does not reach the "
        "networks that are trained."
    ),
)

MIN_POINTS = 5


def diagnose(data: SeriesSet) -> Diagnosis | None:
    """Find a target of the critics that stood still while critics and actor were updated."""
    moved, steps = data[tags.TARGET_MOVED["critic"]].finite, data[tags.UPDATE_RATIO["critic_mlp"]].finite
    still = _still_end(moved)
    if len(still) < MIN_POINTS:
        return None
    since = still.steps[0]
    learning = steps.where(steps.steps >= since)
    # TD3 moves its targets with the actor: where that is rare, they have had no occasion.
    actor = data[tags.GRADIENT_NORM["actor_mlp"]]
    if not learning.abs_max() > 0 or (actor.steps >= since).sum() < MIN_POINTS:
        return None
    evidence = [Evidence.last_of(still, f"not one number of it has changed over {len(still)} points")]
    distance = data[tags.TARGET_DISTANCE["critic"]].finite
    if len(distance):
        evidence.append(Evidence.last_of(distance, "how far the critics have gone meanwhile"))
    first = onset(moved, moved.values == 0.0)
    return Diagnosis(ID, TITLE, bounded(0.9), tuple(evidence), REMEDY, first, value=0.0, threshold=0.0)


def _still_end(moved: Series) -> Series:
    begin = len(moved)
    while begin and moved.values[begin - 1] == 0.0:
        begin -= 1
    return Series(moved.name, moved.steps[begin:], moved.values[begin:])
