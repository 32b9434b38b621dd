"""Compute how large each named term of the reward is in comparison with the other terms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis import own_scale
from sb3_visual_td3.diagnosis.numerals import number, percent
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.tag_search import find_reward_terms
from sb3_visual_td3.report.document import Code, Flag, Section, Sentence, Table, columns

PREFIX = "reward/"

DOMINATES = 0.8
"""A term with at least this share of the sum of magnitudes dominates the reward. This limit is a guess. In the
CARLA run that started this project, the dominant term had a share of 0.93 to 0.95."""


@dataclass(frozen=True)
class RewardTerm:
    """Hold one term of the reward, multiplied by its weight.

    :param tag: the logged name
    :param n: number of points
    :param mean: mean of its points; the sign tells a bonus from a penalty
    :param min: smallest of its points
    :param max: largest of its points
    :param mean_magnitude: mean of its magnitudes
    :param share: share in the sum of all terms' mean magnitudes, in [0, 1]; None if all terms are 0
    """

    tag: str
    n: int
    mean: float
    min: float
    max: float
    mean_magnitude: float
    share: float | None

    @property
    def name(self) -> str:
        """Return the name of the term, without the prefix of the tag."""
        return self.tag.removeprefix(PREFIX)


@dataclass(frozen=True)
class Rewards:
    """Hold the numbers for the report's section on rewards.

    :param terms: the logged terms of the reward, the largest share first
    :param critic_range: smallest and largest reward that the critic was trained on; None if not logged
    :param is_normalized: whether these rewards were scaled; None if not logged
    """

    terms: tuple[RewardTerm, ...]
    critic_range: tuple[float, float] | None
    is_normalized: bool | None

    @property
    def dominating(self) -> RewardTerm | None:
        """Return the term that dominates the reward; None if no term does, or if there is only one term."""
        if len(self.terms) < 2 or (self.terms[0].share or 0.0) < DOMINATES:
            return None
        return self.terms[0]


def rewards(data: SeriesSet) -> Rewards:
    """Compute how much each logged reward term contributes to the reward."""
    series = [term for name in find_reward_terms(data.names()) if len(term := data[name].finite)]
    magnitudes = [float(np.abs(term.values).mean()) for term in series]
    total = sum(magnitudes)
    terms = [
        _term(term, size, size / total if 0 < total < math.inf else None)
        for term, size in zip(series, magnitudes, strict=True)
    ]
    low, high = data[tags.REWARD_MIN].finite.values, data[tags.REWARD_MAX].finite.values
    # Sorting by size and then by name makes the order independent of the order in the log.
    return Rewards(
        terms=tuple(sorted(terms, key=lambda term: (-term.mean_magnitude, term.tag))),
        critic_range=(float(low.min()), float(high.max())) if low.size and high.size else None,
        is_normalized=own_scale.rewards_are_scaled(data),
    )


def _term(series: Series, mean_magnitude: float, share: float | None) -> RewardTerm:
    return RewardTerm(
        tag=series.name,
        n=len(series),
        mean=series.mean(),
        min=float(series.values.min()),
        max=float(series.values.max()),
        mean_magnitude=mean_magnitude,
        share=share,
    )


def rewards_section(found: Rewards) -> Section:
    """Return the section on the reward; if no term was logged, the section only says so."""
    sentences: list[Sentence] = [_lead(found)]
    if found.critic_range is not None:
        low, high = found.critic_range
        kind = {True: "scaled rewards", False: "unscaled rewards", None: "rewards"}[found.is_normalized]
        sentences.append((f"The critic was trained on {kind}. They range from {number(low)} to {number(high)}.",))
    if not found.terms:
        return Section("rewards", "Reward terms", tuple(sentences))
    return Section("rewards", "Reward terms", tuple(sentences), (_table(found),))


def _lead(found: Rewards) -> Sentence:
    if not found.terms:
        return ("Unknown: no term was logged under ", Code(PREFIX), ".")
    if found.dominating is not None:
        share = percent(found.dominating.share)
        return (
            Code(found.dominating.tag),
            f" makes up {share} of the sum of all terms' magnitudes: the policy learns this term and little else.",
        )
    largest = found.terms[0]
    if largest.share is None:
        return ("The largest term of the reward is ", Code(largest.tag), ".")
    share = percent(largest.share)
    return ("The largest term of the reward is ", Code(largest.tag), f", {share} of the sum of all terms' magnitudes.")


def _table(found: Rewards) -> Table:
    rows = tuple(
        (
            Code(term.tag),
            Flag(f"{percent(term.share)}, dominates") if term == found.dominating else percent(term.share),
            number(term.mean),
            number(term.mean_magnitude),
            number(term.min),
            number(term.max),
            number(term.n),
        )
        for term in found.terms
    )
    heads = ("Share of the sum of |terms|", "Mean per step", "Mean magnitude", "Smallest", "Largest", "Points")
    return Table(columns("Term", *heads), rows)
