"""Answer "is it stable?" in the scale of the run's own returns, from the tags that its algorithm logs anyway.

A Q value of 2,000 is plausible if episodes return 5,000, and has diverged if they return 100. Every check therefore
compares a series with the returns of the same run, or with its own early part.

A check may find a sign that the training is unstable. One *clear* sign makes the answer "no". Without a clear sign, the
*weak* signs decide:

- If the return does not show learning, one weak sign makes the answer "unknown", and two make it "no".
- If the return shows learning, two weak signs make the answer "unknown". A single weak sign changes the answer from
  "yes" to "unknown" only if ``Sign.casts_doubt`` is True.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.return_curve import Answer
from sb3_visual_td3.diagnosis.run_kind import Family, RunKind
from sb3_visual_td3.diagnosis.series import (
    FloatArray,
    Series,
    SeriesSet,
    ended_not_finite,
    not_finite_from,
    once_per_run,
)
from sb3_visual_td3.diagnosis.tag_search import (
    ACTOR_WORDS,
    CRITIC_WORDS,
    find_actor_losses,
    find_critic_losses,
    find_lengths,
    find_q_values,
    find_returns,
    is_entropy,
    is_entropy_coefficient,
    words_of,
)
from sb3_visual_td3.diagnosis.trends import moving_medians

HORIZON = 100.0
"""Q is assumed to be the sum of the rewards of this many future steps: 1 / (1 - 0.99). Nearly all public runs have a
discount of 0.99 or less."""
MAX_Q_PER_RETURN = 10.0
"""If a time limit cuts the episodes, Q may exceed their returns, but never by more than this factor."""
ENTROPY_BONUS = 10.0
"""The |entropy| of SAC's policy is assumed to be at most this large, in nats. SAC's default target for the entropy is
-1 nat per dimension of the action, so the value is enough for ten dimensions."""
NORMALISED_Q = 50.0
"""A |Q| up to this value is always allowed. With VecNormalize, Q is of the order of 10."""
SCALED_Q = 300.0
"""If the run logged that its rewards were scaled, a |Q| up to this value is always allowed, instead of
``NORMALISED_Q``. If the divisors of the rewards were also logged, this value is multiplied by the largest divisor. The
product is in the unit of the logged returns."""

Q_NOTED, Q_CLEAR, Q_HOPELESS = 1.5, 5.0, 20.0
"""Limits for the ratio of |Q| to the largest |Q| that the returns allow. A ratio of at least ``Q_NOTED`` is a weak
sign of instability. A ratio of at least ``Q_CLEAR`` is a clear sign, but only a weak one if the return shows learning.
A ratio of at least ``Q_HOPELESS`` is always a clear sign. The ratio was at most 0.35 in public runs that learned, and
2.4 to 3.6 in a diverged run."""
ERROR_NOTED, ERROR_CLEAR = 0.05, 1.0
"""Limits for the ratio of the critic's error (the square root of its loss) to the largest |return|. A ratio of at
least ``ERROR_NOTED`` is a weak sign of instability. A ratio of at least ``ERROR_CLEAR`` is a clear sign, but only a
weak one if the return shows learning. The ratio was below 0.013 in runs that learned, and 0.09 to 0.15 in diverged
runs."""
SMALL_RETURN, ERROR_SMALL = 2.0, 0.2
"""If the largest |return| is at most ``SMALL_RETURN``, a critic's error below ``ERROR_SMALL`` that does not grow casts
no doubt on a run that learns."""
SPREAD_NOTED, SPREAD_CLEAR = 3.0, 5.0
"""Limits for the factor by which the standard deviation of the policy's actions grows over the run. A factor of at
least ``SPREAD_NOTED`` is a weak sign of instability. A factor of at least ``SPREAD_CLEAR`` is a clear sign, but only a
weak one if the return shows learning."""
ENTROPY_LEFT = 0.1
"""A policy counts as no longer exploring if its entropy falls to this fraction of its first value."""
LARGEST_ENTROPY = float(np.log(1000.0))
"""The entropy of 1,000 equally likely actions. If a policy's entropy starts above this value, its actions do not count
as discrete."""
ROUNDING = 1e-3
"""The entropy of discrete actions is never below 0, except for rounding errors of at most this size."""
EXPLAINED_NOTED = 0.05
"""A value function with a median explained variance below this value counts as no better than a constant."""
EXPLAINED_DIVERGED, VALUE_LOSS_GREW, VALUE_ERROR_LARGE = -1.0, 10.0, 0.2
"""A value function has diverged if its explained variance is below ``EXPLAINED_DIVERGED`` (its errors vary at least
twice as much as the returns), its loss has grown by the factor ``VALUE_LOSS_GREW``, and the root of its loss is above
``VALUE_ERROR_LARGE`` times the largest |return|. One of the first two alone is usual: the loss grows with the square of
the returns, and returns that are all about equal give a low explained variance. In public runs that learned, the
explained variance was 0.5 to 0.95."""
KL_NOTED = 1.0
"""Policy updates are too large if the median of the logged KL divergence (``approx_kl``) exceeds this value. PPO aims
at 0.01 to 0.05."""
KL_STOPPED = 1e-7
"""Policy updates have no effect if the median of the logged KL divergence (``approx_kl``) is below this value."""
MIN_POINTS = 10
"""Most checks ignore tags with fewer points than this."""


@dataclass(frozen=True)
class Sign:
    """Hold one sign that a training run is unstable.

    :param id: the name of the sign, such as ``critic_error``
    :param is_clear: whether this sign alone proves the instability; if False, the sign is weak
    :param tag: the series that shows the sign
    :param step: the step at which the sign is strongest; None if the whole run shows it
    :param value: the measured number
    :param threshold: the limit that ``value`` has crossed
    :param words: the sign in words, with its numbers
    :param casts_doubt: whether this weak sign alone makes the answer "unknown" for a run that learns; not used for a
        clear sign
    """

    id: str
    is_clear: bool
    tag: str
    step: int | None
    value: float
    threshold: float
    words: str
    casts_doubt: bool = True


class NotMade(NamedTuple):
    """Record that a check could not be made with the logged tags.

    :param missing: the tags or facts that the check needs, as text
    """

    missing: str


Found = Sign | NotMade | None
"""The result of a check; None if the check found no sign of a failure."""


@dataclass(frozen=True)
class Stability:
    """Hold the answer to "is it stable?" for one run.

    :param answer: the answer for the whole run
    :param checks: ids of the checks that the logged tags allowed
    :param signs: the signs against stability, clear signs first
    """

    answer: Answer
    checks: tuple[str, ...]
    signs: tuple[Sign, ...]


def judge_stability(data: SeriesSet, kind: RunKind, learning: Answer = "unknown") -> Stability:
    """Answer "is it stable?" for one run.

    :param data: the series of the run
    :param kind: the kind of algorithm, which decides what Q and the losses mean
    :param learning: the answer to "is it learning?"; if it is "yes", signs of instability count less
    """
    checks: list[tuple[str, Callable[[SeriesSet, RunKind, Answer], Found]]] = [
        ("finite_losses", finite_losses),
        ("learning_rate", learning_rate),
    ]
    if kind.family is Family.OFF_POLICY or kind.family is Family.VALUE_BASED:
        checks += [("q_within_returns", q_within_returns), ("critic_error", critic_error)]
    if kind.family is Family.ON_POLICY:
        checks += [
            ("policy_spread", policy_spread),
            ("policy_entropy", policy_entropy),
            ("explained_variance", explained_variance),
            ("policy_steps", policy_steps),
        ]
    made: list[str] = []
    signs: list[Sign] = []
    for identifier, check in checks:
        found = check(data, kind, learning)
        if isinstance(found, NotMade):
            continue
        made.append(identifier)
        if found is not None:
            signs.append(found)
    signs.sort(key=lambda sign: not sign.is_clear)
    if not made and learning != "yes":
        return Stability("unknown", (), ())
    # If only a return is logged, and it rises and holds its level, the critic cannot have diverged.
    return Stability(_answer(signs, learning), tuple(made), tuple(signs))


def _answer(signs: Sequence[Sign], learning: Answer) -> Answer:
    if any(sign.is_clear for sign in signs):
        return "no"
    if learning == "yes":
        # A rising return outweighs weak signs.
        return "unknown" if len(signs) >= 2 or any(sign.casts_doubt for sign in signs) else "yes"
    if len(signs) >= 2:
        return "no"
    return "unknown" if signs else "yes"


# ---- Every kind

_LOSS_WORDS = {"loss", "losses", "q", "q1", "q2", "qf1", "qf2", "kl", "entropy", "alpha", "coef", "std", "norm", "grad"}


def finite_losses(data: SeriesSet, _kind: RunKind, _learning: Answer) -> Found:
    """Look for losses, Q values and other tags that end as NaN or infinity.

    A tag that is finite again at the end does not count. ``explained_variance`` is left out, because SB3 writes NaN if
    all returns of a rollout are equal.
    """
    ended = ended_not_finite(data)
    if ended is not None:
        words = f"ExplosionAlertCallback ended the training at {ended:,}: a number was not finite"
        return Sign("non_finite", True, tags.alert_of_rule("non_finite"), ended, 1.0, 0.0, words)
    # The bound of undiscounted returns is infinite by definition.
    names = [name for name in data.names() if name not in tags.DERIVED]
    names = [name for name in names if set(words_of(name)) & _LOSS_WORDS and "explained" not in words_of(name)]
    if not names:
        return NotMade("a loss")
    for name in names:
        series = data[name]
        step = not_finite_from(series)
        if step is not None:
            words = f"{name} is not finite from {step:,} on"
            return Sign("non_finite", True, name, step, float(series.values[-1]), 0.0, words)
    return None


def learning_rate(data: SeriesSet, _kind: RunKind, _learning: Answer) -> Found:
    """Look for a learning rate that is 0 for most of the run; a schedule may reach 0 at the end."""
    rates = largest_rates(data, min_points=3)
    if not rates:
        return NotMade("a learning rate")
    for series in rates:
        part = float(np.mean(series.values == 0.0))
        if part > 0.5:
            words = f"{series.name} is 0 in {part:.0%} of the points: nothing is learned"
            return Sign("frozen_by_learning_rate", True, series.name, int(series.steps[0]), 0.0, 0.0, words)
    return None


def rate_tags(names: Iterable[str]) -> list[str]:
    """Return the tags that hold the learning rate of a run.

    Rates of single parameter groups are left out, because a user may set the rate of one group to 0.
    """
    others = set(tags.GROUP_LR.values())
    found = []
    for name in names:
        words = set(words_of(name))
        is_rate = {"learning", "rate"} <= words or "lr" in words
        if is_rate and "alerts" not in words and name not in others:
            found.append(name)
    return found


def largest_rates(data: SeriesSet, min_points: int) -> list[Series]:
    """Return the largest learning rate of the run, and the largest ones of its actor and of its critic if logged.

    A program may log one rate for each group of parameters, and a user may set the rate of one group to 0.

    :param data: the series of the run
    :param min_points: rates with fewer finite points are left out
    """
    names = [name for name in rate_tags(data.names()) if len(data[name].finite) >= min_points]
    of_networks = ([name for name in names if words & set(words_of(name))] for words in (ACTOR_WORDS, CRITIC_WORDS))
    parts = [part for part in (names, *of_networks) if part]
    return [max((data[name].finite for name in part), key=lambda rate: rate.median()) for part in parts]


# ---- Critics of off-policy algorithms


class ReturnScale(NamedTuple):
    """Hold how large the returns of a run are, and how large Q can be with such returns.

    :param largest: the 99 % quantile of |return|
    :param allowed_q: the largest plausible mean |Q|, in the unit of the logged returns; at least ``normalised_q``
    :param normalised_q: the largest mean |Q| that is plausible for normalised rewards; converted to the unit of the
        logged returns if the divisors of the rewards were logged
    """

    largest: float
    allowed_q: float
    normalised_q: float


def divisors_of_rewards(data: SeriesSet) -> Series:
    """Return the logged numbers by which VisualTD3 divided the rewards; empty if it logged none."""
    divisors = data[tags.REWARD_DIVISOR].finite
    return divisors.where(divisors.values > 0.0)


def rewards_are_scaled(data: SeriesSet) -> bool | None:
    """Return whether the critic was trained on scaled rewards; None if the log does not show it."""
    if np.any(divisors_of_rewards(data).values != 1.0):
        return True
    return data.flag(tags.REWARD_IS_NORMALIZED)


def in_unit_of_returns(data: SeriesSet, series: Series, power: int = 1) -> Series:
    """Convert Q values or losses of the critic to the unit of the logged returns.

    They have another unit if VisualTD3 divided the rewards (``scale_rewards``). Without a logged divisor, the series
    stays as it is.

    :param data: the series of the run
    :param series: the series to convert
    :param power: 1 for Q values, 2 for squared errors (and approximately for the Huber loss)
    """
    divisors = divisors_of_rewards(data)
    if not len(divisors):
        return series
    at_steps = np.interp(series.steps.astype(np.float64), divisors.steps.astype(np.float64), divisors.values)
    return Series(series.name, series.steps, series.values * at_steps**power)


@once_per_run
def return_scale(data: SeriesSet) -> ReturnScale | None:
    """Return the limits for Q that follow from the logged returns and lengths; None if too few returns were logged.

    |Q| stays within the largest |return|, unless rewards of both signs cancel. If a time limit cuts the episodes, Q may
    be up to ``HORIZON / length`` times as large, because SB3's critics also count the rewards after the time limit.
    """
    values = [np.abs(data[tag.name].finite.values) for tag in find_returns(data.names())]
    returns = np.concatenate(values) if values else np.empty(0)
    if returns.size < MIN_POINTS:
        return None
    largest = float(np.quantile(returns, 0.99))
    length_tag = find_lengths(data.names())
    stretch = 1.0
    if length_tag is not None:
        length = data[length_tag].median()
        if length > 0:
            stretch = min(max(1.0, HORIZON / length), MAX_Q_PER_RETURN)
    normalised_q = NORMALISED_Q
    if rewards_are_scaled(data):
        divisors = divisors_of_rewards(data).values
        normalised_q = SCALED_Q * (float(divisors.max()) if divisors.size else 1.0)
    return ReturnScale(largest, max(largest * stretch, normalised_q), normalised_q)


def q_within_returns(data: SeriesSet, kind: RunKind, learning: Answer) -> Found:
    """Check whether Q stays within the range that the run's returns allow.

    If no Q values were logged, the negated actor loss is used as Q. In SAC, Q may exceed the returns by the sum of the
    entropy bonuses.
    """
    scale = return_scale(data)
    q = q_series(data, kind)
    if scale is None or q is None or len(q) < MIN_POINTS:
        return NotMade("returns" if scale is None else "Q values or the actor's loss")
    allowed = scale.allowed_q + HORIZON * ENTROPY_BONUS * entropy_coefficient(data, q)
    ratio, step = _worst_window(q, np.abs(q.values) / allowed)
    if ratio < Q_NOTED:
        return None
    is_clear = ratio >= Q_HOPELESS or (ratio >= Q_CLEAR and learning != "yes")
    words = (
        f"{q.name} reaches {rounded(ratio)} times what the returns allow (largest |return| {rounded(scale.largest)}), "
        f"near step {step:,}"
    )
    return Sign("q_beyond_returns", is_clear, q.name, step, ratio, Q_CLEAR if is_clear else Q_NOTED, words)


def critic_error(data: SeriesSet, kind: RunKind, learning: Answer) -> Found:
    """Compare the square root of the critic's loss with the scale of the returns.

    The first tenth of the points is left out. If the rewards were normalised, the Q values give the scale.
    """
    scale = return_scale(data)
    loss = critic_loss(data)
    if scale is None or loss is None or len(loss) < MIN_POINTS:
        return NotMade("returns" if scale is None else "the critic's loss")
    unit = scale.largest
    q = q_series(data, kind)
    if q is not None and len(q):
        # The critic may learn from scaled rewards while the logged returns are unscaled. If |Q| exceeds the returns
        # but is plausible for normalised rewards, |Q| gives the scale of the critic's targets.
        size = float(np.quantile(np.abs(q.values), 0.95))
        if unit < size <= scale.normalised_q:
            unit = size
    if unit <= 0.0:
        return NotMade("returns other than 0")
    later = Series(loss.name, loss.steps[len(loss) // 10 :], loss.values[len(loss) // 10 :])
    error, step = _worst_window(later, np.sqrt(np.maximum(later.values, 0.0)) / unit)
    if error < ERROR_NOTED:
        return None
    is_clear = error >= ERROR_CLEAR and learning != "yes"
    words = (
        f"the critic's error, root of {loss.name}, reaches {rounded(error)} of the largest |return| "
        f"({rounded(unit)}) near step {step:,}"
    )
    limit = ERROR_CLEAR if is_clear else ERROR_NOTED
    # If an episode returns about 1 for its last step, an error of a tenth of that is usual. The loss of a critic that
    # diverges grows.
    first, late = _ends(later)
    grows = late > 2.0 * first
    is_small = unit <= SMALL_RETURN and error < ERROR_SMALL
    return Sign("critic_error", is_clear, loss.name, step, error, limit, words, casts_doubt=grows or not is_small)


def q_series(data: SeriesSet, kind: RunKind) -> Series | None:
    """Return the Q values of a run, converted to the unit of the logged returns.

    If no Q values were logged, the negated loss of the actor is used as Q. This is possible only for off-policy
    algorithms. In SAC, the actor's loss also contains an entropy term.

    :return: the series; None if the run logged no Q values and no usable actor loss
    """
    q_values = find_q_values(data.names())
    if q_values:
        return in_unit_of_returns(data, data[q_values[0]].finite)
    losses = find_actor_losses(data.names())
    if kind.family is not Family.OFF_POLICY or not losses:
        return None
    loss = data[losses[0]].finite
    return in_unit_of_returns(data, Series(loss.name, loss.steps, -loss.values))


def critic_loss(data: SeriesSet) -> Series | None:
    """Return the critic's loss, converted to the squared unit of the logged returns; None if no loss was logged."""
    losses = find_critic_losses(data.names())
    return in_unit_of_returns(data, data[losses[0]].finite, power=2) if losses else None


def entropy_coefficient(data: SeriesSet, at: Series) -> FloatArray | float:
    """Return SAC's entropy coefficient at the steps of another series; 0 if no coefficient is logged."""
    names = [name for name in data.names() if is_entropy_coefficient(name) and len(data[name].finite)]
    if not names:
        return 0.0
    series = data[min(names)].finite
    return np.interp(at.steps.astype(np.float64), series.steps.astype(np.float64), np.maximum(series.values, 0.0))


# ---- Policies of on-policy algorithms


def policy_spread(data: SeriesSet, _kind: RunKind, learning: Answer) -> Found:
    """Look for a standard deviation of the actions that grows to a multiple of its first value."""
    series = action_std(data)
    if series is None:
        return NotMade("the standard deviation of the actions")
    first, late = _ends(series)
    if first <= 0.0:
        return NotMade("a standard deviation above 0")
    growth = late / first
    if growth < SPREAD_NOTED:
        return None
    is_clear = growth >= SPREAD_CLEAR and learning != "yes"
    words = f"{series.name} grows from {rounded(first)} to {rounded(late)}: the actions turn into noise"
    last = int(series.steps[-1])
    return Sign("action_noise_explodes", is_clear, series.name, last, growth, SPREAD_NOTED, words)


def policy_entropy(data: SeriesSet, _kind: RunKind, _learning: Answer) -> Found:
    """Look for a discrete policy that has stopped exploring: its entropy falls to a tenth of the first value."""
    series = discrete_entropy(data)
    if series is None:
        return NotMade("the entropy of a discrete policy")
    # A policy begins with uniform actions; an average over the first tenth would miss a fast collapse.
    first = float(series.values[0])
    late = _ends(series)[1]
    if first <= 0.0 or late > ENTROPY_LEFT * first:
        return None
    words = f"the entropy ({series.name}) falls from {rounded(first)} to {rounded(late)}: the policy no longer explores"
    return Sign(
        "entropy_collapse",
        False,
        series.name,
        int(series.steps[-1]),
        late / first,
        ENTROPY_LEFT,
        words,
        casts_doubt=False,
    )


def explained_variance(data: SeriesSet, kind: RunKind, learning: Answer) -> Found:
    """Look for a value function whose median explained variance over the later half is about 0.

    If the policy no longer explores, the median over the whole run also counts. For a run that learns, only a value
    function that diverges is a reason for doubt.
    """
    series = named(data, {"explained", "variance"})
    if series is None:
        return NotMade("the explained variance")
    value = float(np.median(series.values[len(series) // 2 :]))
    if isinstance(policy_entropy(data, kind, learning), Sign):
        # The returns of a policy that no longer explores are easy to explain.
        value = min(value, float(np.median(series.values)))
    if value >= EXPLAINED_NOTED:
        return None
    words = f"{series.name} has the median {rounded(value)}: the value function is no better than a constant"
    casts_doubt = learning != "yes"
    loss = named(data, {"value", "loss"})
    if value < EXPLAINED_DIVERGED and loss is not None:
        first, late = _ends(loss)
        scale = return_scale(data)
        # If all returns are about equal, the loss is small, and even a small error leaves their variance unexplained.
        is_large = scale is None or math.sqrt(max(late, 0.0)) > VALUE_ERROR_LARGE * scale.largest
        if late > VALUE_LOSS_GREW * first and is_large:
            casts_doubt = True
            words = (
                f"{series.name} has the median {rounded(value)}, and {loss.name} grows from {rounded(first)} to "
                f"{rounded(late)}: the value function diverges"
            )
    return Sign(
        "value_explains_nothing",
        False,
        series.name,
        int(series.steps[-1]),
        value,
        EXPLAINED_NOTED,
        words,
        casts_doubt=casts_doubt,
    )


def policy_steps(data: SeriesSet, _kind: RunKind, _learning: Answer) -> Found:
    """Use the logged KL divergence to find updates that change the policy far too much or not at all."""
    series = named(data, {"approx", "kl"}, must_not={"old"}) or named(data, {"kl", "divergence"})
    if series is None:
        return NotMade("the approximate KL")
    median = float(np.median(series.values))
    last = int(series.steps[-1])
    if median > KL_NOTED:
        words = f"{series.name} has the median {rounded(median)}: each update replaces the policy"
        return Sign("updates_too_large", False, series.name, last, median, KL_NOTED, words)
    if abs(median) < KL_STOPPED:
        words = f"{series.name} has the median {rounded(median)}: the updates do not change the policy"
        return Sign("policy_stopped_updating", False, series.name, last, median, KL_STOPPED, words)
    return None


_NOT_OF_ACTIONS = {"reward", "return", "rew", "length", "len", "param", "frame", "action", "eval", "loss", "q", "log"}
_NOT_OF_ACTIONS |= {"adv", "advantage", "advantages", "value", "values", "target", "grad", "gradient", "gradients"}
_NOT_OF_ACTIONS |= {"obs", "observation", "observations"}
# Words that say nothing about the quantity.
_PLAIN_WORDS = {"std", "train", "training", "rollout", "charts", "metrics", "stats", "info", "mean", "avg", "average"}


def action_std(data: SeriesSet) -> Series | None:
    """Return the standard deviation of the policy's actions; None if it has fewer than ``MIN_POINTS`` finite points.

    SB3's tag comes first. Other tags count if they name the policy, such as ``Policy/mean_noise_std``. They also count
    if they do not name what they measure, such as ``charts/std``. A tag such as ``train/adv_std`` does not count.
    """
    found = []
    for name in data.names():
        words = set(words_of(name))
        is_named_so = bool(words & ACTOR_WORDS) or all(word in _PLAIN_WORDS or word.isdigit() for word in words)
        if "std" in words and is_named_so and not words & _NOT_OF_ACTIONS and len(data[name].finite) >= MIN_POINTS:
            found.append(name)
    if not found:
        return None
    return data[min(found, key=lambda name: (name != tags.OF_SB3["std"], name))].finite


def discrete_entropy(data: SeriesSet) -> Series | None:
    """Return the entropy of a discrete policy in nats; None if fewer than ``MIN_POINTS`` finite points were logged.

    The result is also None if the entropy may be that of continuous actions, whose entropy can be negative or large.
    """
    if action_std(data) is not None or named(data, {"log", "std"}) is not None:
        return None
    names = (name for name in data.names() if is_entropy(name) and len(data[name].finite) >= MIN_POINTS)
    series = next((data[name].finite for name in names), None)
    if series is None:
        return None
    values = series.values
    # SB3's entropy_loss is the negated entropy; other code also gives this name to the entropy itself.
    if "loss" in words_of(series.name) and values[0] < 0.0:
        values = -values
    if float(values.min()) < -ROUNDING or float(values[0]) > LARGEST_ENTROPY:
        return None
    return Series(series.name, series.steps, values)


def named(data: SeriesSet, words: set[str], must_not: Iterable[str] = ()) -> Series | None:
    """Return the finite points of the first tag that has a matching name and enough finite points.

    :param data: the series of the run
    :param words: words that the name has to contain
    :param must_not: words that the name must not contain
    :return: at least ``MIN_POINTS`` points; None without such a tag
    """
    for name in data.names():
        known = set(words_of(name))
        if words <= known and not known & set(must_not) and len(data[name].finite) >= MIN_POINTS:
            return data[name].finite
    return None


def _ends(series: Series) -> tuple[float, float]:
    """Return the medians of the first and of the last tenth of the points, each from at least three points."""
    window = max(3, len(series) // 10)
    return float(np.median(series.values[:window])), float(np.median(series.values[-window:]))


def _worst_window(series: Series, ratios: FloatArray) -> tuple[float, int]:
    """Return the largest median of ``ratios`` over a moving window, and the last step of the window that has it."""
    window = max(3, ratios.size // 20)
    begins, medians = moving_medians(ratios, window)
    worst = int(np.argmax(medians))
    return float(medians[worst]), int(series.steps[min(int(begins[worst]) + window, ratios.size) - 1])
