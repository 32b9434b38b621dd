"""One cause, one small file. Live alerts hand the rules a window, the report hands them the whole run."""

from __future__ import annotations

from sb3_visual_td3.diagnosis.findings import Rule
from sb3_visual_td3.diagnosis.rules import (
    actor_saturation,
    clipping_masks_divergence,
    critic_overestimation,
    episode_collapse,
    feature_leak,
    gradient_explosion,
    non_finite,
    twin_critic_desync,
    vanishing_actor_gradient,
)

RULES: dict[str, Rule] = {
    "feature_leak": feature_leak.diagnose,
    "clipping_masks_divergence": clipping_masks_divergence.diagnose,
    "critic_overestimation": critic_overestimation.diagnose,
    "twin_critic_desync": twin_critic_desync.diagnose,
    "actor_saturation": actor_saturation.diagnose,
    "vanishing_actor_gradient": vanishing_actor_gradient.diagnose,
    "gradient_explosion": gradient_explosion.diagnose,
    "episode_collapse": episode_collapse.diagnose,
    "non_finite": non_finite.diagnose,
}
"""Every rule by the id of its diagnosis."""
