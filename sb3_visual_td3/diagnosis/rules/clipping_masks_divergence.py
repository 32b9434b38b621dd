"""The gradient norms were logged after clipping, so the monitor cannot see a loss that diverges.

In a run that was recorded this way, the norms were 1.9 and no alert was active while the actor loss fell from -250 to
-2.8 billion.
"""

from __future__ import annotations

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import ACTOR_CNN
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.q_support import UNSUPPORTED, actor_loss_support
from sb3_visual_td3.diagnosis.rules.feature_leak import norms_are_flat
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.trends import growth_factor

ID = "clipping_masks_divergence"
TITLE = "Norms logged after clipping hide a loss that diverges"
REMEDY = (
    "Log the gradient norms before clipping, and the fraction of updates that were clipped; also watch the actor's "
    "loss against the Q values. The norms of this run do not show whether it is healthy."
)
IS_LIVE = False
EXPLAINED_BY: tuple[str, ...] = ()
CURE = Cure(
    code=(
        "No hyperparameter cures it: log the norms before clipping (GradientNormCallback does), and judge the run "
        "again."
    )
)


GROWS = 3.0
"""The actor's loss counts as growing if it grows at least by this factor over the later half of the run. The value is a
guess."""


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Look for a growing actor loss while the gradient norm of the actor's encoder stays constant.

    In addition, the magnitude of the loss, divided by the largest |Q|, must exceed the limit ``UNSUPPORTED`` in
    ``diagnosis/q_support.py``.
    """
    support = actor_loss_support(data)
    encoder = data[tags.GRADIENT_NORM[ACTOR_CNN.name]].finite
    loss = data[tags.ACTOR_LOSS].finite
    if support is None or support.ratio <= UNSUPPORTED or len(encoder) < 5 or not norms_are_flat(data):
        return None
    # Both signs are needed. A flat norm alone may come from a healthy run with a low limit, and a growing loss alone is
    # visible anyway.
    growth = growth_factor(loss.tail(0.5))
    if not growth >= GROWS:
        return None
    evidence = [
        Evidence.last_of(encoder, f"stays at {rounded(encoder.median())} over the whole run"),
        Evidence.last_of(loss, f"grows {rounded(growth)} times over the later half alone"),
    ]
    alerts = data[tags.ALERT_CRITICAL].finite
    if len(alerts) and not (alerts.values == 1.0).any():
        evidence.append(Evidence.last_of(alerts, f"not one of {len(alerts)} points is active"))
    confidence = 0.7 + 0.2 * min(1.0, growth / 30.0)
    first = support.first_unsupported_step
    # A blind spot, not a cause: it explains why the monitor is silent, and something else makes the loss diverge.
    return RuleResult(confidence, evidence, first, value=growth, threshold=GROWS, role="blind_spot")
