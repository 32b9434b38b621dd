"""Episodes have become much shorter than they were at the start of the run.

This happened in the CARLA run that started this project: its 413 episodes shrank from 50 steps to 2 or 3.
"""

from __future__ import annotations

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult
from sb3_visual_td3.diagnosis.series import MAX_STEP, SeriesSet
from sb3_visual_td3.diagnosis.trends import episode_length_ends, onset

ID = "episode_collapse"
TITLE = "Episodes collapse to a fraction of their first length"
REMEDY = (
    "Watch the policy drive. If the policy ends its episodes, check whether the reward pays for an early end, and "
    "whether the policy ignores the camera. If the simulator ends them, find out which condition does so."
)
IS_LIVE = False
CURE = Cure(
    code=(
        "No hyperparameter is known to cure it: watch the policy drive, and look for a reward that pays for an early "
        "end."
    )
)

COLLAPSED = 0.4
"""Episodes have collapsed if their median length in the last third of the steps is below this fraction of their median
length in the first third. The criterion episode_length_not_decreasing already fails below 0.5."""

MIN_EPISODES = 10
EXPLAINED_BY = (
    "feature_leak",
    "learning_rate_too_high",
    "dead_camera",
    "actor_saturation",
    "critic_overestimation",
    "vanishing_actor_gradient",
    "encoder_frozen",
    "reward_imbalance",
    "reward_scale",
    "non_finite",
)


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Compare the median length of the episodes in the first and in the last third of the steps."""
    lengths = data[tags.EPISODE_LENGTH].finite
    lengths = lengths.where(lengths.values < MAX_STEP)
    ends = episode_length_ends(lengths)
    if ends is None or len(lengths) < MIN_EPISODES or ends.late >= COLLAPSED * ends.early:
        return None
    ratio = ends.late / ends.early
    first_part, last_part = (f"median over the {which} {ends.part} of the run's steps" for which in ("first", "last"))
    evidence = (
        Evidence(tags.EPISODE_LENGTH, int(lengths.steps[0]), ends.early, first_part),
        Evidence(tags.EPISODE_LENGTH, ends.late_begins_at, ends.late, last_part),
    )
    # The confidence rises from 0.5 at the threshold to 0.9 for episodes that shrink to nothing.
    confidence = 0.5 + 0.4 * (COLLAPSED - ratio) / COLLAPSED
    # The x-axis counts episodes; the sum of the lengths before the onset converts it to environment steps.
    short_from = onset(lengths, lengths.values < COLLAPSED * ends.early)
    first = None if short_from is None else int(lengths.values[lengths.steps < short_from].sum())
    return RuleResult(confidence, evidence, first, value=ratio, threshold=COLLAPSED)
