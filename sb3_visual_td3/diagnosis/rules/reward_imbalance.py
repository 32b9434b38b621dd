"""One term makes up nearly all of the reward: the other terms hardly influence what the policy learns.

The share of a term is its mean magnitude per step, divided by the sum of these means over all terms. In healthy runs on
LiteDriving-v0, the largest share was 0.4 to 0.7. In a run with one weight raised from 0.6 to 20, it was 0.95.
"""

from __future__ import annotations

import numpy as np

from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult, SettingChange
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.tag_search import find_reward_terms
from sb3_visual_td3.diagnosis.trends import onset

ID = "reward_imbalance"
TITLE = "One term makes up nearly all of the reward"
REMEDY = (
    "Choose the weights so that every term can change what the policy prefers: lower the weight of the term named in "
    "the evidence, or raise the other weights, until no term makes up more than about two thirds of the reward while "
    "the policy drives."
)
IS_LIVE = False
CURE = Cure(
    changes=(
        SettingChange(
            key="env_kwargs.reward",
            to="balanced",
            envs=(
                "LiteDriving-v0",
                "CarlaDriving-v0",
            ),
            default="balanced",
            reason="the default weights of these environments, with which no term dominates the sum",
        ),
    ),
    code=("The weights of the terms belong to the environment, not to the algorithm's settings."),
)

DOMINATES = 0.9
"""A term dominates the reward if its share is above this value."""

MIN_POINTS = 5
MIN_TERMS = 2
"""The rule judges a run only if at least this many reward terms were logged that are not always 0."""

_OF_ANY_TERM = (
    "feature_leak",
    "learning_rate_too_high",
    "critic_overestimation",
    "actor_saturation",
    "vanishing_actor_gradient",
    "dead_camera",
    "encoder_frozen",
    "non_finite",
)
EXPLAINED_BY = (*_OF_ANY_TERM, "episode_collapse")
"""Diagnoses that may cause a dominating penalty. Those in ``_OF_ANY_TERM`` may also cause a dominating bonus. In very
short episodes (episode_collapse), the penalty for an accident is nearly the whole reward."""

UNSURE = 0.45
"""The confidence if the dominating term is a penalty. The value is below 0.5, so that the report never calls the
penalty the cause of another diagnosis."""


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Compare the mean magnitudes of the logged reward terms over the later half of the run."""
    # A term that is always 0 is no part of this reward, as if its weight were 0. `visual-td3 doctor` does not report it
    # as an imbalance either.
    terms = [series for name in find_reward_terms(data.names()) if (series := data[name].finite).values.any()]
    if len(terms) < MIN_TERMS or max(map(len, terms)) < MIN_POINTS:
        return None
    # Magnitudes are averaged, because a term that alternates between bonus and penalty has a mean near 0 and still
    # shapes the policy.
    sizes = {term.name: float(np.abs(term.tail(0.5).values).mean()) for term in terms}
    total = sum(sizes.values())
    if not 0 < total < np.inf:
        return None
    largest = max(terms, key=lambda term: sizes[term.name])
    share = sizes[largest.name] / total
    if share <= DOMINATES:
        return None
    others = max((term for term in terms if term is not largest), key=lambda term: sizes[term.name])
    evidence = (
        Evidence.last_of(largest, f"{share:.0%} of the sum of the terms' magnitudes, over the later half of the run"),
        Evidence.last_of(others, f"the second largest term, {rounded(100 * sizes[others.name] / total)} % of the sum"),
    )
    # A dominating bonus is a flaw of the weights. A dominating penalty may just mean that the policy fails.
    is_penalty = largest.tail(0.5).mean() < 0
    confidence = 0.5 + 0.2 * (share - DOMINATES) / (1 - DOMINATES)
    if is_penalty:
        confidence = UNSURE
    return RuleResult(
        confidence,
        evidence,
        _since(largest, terms),
        value=share,
        threshold=DOMINATES,
        explained_by=EXPLAINED_BY if is_penalty else _OF_ANY_TERM,
    )


def _since(largest: Series, terms: list[Series]) -> int | None:
    """Return the step from which the largest term outweighs the other reward terms; None if it never does."""
    # Only terms that were logged at the same steps as the largest term can be added to it. Terms that the same callback
    # logs share their steps.
    together = [term for term in terms if np.array_equal(term.steps, largest.steps)]
    total = np.sum([np.abs(term.values) for term in together], axis=0)
    return onset(largest, np.abs(largest.values) > DOMINATES * total)
