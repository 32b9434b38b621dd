"""The updates of an on-policy algorithm no longer change the policy: the KL between old and new is about 0.

PPO aims at an approximate KL of 0.01 to 0.05 per update. A2C logs no KL. For continuous actions, the standard deviation
of A2C's actions is a trained parameter, which every update normally changes. A standard deviation that never changes
is therefore a sign that the updates have no effect.

Source: Schulman et al. 2017, arXiv 1707.06347; the estimator of the KL: http://joschu.net/blog/kl-approx.html.
"""

from __future__ import annotations

import numpy as np

from sb3_visual_td3.diagnosis import own_scale
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.run_kind import Family, recognise
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.trends import onset, recent

ID = "policy_stopped_updating"
TITLE = "The updates no longer change the policy"
REMEDY = (
    "Check, in this order: the learning rate and its schedule, target_kl (a small one ends every update at its first "
    "batch), and whether the advantages differ at all (with a constant reward, they do not). Log "
    "train/learning_rate, train/approx_kl and train/clip_fraction to tell the causes apart."
)
IS_LIVE = False
EXPLAINED_BY = ("non_finite", "frozen_by_learning_rate", "entropy_collapse")
CURE = Cure(code="No single hyperparameter cures it: check the learning rate's schedule, target_kl and the reward.")

STOPPED = own_scale.KL_STOPPED
"""The updates no longer change the policy if the median |KL| of the last points is below this value."""

MIN_POINTS = own_scale.MIN_POINTS


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Look for a KL near 0 in the last quarter of its points.

    If no KL was logged, look for a standard deviation of the actions that never changes.
    """
    if recognise(data.names()).family is not Family.ON_POLICY:
        return None
    kl = own_scale.named(data, {"kl"}, must_not={"loss", "target", "old", "coef", "max"})
    if kl is not None:
        late = float(np.median(np.abs(recent(kl).values)))
        if late >= STOPPED:
            return None
        evidence = (Evidence.last_of(kl, f"the median of the last quarter is {rounded(late)}"),)
        return RuleResult(0.7, evidence, onset(kl, np.abs(kl.values) < STOPPED), value=late, threshold=STOPPED)
    std = own_scale.action_std(data)
    if std is None or float(np.ptp(std.values)) > 0.0:
        return None
    evidence = (Evidence.last_of(std, f"has not changed over {len(std)} points, although it is a trained parameter"),)
    # A custom policy may fix the deviation on purpose, so the deviation alone does not decide.
    return RuleResult(0.55, evidence, int(std.steps[0]), value=0.0, threshold=STOPPED)
