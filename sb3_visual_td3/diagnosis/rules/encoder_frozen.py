"""An encoder does not learn while the head behind it does: its features stay as they were initialised.

The head still learns something from random features, so losses and Q values can look normal.
"""

from __future__ import annotations

import numpy as np

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import groups_of
from sb3_visual_td3.common.types import NETWORKS, Network
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.trends import onset, recent

ID = "encoder_frozen"
TITLE = "An encoder does not learn while the head behind it does"
REMEDY = (
    "Check that the optimizer holds the encoder's parameters, that the encoder's features are not detached in the loss "
    "that trains it, and that not all its units are dormant (agent/encoder_dormant_fraction); if they are, lower the "
    "learning rate."
)
IS_LIVE = True
EXPLAINED_BY = ("learning_rate_too_high", "dead_camera", "feature_leak", "actor_saturation")
CURE = Cure(
    code=(
        "No hyperparameter cures it: check that the optimizer holds the encoder's parameters and that its features are "
        "not detached."
    )
)

FROZEN = 1e-6
"""An encoder counts as frozen if its gradient norm is at most this fraction of the gradient norm of the head that
follows it. The rule also compares the update ratios of encoder and head in this way. An update ratio is the norm of an
optimizer step, divided by the norm of the weights."""

A_GRADIENT = 1e-5
"""An encoder is not judged if the gradient norm of the head behind it is below this value, as in a dead policy."""

MIN_POINTS = 5
DORMANT = 0.9
"""If at least this fraction of the encoder's units have no output, the diagnosis lists the fraction as evidence."""


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Compare the gradients and optimizer steps of each encoder and of the head that follows it.

    An encoder with a learning rate of 0 or with frozen weights is not judged.
    """
    found = [d for network in reversed(NETWORKS) if (d := _judge(data, network)) is not None]
    return found[0] if found else None


def _judge(data: SeriesSet, network: Network) -> RuleResult | None:
    cnn, mlp = (group.name for group in groups_of(network))
    rate, is_frozen = data[tags.GROUP_LR[cnn]].finite, data[tags.GROUP_FROZEN[cnn]].finite
    if (len(rate) and rate.values[-1] == 0.0) or (len(is_frozen) and is_frozen.values[-1] == 1.0):
        return None
    # In a dead policy neither head nor encoder gets a gradient; that is vanishing_actor_gradient, not a frozen encoder.
    head_norm = data[tags.GRADIENT_NORM[mlp]].finite
    if len(head_norm) >= MIN_POINTS and recent(head_norm).median() < A_GRADIENT:
        return None
    # A detached encoder receives no gradient. An encoder that is missing in the optimizer has a gradient but does not
    # change.
    for by_group in (tags.GRADIENT_NORM, tags.UPDATE_RATIO):
        encoder, head = data[by_group[cnn]].finite, data[by_group[mlp]].finite
        if len(encoder) < MIN_POINTS or len(head) < MIN_POINTS:
            continue
        late, late_head = recent(encoder).median(), recent(head).median()
        # "not > 0" instead of "<= 0", because the median of no value is NaN.
        if not late_head > 0 or late > FROZEN * late_head:
            continue
        evidence = [
            Evidence.last_of(encoder, f"median of the last points {rounded(late)}"),
            Evidence.last_of(head, "the head at the same time"),
        ]
        dormant = data[tags.ENCODER_DORMANT_FRACTION].finite
        if network == "critic" and len(dormant) and dormant.values[-1] >= DORMANT:
            evidence.append(Evidence.last_of(dormant, "nearly all its units are dormant"))
        return RuleResult(
            0.85,
            evidence,
            onset(encoder, encoder.values <= FROZEN * late_head),
            value=late / late_head,
            threshold=FROZEN,
        )
    return _weights_stand_still(data, cnn, mlp)


def _weights_stand_still(data: SeriesSet, cnn: str, mlp: str) -> RuleResult | None:
    """Look for an encoder whose weights stay the same while the weights of the head after it change."""
    if any(tag[cnn] in data for tag in (tags.GRADIENT_NORM, tags.UPDATE_RATIO)):
        return None
    encoder, head = data[tags.PARAM_STD[cnn]].finite, data[tags.PARAM_STD[mlp]].finite
    mean = data[tags.PARAM_MEAN[cnn]].finite
    if min(len(encoder), len(head), len(mean)) < MIN_POINTS:
        return None
    # Each step of an optimizer changes the last digits of a mean of thousands of weights.
    if np.ptp(encoder.values) > 0.0 or np.ptp(mean.values) > 0.0 or np.ptp(recent(head).values) == 0.0:
        return None
    evidence = (
        Evidence.last_of(encoder, f"has not changed over {len(encoder)} points"),
        Evidence.last_of(head, "the head has changed meanwhile"),
    )
    first = int(encoder.steps[0])
    return RuleResult(0.7, evidence, first, value=0.0, threshold=FROZEN)
