"""State-dependent exploration (gSDE): the noise matrices in use.

Stable-Baselines3 draws new ones at the start of a rollout *before* it tells the callbacks: a snapshot taken there has
them drawn already, and a process that goes on from it must not draw them a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

_MATRICES = ("exploration_mat", "exploration_matrices")


def sde_state(model: OffPolicyAlgorithm) -> dict[str, Any] | None:
    """:return: the noise matrices as plain data; None for a model without gSDE"""
    if not model.use_sde:
        return None
    distribution = model.actor.action_dist
    return {name: getattr(distribution, name).detach().cpu().numpy().copy() for name in _MATRICES}


def set_sde_state(model: OffPolicyAlgorithm, state: Mapping[str, Any] | None) -> None:
    """Have the rollout that comes next begin with these matrices, and draw nothing for it.

    :param model: before its first rollout
    :param state: as returned by :func:`sde_state`
    """
    if state is None:
        return
    actor: Any = model.actor
    matrices = {name: th.from_numpy(np.array(state[name])).to(model.device) for name in _MATRICES}

    def restore_instead(batch_size: int = 1) -> None:  # noqa: ARG001
        del actor.reset_noise  # the class's own method is back
        vars(actor.action_dist).update(matrices)

    actor.reset_noise = restore_instead
