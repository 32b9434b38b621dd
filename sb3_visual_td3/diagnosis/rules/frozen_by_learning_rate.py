"""The learning rate is 0, or so small that no weight changes, so the policy does not learn.

Possible causes are a typing error (1e-40), a schedule that reaches 0 early, or a schedule that counts in the wrong
unit. If the rate was not logged, the rule looks for weights that do not change although gradients arrive.
"""

from __future__ import annotations

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import groups_of
from sb3_visual_td3.common.types import NETWORKS, Network
from sb3_visual_td3.diagnosis import own_scale
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult, SettingChange
from sb3_visual_td3.diagnosis.return_curve import judge_learning
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.trends import onset, recent

ID = "frozen_by_learning_rate"
TITLE = "The learning rate is 0, or so small that the weights do not change"
REMEDY = (
    "Check the learning rate and its schedule: SB3's schedules receive the progress that REMAINS, from 1 down to 0; "
    "3e-4 to 1e-3 is usual for Adam. Where the rate is right, check that the optimizer holds these parameters."
)
IS_LIVE = True
EXPLAINED_BY: tuple[str, ...] = ()
CURE = Cure(
    changes=(SettingChange(key="learning_rate", at_least=1e-4, reason="lets the weights move; 1e-4 is DrQ-v2's"),)
)

TINY = 1e-9
"""A learning rate counts as 0 if it is at most this value. A step of Adam is about as large as the rate, and a 32-bit
weight near 1 cannot change by less than 6e-8."""

LOW = 2e-6
"""A median learning rate below this value is reported if the return shows that nothing was learned."""

ZERO_PART = 0.5
"""A learning rate is reported if more than this fraction of its points count as 0 (see ``TINY``). A schedule may end at
0."""

MIN_POINTS = 5
A_GRADIENT = 1e-6
"""Weights that do not change are reported only if the gradient norm of the network's head is above this value."""


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Look for a learning rate of 0 or nearly 0, and then for weights that do not change although gradients arrive.

    A rate of 0 for one group of a network is not reported if another group of this network has a higher rate.
    """
    return _by_rate(data) or _by_steps(data)


def _by_rate(data: SeriesSet) -> RuleResult | None:
    rates = own_scale.largest_rates(data, MIN_POINTS)
    rates += [rate for network in NETWORKS if (rate := _rate_of(data, network)) is not None]
    for rate in rates:
        if len(rate) < MIN_POINTS:
            continue
        is_zero = rate.values <= TINY
        if is_zero.mean() <= ZERO_PART:
            if rate.median() < LOW and judge_learning(data).answer == "no":
                evidence = (Evidence.last_of(rate, "too low to have a visible effect; 1e-4 to 1e-3 is usual"),)
                return RuleResult(0.6, evidence, int(rate.steps[0]), value=rate.median(), threshold=LOW)
            continue
        first = onset(rate, is_zero)
        evidence = (Evidence.near(rate, first, f"the rate is 0 in {is_zero.mean():.0%} of the points"),)
        return RuleResult(0.74, evidence, first, value=float(rate.values[is_zero][0]), threshold=TINY)
    return None


def _rate_of(data: SeriesSet, network: Network) -> Series | None:
    """Return the largest logged learning rate among the groups of a network; None if no rate was logged."""
    groups = [data[tags.GROUP_LR[group.name]].finite for group in groups_of(network)]
    logged = [rate for rate in groups if len(rate)]
    if not logged:
        return None
    # One group with a rate of 0 is intended if another group learns. A policy without an encoder logs only its head.
    return max(logged, key=lambda rate: rate.median())


def _by_steps(data: SeriesSet) -> RuleResult | None:
    for network in NETWORKS:
        head = groups_of(network)[-1].name
        norm = data[tags.GRADIENT_NORM[head]].finite
        if len(norm) < MIN_POINTS or not recent(norm).median() > A_GRADIENT:
            continue
        # Only the head is checked. If the encoder does not change but the head does, that is the diagnosis
        # encoder_frozen.
        ratio = data[tags.UPDATE_RATIO[head]].finite
        if len(ratio) >= MIN_POINTS and recent(ratio).abs_max() == 0.0:
            evidence = (
                Evidence.last_of(ratio, "the optimizer's steps are 0"),
                Evidence.last_of(norm, "although a gradient arrives"),
            )
            return RuleResult(0.7, evidence, onset(ratio, ratio.values == 0.0), value=0.0, threshold=TINY)
        mean, std = data[tags.PARAM_MEAN[head]].finite, data[tags.PARAM_STD[head]].finite
        if min(len(mean), len(std)) >= MIN_POINTS and not len(ratio) and _stands(mean) and _stands(std):
            evidence = (
                Evidence.last_of(std, f"has not changed over {len(std)} points"),
                Evidence.last_of(norm, "although a gradient arrives"),
            )
            return RuleResult(0.65, evidence, int(std.steps[0]), value=0.0, threshold=TINY)
    return None


def _stands(series: Series) -> bool:
    return float(series.values.max()) == float(series.values.min())
