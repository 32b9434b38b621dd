"""SAC gains more from its entropy bonus than from its task, and therefore acts at random.

SAC maximises the reward plus ``ent_coef`` times the entropy of its actions, so one nat of entropy is worth
``ent_coef``. If this is more than the reward of a step, the best policy acts at random. The usual reasons are a fixed
coefficient from another task, or rewards that are far too small.

Source: Haarnoja et al. 2018, arXiv 1801.01290, section 4.1 and figure 3.
"""

from __future__ import annotations

import numpy as np

from sb3_visual_td3.diagnosis import own_scale
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.return_curve import judge_learning
from sb3_visual_td3.diagnosis.run_kind import recognise
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.tag_search import find_lengths, find_returns, is_entropy_coefficient

ID = "entropy_outweighs_reward"
TITLE = "The entropy bonus outweighs the reward"
REMEDY = (
    "Lower ent_coef, or let SAC find it (ent_coef='auto', with a small first value such as 'auto_0.1' where rewards "
    "are small). If the rewards are far below 1, scale them up instead."
)
IS_LIVE = False
EXPLAINED_BY = ("non_finite", "frozen_by_learning_rate", "learning_rate_too_high", "too_few_updates")
CURE = Cure(code="Lower ent_coef (a setting of SAC and TQC, not of VisualTD3), or scale the rewards up.")

OUTWEIGHS = 1.0
"""The entropy bonus outweighs the reward if the entropy coefficient is at least this many times the reward of a step.
The reward of a step is the median |return|, divided by the median episode length."""

MIN_POINTS = own_scale.MIN_POINTS


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Compare the entropy coefficient over the last quarter of the run with the reward of a step.

    Only a run that does not learn is examined.
    """
    names = data.names()
    returns, length_tag = find_returns(names), find_lengths(names)
    if not recognise(names).has_entropy_bonus or not returns or length_tag is None:
        return None
    if judge_learning(data).answer != "no":
        return None
    tag = _coefficient_tag(names)
    length = data[length_tag].median()
    series = data[returns[0].name].finite
    if tag is None or len(data[tag].finite) < MIN_POINTS or len(series) < MIN_POINTS or not length >= 1.0:
        return None
    coefficient = data[tag].finite
    late = coefficient.tail(0.25).median()
    reward = float(np.median(np.abs(series.values))) / length
    # If no reward was ever found, any bonus outweighs it, and the ratio shows nothing.
    if not reward > 0.0 or late < OUTWEIGHS * reward:
        return None
    ratio = late / reward
    evidence = (
        Evidence.last_of(coefficient, f"one nat of entropy is worth {rounded(ratio)} times the reward of a step"),
        Evidence.last_of(series, f"over {rounded(length)} steps"),
    )
    # The confidence is 0.55 if the bonus equals the reward, and 0.72 if the bonus is at least ten times the reward.
    confidence = 0.55 + 0.17 * min(1.0, float(np.log10(ratio)))
    return RuleResult(confidence, evidence, int(coefficient.steps[0]), value=ratio, threshold=OUTWEIGHS)


def _coefficient_tag(names: list[str]) -> str | None:
    return next((name for name in names if is_entropy_coefficient(name)), None)
