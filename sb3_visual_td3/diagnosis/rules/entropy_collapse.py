"""A policy stops exploring before it has learned: its entropy, or the spread of its actions, is nearly gone.

A policy that has solved its task also stops exploring, so the rule leaves out runs whose return shows learning. For
continuous actions, whose entropy can be negative, the rule uses the standard deviation of the actions instead of the
entropy.

Source: Mnih et al. 2016, arXiv 1602.01783, section 4, on the entropy bonus against early convergence; Ahmed et al.
2019, arXiv 1811.11214, on the effects of entropy in policy optimisation.
"""

from __future__ import annotations

import numpy as np

from sb3_visual_td3.diagnosis import own_scale
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.return_curve import judge_learning
from sb3_visual_td3.diagnosis.run_kind import Family, recognise
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.trends import onset

ID = "entropy_collapse"
TITLE = "The policy stopped exploring before it had learned"
REMEDY = (
    "Raise ent_coef; 0.01 is usual for discrete actions. Lower the learning rate or the number of epochs, because a "
    "single batch must not make the policy certain. Normalise the rewards, because large rewards make large policy "
    "steps."
)
IS_LIVE = False
EXPLAINED_BY = ("non_finite", "learning_rate_too_high", "reward_scale")
CURE = Cure(code="Raise ent_coef (a setting of PPO and A2C, not of VisualTD3), or lower the learning rate.")

LEFT = own_scale.ENTROPY_LEFT
"""A policy counts as no longer exploring if its entropy, or the standard deviation of its actions, falls to this
fraction of its first value."""

MIN_POINTS = own_scale.MIN_POINTS


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Compare the entropy (or the standard deviation of the actions) at the end of the run with its first value.

    The rule judges only on-policy runs.
    """
    if recognise(data.names()).family is not Family.ON_POLICY:
        return None
    learning = judge_learning(data).answer
    if learning == "yes":
        return None
    series = own_scale.action_std(data) or own_scale.discrete_entropy(data)
    if series is None:
        return None
    sizes = series.values
    late = float(np.median(sizes[-max(3, sizes.size // 10) :]))
    # A policy begins with its widest actions; a mean over the first points would miss a fast collapse.
    if not sizes[0] > 0.0 or late > LEFT * sizes[0]:
        return None
    part = late / float(sizes[0])
    logged = data[series.name].finite
    evidence = (
        Evidence(logged.name, int(logged.steps[0]), float(logged.values[0]), "at the start"),
        Evidence.last_of(logged, f"{rounded(100 * part)} % of the value at the start"),
    )
    # A return that does not rise raises the confidence; without a logged return, a solved task would look the same.
    return RuleResult(
        0.65 if learning == "no" else 0.4,
        evidence,
        onset(series, sizes <= LEFT * sizes[0]),
        value=part,
        threshold=LEFT,
    )
