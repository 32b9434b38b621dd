"""The critic scores the ACTOR's features, so the actor's encoder learns features that the critic overrates.

The loss ``-critic.q1(actor_encoder(s), actor(s))`` reaches the actor's encoder not through the action,
which a tanh bounds, but through the critic's state input, which nothing bounds. Signature: the actor's
loss runs away far beyond any Q on replayed pairs, while the critics stay calm and the gradient of the
actor's head is about 0 (its tanh is saturated). The encoder's gradient grows with the loss, unless the
norms were taken after clipping.
"""

from __future__ import annotations

import math

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.findings import Diagnosis, Evidence, bounded
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.q_support import UNSUPPORTED, QSupport, actor_loss_support
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.trends import growth_factor

ID = "feature_leak"
TITLE = "The critic scores the actor's features, and the actor's encoder learns to inflate Q"
REMEDY = (
    "Let the critic score its OWN features of the observation in the actor's loss: "
    "actor_loss = -critic.q1(critic_encoder(s), actor(s)).mean(), so that the actor's encoder is reached through "
    "the action alone. Gradient clipping cannot cure it: Adam is nearly scale-invariant, a clipped gradient that "
    "points the wrong way on every update still arrives."
)
MIN_POINTS = 5
MLP_IS_STILL = 1e-3
"""Median gradient of the actor's head over that of its encoder, below which the head does not move."""


def diagnose(data: SeriesSet) -> Diagnosis | None:
    """Find a loss that the replayed Q values do not support, and hold the gradients against it."""
    loss = data[tags.ACTOR_LOSS].finite
    support = actor_loss_support(data)
    if support is None or len(loss) < MIN_POINTS or data.flag(tags.ENCODER_IS_SHARED):
        return None
    grows = growth_factor(loss) >= 10.0 or support.ratio > 10 * UNSUPPORTED
    if support.ratio <= UNSUPPORTED or support.loss >= 0 or not grows:
        return None
    confidence = 0.45 + 0.25 * min(1.0, math.log10(support.ratio / UNSUPPORTED) / 3)
    confidence -= 0.15 if support.estimated else 0.0
    evidence = _loss_evidence(data, support)
    for weight, found in (_still_head(data), _encoder_norm(data), _calm_critic(data), _policy_q(data, support)):
        confidence += weight
        evidence += found
    return Diagnosis(ID, TITLE, bounded(confidence), tuple(evidence), REMEDY, support.first_unsupported_step)


def _loss_evidence(data: SeriesSet, support: QSupport) -> list[Evidence]:
    note = f"ends at {rounded(support.ratio)} times {support.scale_in_words}"
    evidence = [Evidence.last_of(data[tags.ACTOR_LOSS].finite, note)]
    q1 = data[tags.Q1_VALUE].finite
    if len(q1):
        evidence.append(Evidence.last_of(q1, "Q on replayed pairs stays calm meanwhile"))
    return evidence


def _still_head(data: SeriesSet) -> tuple[float, list[Evidence]]:
    head = data[tags.GRADIENT_NORM["actor_mlp"]].finite
    encoder = data[tags.GRADIENT_NORM["actor_cnn"]].finite
    if len(head) < MIN_POINTS or len(encoder) < MIN_POINTS:
        return 0.0, []
    if head.tail(0.5).median() > MLP_IS_STILL * encoder.tail(0.5).median():
        return -0.1, []
    return 0.15, [Evidence.last_of(head, "the actor's head gets no gradient: the loss does not act through the action")]


def _encoder_norm(data: SeriesSet) -> tuple[float, list[Evidence]]:
    encoder = data[tags.GRADIENT_NORM["actor_cnn"]].finite
    if len(encoder) < MIN_POINTS:
        return 0.0, []
    growth = growth_factor(encoder)
    if growth >= 10.0:
        return 0.1, [
            Evidence.largest_of(encoder, f"the encoder's gradient grows with the loss, {rounded(growth)} times")
        ]
    if norms_are_flat(data):
        return 0.1, [Evidence.last_of(encoder, "constant while the loss runs away: taken after clipping")]
    return -0.1, []


def _calm_critic(data: SeriesSet) -> tuple[float, list[Evidence]]:
    critic = data[tags.GRADIENT_NORM["critic_mlp"]].finite
    if len(critic) < MIN_POINTS:
        return 0.0, []
    calm = growth_factor(critic) < math.sqrt(max(growth_factor(data[tags.ACTOR_LOSS]), 1.0))
    return (0.05, [Evidence.last_of(critic, "the critics' gradients do not follow the loss")]) if calm else (-0.1, [])


def _policy_q(data: SeriesSet, support: QSupport) -> tuple[float, list[Evidence]]:
    policy_q = data[tags.POLICY_Q_VALUE].finite
    if len(policy_q) < MIN_POINTS:
        return 0.0, []
    end = float(np.median(policy_q.values[-3:]))
    if abs(end) * UNSUPPORTED < abs(support.loss):
        return 0.1, [
            Evidence.last_of(policy_q, "the critic's own value of the policy's actions is not what the loss says")
        ]
    return -0.15, []


def norms_are_flat(data: SeriesSet) -> bool:
    """Return whether the encoder's norm varies by less than a tenth over the later half of the run."""
    later = data[tags.GRADIENT_NORM["actor_cnn"]].finite.tail(0.5).values
    if later.size < 3 or not np.median(later) > 0:
        return False
    low, high = np.quantile(later, (0.1, 0.9))
    return bool((high - low) / np.median(later) < 0.1)
