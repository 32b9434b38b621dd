"""One cause, one small file. Live alerts hand the rules a window, the report hands them the whole run."""

from __future__ import annotations

from sb3_visual_td3.diagnosis.findings import Rule
from sb3_visual_td3.diagnosis.rules import (
    actor_saturation,
    clipping_masks_divergence,
    constant_clipping,
    critic_overestimation,
    dead_camera,
    encoder_frozen,
    episode_collapse,
    feature_leak,
    gradient_explosion,
    learning_rate_too_high,
    non_finite,
    policy_extrapolation,
    reward_imbalance,
    reward_scale,
    short_warmup,
    stale_target_network,
    twin_critic_desync,
    vanishing_actor_gradient,
)

RULES: dict[str, Rule] = {
    "feature_leak": feature_leak.diagnose,
    "clipping_masks_divergence": clipping_masks_divergence.diagnose,
    "critic_overestimation": critic_overestimation.diagnose,
    "policy_extrapolation": policy_extrapolation.diagnose,
    "twin_critic_desync": twin_critic_desync.diagnose,
    "actor_saturation": actor_saturation.diagnose,
    "vanishing_actor_gradient": vanishing_actor_gradient.diagnose,
    "gradient_explosion": gradient_explosion.diagnose,
    "constant_clipping": constant_clipping.diagnose,
    "reward_scale": reward_scale.diagnose,
    "reward_imbalance": reward_imbalance.diagnose,
    "learning_rate_too_high": learning_rate_too_high.diagnose,
    "stale_target_network": stale_target_network.diagnose,
    "encoder_frozen": encoder_frozen.diagnose,
    "dead_camera": dead_camera.diagnose,
    "short_warmup": short_warmup.diagnose,
    "episode_collapse": episode_collapse.diagnose,
    "non_finite": non_finite.diagnose,
}
"""Every rule by the id of its diagnosis."""
