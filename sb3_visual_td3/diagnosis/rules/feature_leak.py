"""The critic scores the ACTOR's features, so the actor's encoder learns features that the critic overrates.

The loss ``-critic.q1(actor_encoder(s), actor(s))`` reaches the actor's encoder not only through the action, which a
tanh bounds, but also through the critic's state input, which nothing bounds. The loss then grows far beyond any Q on
replayed pairs, while the critics stay calm.

The gradients show the leak long before the loss does. The gradient norm of the actor's head, divided by that of the
actor's encoder, was between 1 and 10 with a correct loss. With the leak, this ratio was at most 0.1 at first, and fell
to 0 within a hundred updates.
"""

from __future__ import annotations

import math

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import ACTOR_CNN, ACTOR_MLP, CRITIC_MLP
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult, bounded
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.q_support import UNSUPPORTED, QSupport, actor_loss_support
from sb3_visual_td3.diagnosis.series import SeriesSet, aligned
from sb3_visual_td3.diagnosis.trends import growth_factor, onset, recent

ID = "feature_leak"
TITLE = "The critic scores the actor's features, and the actor's encoder learns to inflate Q"
REMEDY = (
    "In the actor's loss, let the critic score its OWN features of the observation: actor_loss = "
    "-critic.q1(critic_encoder(s), actor(s)).mean(). The loss then reaches the actor's encoder through the action "
    "alone. Gradient clipping does not cure it: Adam is nearly scale-invariant, so a clipped gradient that points in "
    "the wrong direction on every update still moves the weights."
)
IS_LIVE = True
EXPLAINED_BY: tuple[str, ...] = ()
CURE = Cure(
    code=(
        "No hyperparameter cures it: change the code so that the critic scores its own features of the observation in "
        "the actor's loss. VisualTD3 does so (--algo visual_td3)."
    ),
    code_in_visual_td3=(
        "VisualTD3's critic scores its own features, so this should be impossible: either other code made the run, "
        "or this is a bug. Please report it, with the event file."
    ),
)

MIN_POINTS = 5
HEAD_BYPASSED = 0.02
"""If the gradient norm of the actor's head is at most this fraction of the gradient norm of the actor's encoder, the
rule concludes that the gradient reaches the encoder without passing through the head."""

ENCODER_NEGLIGIBLE = 1e-3
"""The gradients are not judged if the gradient norm of the actor's encoder is at most this fraction of the gradient
norm of the critics' head."""


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Look for an actor's loss far beyond the Q of replayed pairs, or for a gradient that bypasses the actor's head.

    A run whose actor and critic share one encoder is not judged.
    """
    if data.flag(tags.ENCODER_IS_SHARED):
        return None
    found = [d for rule in (_unsupported_loss, _bypassed_head) if (d := rule(data)) is not None]
    return max(found, key=lambda d: d.confidence, default=None)


def _bypassed_head(data: SeriesSet) -> RuleResult | None:
    head, encoder = aligned(data[tags.GRADIENT_NORM[ACTOR_MLP.name]], data[tags.GRADIENT_NORM[ACTOR_CNN.name]])
    if len(head) < MIN_POINTS:
        return None
    # The gradient of the critics' head shows how large a gradient must be to matter: the ratio of two vanishing norms
    # means nothing.
    critic = data[tags.GRADIENT_NORM[CRITIC_MLP.name]].finite
    scale = recent(critic).median() if len(critic) else 1.0
    late_head, late_encoder = recent(head).median(), recent(encoder).median()
    if late_encoder <= ENCODER_NEGLIGIBLE * scale or late_head > HEAD_BYPASSED * late_encoder:
        return None
    ratio = late_head / late_encoder
    first = onset(head, head.values <= HEAD_BYPASSED * encoder.values)
    evidence = (
        Evidence.last_of(
            encoder, f"{rounded(1 / max(ratio, 1e-9))} times as large as the gradient of the actor's head"
        ),
        Evidence.last_of(head, "the gradient of the head, which lies between the encoder and the action"),
    )
    # The confidence begins at 0.76, and a live alert is critical from 0.75, so the gradients alone suffice. The
    # confidence rises to 0.9 as the ratio falls by another three orders of magnitude. The minimum of 1e-9 avoids a
    # division by 0.
    confidence = bounded(0.76 + 0.14 * min(1.0, math.log10(HEAD_BYPASSED / max(ratio, 1e-9)) / 3))
    return RuleResult(confidence, evidence, first, value=ratio, threshold=HEAD_BYPASSED)


def _unsupported_loss(data: SeriesSet) -> RuleResult | None:
    loss = data[tags.ACTOR_LOSS].finite
    support = actor_loss_support(data)
    if support is None or len(loss) < MIN_POINTS:
        return None
    # A healthy loss is minus the value of the policy's actions, so it is negative and of the order of Q. With the leak,
    # the magnitude of the loss exceeds ten times the largest |Q| on replayed pairs and has grown tenfold. Above a
    # hundred times the largest |Q|, the growth does not matter.
    grows = growth_factor(loss) >= 10.0 or support.ratio > 10 * UNSUPPORTED
    if support.ratio <= UNSUPPORTED or support.loss >= 0 or not grows:
        return None
    # The loss alone gives 0.45 to 0.7 (at 10,000 times Q). Each further sign of the leak raises the confidence. Logged
    # values that contradict the leak lower it. A live alert is critical from 0.75, so it needs at least one more sign.
    confidence = 0.45 + 0.25 * min(1.0, math.log10(support.ratio / UNSUPPORTED) / 3)
    # Without a logged Q, its scale is only an estimate from the critic's loss.
    if support.estimated:
        confidence -= 0.15
    evidence = _loss_evidence(data, support)
    for weight, found in (_still_head(data), _encoder_norm(data), _calm_critic(data), _policy_q(data, support)):
        confidence += weight
        evidence += found
    return RuleResult(
        bounded(confidence), evidence, support.first_unsupported_step, value=support.ratio, threshold=UNSUPPORTED
    )


def _loss_evidence(data: SeriesSet, support: QSupport) -> list[Evidence]:
    note = f"ends at {rounded(support.ratio)} times {support.scale_in_words}"
    evidence = [Evidence.last_of(data[tags.ACTOR_LOSS].finite, note)]
    q1 = data[tags.Q1_VALUE].finite
    if len(q1):
        evidence.append(Evidence.last_of(q1, "Q on replayed pairs stays calm at the same time"))
    return evidence


def _still_head(data: SeriesSet) -> tuple[float, list[Evidence]]:
    head = data[tags.GRADIENT_NORM[ACTOR_MLP.name]].finite
    encoder = data[tags.GRADIENT_NORM[ACTOR_CNN.name]].finite
    if len(head) < MIN_POINTS or len(encoder) < MIN_POINTS:
        return 0.0, []
    if head.tail(0.5).median() > HEAD_BYPASSED * encoder.tail(0.5).median():
        return -0.1, []
    return 0.15, [
        Evidence.last_of(head, "the actor's head receives no gradient: the loss does not act through the action")
    ]


def _encoder_norm(data: SeriesSet) -> tuple[float, list[Evidence]]:
    encoder = data[tags.GRADIENT_NORM[ACTOR_CNN.name]].finite
    if len(encoder) < MIN_POINTS:
        return 0.0, []
    # With the leak, the norm grows with the loss or, if it was logged after clipping, is constant. Any other course
    # speaks against the leak.
    growth = growth_factor(encoder)
    if growth >= 10.0:
        return 0.1, [
            Evidence.largest_of(encoder, f"the encoder's gradient grows with the loss, {rounded(growth)} times")
        ]
    if norms_are_flat(data):
        return 0.1, [Evidence.last_of(encoder, "constant while the loss diverges, so it was taken after clipping")]
    return -0.1, []


def _calm_critic(data: SeriesSet) -> tuple[float, list[Evidence]]:
    critic = data[tags.GRADIENT_NORM[CRITIC_MLP.name]].finite
    if len(critic) < MIN_POINTS:
        return 0.0, []
    # In logarithms: the critics' gradients grow less than half as fast as the loss.
    calm = growth_factor(critic) < math.sqrt(max(growth_factor(data[tags.ACTOR_LOSS]), 1.0))
    if not calm:
        return -0.1, []
    return 0.05, [Evidence.last_of(critic, "the critics' gradients do not follow the loss")]


def _policy_q(data: SeriesSet, support: QSupport) -> tuple[float, list[Evidence]]:
    policy_q = data[tags.POLICY_Q_VALUE].finite
    if len(policy_q) < MIN_POINTS:
        return 0.0, []
    end = float(np.median(policy_q.values[-3:]))
    # In a run with the leak, the critic values the same actions on its OWN features far below what the loss claims. If
    # it agrees with the loss instead, the critics overestimate, which is another cause.
    if abs(end) * UNSUPPORTED < abs(support.loss):
        return 0.1, [Evidence.last_of(policy_q, "the critic's own value of the policy's actions differs from the loss")]
    return -0.15, []


def norms_are_flat(data: SeriesSet) -> bool:
    """Return whether the gradient norm of the actor's encoder varies by less than a tenth in the run's later half."""
    later = data[tags.GRADIENT_NORM[ACTOR_CNN.name]].finite.tail(0.5).values
    if later.size < 3 or not np.median(later) > 0:
        return False
    # Quantiles are used, not extremes, because single updates with a norm below the clipping limit are not clipped.
    low, high = np.quantile(later, (0.1, 0.9))
    return bool((high - low) / np.median(later) < 0.1)
