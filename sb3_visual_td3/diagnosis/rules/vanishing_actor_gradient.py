"""The actor's head no longer receives a gradient while the critics still learn.

A saturated tanh is the usual reason: its derivative is 0 at both ends.
"""

from __future__ import annotations

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import ACTOR_MLP, CRITIC_MLP
from sb3_visual_td3.diagnosis.findings import Cure, Evidence, RuleResult, SettingChange
from sb3_visual_td3.diagnosis.numerals import rounded
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.trends import onset

ID = "vanishing_actor_gradient"
TITLE = "The actor's head receives no gradient while the critics still learn"
REMEDY = (
    "Look at the saturation of the actions: a saturated tanh passes no gradient (limit its input with a LayerNorm "
    "trunk and pre_tanh_penalty). Otherwise check that the actor's loss reaches its parameters."
)
IS_LIVE = True
EXPLAINED_BY = ("feature_leak", "actor_saturation", "learning_rate_too_high")
CURE = Cure(
    changes=(
        SettingChange(
            key="pre_tanh_penalty",
            at_least=0.005,
            times=4,
            reason="keeps the activations where the tanh passes a gradient; 5e-3 is the visual preset's value, from "
            "measurements",
        ),
        SettingChange(
            key="policy_kwargs.trunk_dim",
            to=50,
            unless_set=True,
            reason="a Linear-LayerNorm-Tanh trunk bounds the input of the head (DrQ-v2)",
        ),
    )
)

VANISHED = 1e-3
"""The gradient of the actor's head has vanished if its median norm over the last quarter is at most this fraction of
its own largest norm, and of the median norm of the critics' head. In healthy runs, these fractions were 0.07 to 1.1."""

NEGLIGIBLE = 1e-5
"""A gradient norm of at most this value counts as 0."""

MIN_POINTS = 5


def head_has_vanished(data: SeriesSet) -> bool | None:
    """Return whether the actor's head no longer receives a gradient; None with too few points."""
    actor = data[tags.GRADIENT_NORM[ACTOR_MLP.name]].finite
    critic = data[tags.GRADIENT_NORM[CRITIC_MLP.name]].finite
    if len(actor) < MIN_POINTS or len(critic) < MIN_POINTS:
        return None
    late, critic_late = actor.tail(0.25).median(), critic.tail(0.25).median()
    # If the critics do not learn either, the actor's head is not the problem.
    if critic_late <= NEGLIGIBLE or late > VANISHED * critic_late:
        return False
    # The norm is small compared with the critics'. The gradient has vanished if the norm is also almost 0, or small
    # compared with its own largest value.
    return late <= NEGLIGIBLE or late <= VANISHED * actor.abs_max()


def diagnose(data: SeriesSet) -> RuleResult | None:
    """Compare the last gradient norms of the actor's head with its earlier norms and with the critics' norms."""
    if not head_has_vanished(data):
        return None
    actor = data[tags.GRADIENT_NORM[ACTOR_MLP.name]].finite
    critic = data[tags.GRADIENT_NORM[CRITIC_MLP.name]].finite
    late, peak = actor.tail(0.25).median(), actor.abs_max()
    # The finding is more certain if the gradient is 0 in 32-bit floats; a small gradient may recover.
    confidence = 0.8 if late <= 1e-7 else 0.65
    evidence = (
        Evidence.last_of(actor, f"median of the last quarter {rounded(late)}, the run's largest {rounded(peak)}"),
        Evidence.last_of(critic, "the critics still receive a gradient"),
    )
    first = onset(actor, (actor.values <= NEGLIGIBLE) | (actor.values <= VANISHED * peak))
    return RuleResult(confidence, evidence, first, value=late, threshold=max(NEGLIGIBLE, VANISHED * peak))
