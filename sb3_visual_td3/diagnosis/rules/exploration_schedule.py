"""Exploration does not fit the run: it ends before anything was learned, never ends, or grows into pure noise.

The rule distinguishes three schedules.

- The noise (or epsilon) falls almost to 0 in the first tenth of the run.
- Epsilon stays large to the end.
- The standard deviation of a stochastic policy grows to a multiple of its first level, usually because an entropy bonus
  outweighs the reward.

Source: Mnih et al. 2015, doi:10.1038/nature14236 (epsilon from 1 to 0.1 over the first million of 50 million frames);
Yarats et al. 2021, arXiv 2107.09645 (noise from 1 to 0.1 over 100,000 to 2 million frames).
"""

from __future__ import annotations

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis import own_scale
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult, SettingChange
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.return_curve import judge_learning
from sb3_visual_td3.diagnosis.run_kind import Family, recognise
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.tag_search import words_of
from sb3_visual_td3.diagnosis.trends import onset

ID = "exploration_schedule"
TITLE = "The exploration does not fit the run"
REMEDY = (
    "Let the noise (or epsilon) fall over at least half of the run, and never below a tenth of its first value. If the "
    "policy's own standard deviation grows, lower ent_coef and look at the scale of the rewards."
)
IS_LIVE = False
EXPLAINED_BY = ("non_finite", "learning_rate_too_high", "reward_scale", "frozen_by_learning_rate")
CURE = Cure(
    changes=(
        SettingChange(
            key="noise_schedule",
            to="lin_1.0_0.1",
            unless_set=True,
            reason="noise falls over the whole run; its first and last values are those of DrQ-v2",
        ),
    )
)

GONE = 0.05
"""The policy counts as no longer exploring if the noise (or epsilon) is at most this fraction of its first value."""

EARLY = 0.1
"""If exploration ends within this first fraction of the run, the rule reports that it ends too early."""

STILL_RANDOM = 0.5
"""If the median epsilon over the last tenth of the run is at least this value, the rule reports that exploration never
ends."""

MIN_POINTS = 10


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Look for exploration that turns into pure noise, ends too early or never ends, unless the run clearly learns.

    The rule reads the standard deviation of the policy's actions (only in on-policy runs), the scale of the action
    noise, and epsilon.
    """
    learning = judge_learning(data).answer
    if learning == "yes":
        return None
    # If the return does not show a failure, a schedule alone is only a suspicion.
    is_sure = learning == "no"
    return _explodes(data, is_sure) or _ends_early(data, is_sure) or _never_ends(data, is_sure)


def _explodes(data: SeriesSet, is_sure: bool) -> RuleResult | None:
    kind = recognise(data.names())
    if kind.family is not Family.ON_POLICY:
        return None
    sign = own_scale.policy_spread(data, kind, "no" if is_sure else "unknown")
    if not isinstance(sign, own_scale.Sign):
        return None
    std = data[sign.tag].finite
    evidence = (Evidence.last_of(std, f"{rounded(sign.value)} times its first level: the actions turn into noise"),)
    confidence = 0.4
    if is_sure:
        confidence = 0.65 if sign.is_clear else 0.5
    first = onset(std, std.values >= own_scale.SPREAD_NOTED * float(np.median(std.values[:3])))
    return RuleResult(confidence, evidence, first, value=sign.value, threshold=own_scale.SPREAD_NOTED)


def _ends_early(data: SeriesSet, is_sure: bool) -> RuleResult | None:
    noise = _schedule(data)
    if noise is None or not noise.values[0] > 0.0:
        return None
    left = noise.values / noise.values[0]
    first = onset(noise, left <= GONE)
    end = data.n_steps or int(noise.steps[-1])
    if first is None or left[-1] > GONE or first > EARLY * end:
        return None
    note = f"{rounded(100 * float(left[-1]))} % of its first value, after {first / max(end, 1):.0%} of the run"
    return RuleResult(
        0.6 if is_sure else 0.4, (Evidence.near(noise, first, note),), first, value=float(left[-1]), threshold=GONE
    )


def _never_ends(data: SeriesSet, is_sure: bool) -> RuleResult | None:
    epsilon = _schedule(data)
    if epsilon is None or "noise" in words_of(epsilon.name) or float(epsilon.values.max()) > 1.0:
        return None
    late = float(np.median(epsilon.tail(EARLY).values))
    if late < STILL_RANDOM:
        return None
    evidence = (Evidence.last_of(epsilon, f"{late:.0%} of the actions are still random at the end"),)
    return RuleResult(0.6 if is_sure else 0.35, evidence, None, value=late, threshold=STILL_RANDOM)


def _schedule(data: SeriesSet) -> Series | None:
    """Return the first logged series that shows the noise of the actions or the probability of a random action."""
    for name in data.names():
        words = set(words_of(name))
        is_schedule = {"exploration", "rate"} <= words or "epsilon" in words or name == tags.EXPLORATION_NOISE
        if is_schedule and len(data[name].finite) >= MIN_POINTS:
            return data[name].finite
    return None
