"""Define the worlds and arms of the learning benchmark.

A world sets the traffic and the number of steps. An arm is an algorithm, or VisualTD3's preset with one change. All
arms get the same steps, the same batch and one update per two steps. The other hyperparameters come from the block for
LiteDriving-v0 in the algorithm's file in zoo_configs/.

The arms with a changed preset were measured when VisualTD3's block had gamma 0.99 and no policy_average. They still use
these values, unless they change them. Compare all of them with the arm "gamma 0.99", not with the arm "visual".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np
import yaml
from sb3_contrib import TQC
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_visual_td3 import VisualTD3

ENV = "LiteDriving-v0"
BATCH_SIZE, STEPS_PER_UPDATE = 128, 2
_OF_THE_ZOO = (
    "policy",
    "normalize",
    "env_kwargs",
    "callback",
    "n_timesteps",
    "noise_type",
    "noise_std",
    "env_wrapper",
    "frame_stack",
)
"""Keys of a hyperparameter file that are not arguments of the algorithm."""
_NOISES = {"normal": NormalActionNoise, "ornstein-uhlenbeck": OrnsteinUhlenbeckActionNoise}


@dataclass(frozen=True)
class World:
    """The environments of training and evaluation.

    :param n_cars: number of other cars in training
    :param test_n_cars: numbers of other cars in the evaluation; each number is used in equally many episodes
    """

    n_timesteps: int
    n_cars: int
    test_n_cars: tuple[int, ...]
    eval_freq: int


WORLDS = {
    "empty road": World(10_000, 0, (0,), eval_freq=500),
    "traffic": World(30_000, 8, (6, 7, 8, 9, 10), eval_freq=3_000),
}


@dataclass(frozen=True)
class Arm:
    """An algorithm and the changes to its hyperparameters."""

    algorithm: Callable[..., OffPolicyAlgorithm]
    zoo_name: str
    changes: dict[str, Any] = field(default_factory=dict)


def changed_preset(**changes: Any) -> Arm:
    """Return the preset with gamma 0.99, without an average of the policy, and with some changes."""
    return Arm(VisualTD3, "visual_td3", {"gamma": 0.99, "policy_average": 0.0, **changes})


ABLATIONS = {
    "without shift": changed_preset(random_shift=0),
    "without trunk": changed_preset(policy_kwargs={"trunk_dim": None}),
    "separate encoders": changed_preset(policy_kwargs={"encoder": "separate"}),
    "without pre-tanh penalty": changed_preset(pre_tanh_penalty=0.0),
    "without target clamp": changed_preset(target_q_clamp=False),
    "without clipping": changed_preset(max_grad_norm={}),
    "1-step returns": changed_preset(n_steps=1),
    "actor on Q1": changed_preset(actor_objective="q1"),
}
STOCK = {"SB3 TD3": Arm(TD3, "td3"), "SB3 SAC": Arm(SAC, "sac"), "sb3-contrib TQC": Arm(TQC, "tqc")}
TRIED = {
    "learning rate 1e-4": changed_preset(learning_rate=1e-4),
    "learning rate falls from 1e-4": changed_preset(learning_rate="lin_1e-4"),
    "learning rate falls from 3e-4": changed_preset(learning_rate="lin_3e-4"),
    "LayerNorm heads": changed_preset(policy_kwargs={"layer_norm": True}),
    "less noise": changed_preset(noise_schedule="lin_0.3_0.05"),
    "penalty 1e-3": changed_preset(pre_tanh_penalty=1e-3),
    "penalty 1e-2": changed_preset(pre_tanh_penalty=1e-2),
    "gamma 0.98": changed_preset(gamma=0.98),
    "gamma 0.97": Arm(VisualTD3, "visual_td3", {"gamma": 0.97}),
    "tau 0.02": changed_preset(tau=0.02),
    "5-step returns": changed_preset(n_steps=5),
    "drq encoder": changed_preset(policy_kwargs={"encoder_arch": "drq"}),
    "trunk 100": changed_preset(policy_kwargs={"trunk_dim": 100}),
}
"""What was tried on the way to the preset."""
ARMS = {
    "visual": Arm(VisualTD3, "visual_td3"),
    "gamma 0.99, averaged": Arm(VisualTD3, "visual_td3", {"gamma": 0.99}),
    "gamma 0.99": changed_preset(),
    **ABLATIONS,
    **STOCK,
    **TRIED,
}


def block_of(arm: Arm, name: str = ENV) -> dict[str, Any]:
    """Return the block ``name`` of the algorithm's file in zoo_configs/, with the arm's changes."""
    text = files("sb3_visual_td3.zoo_configs").joinpath(f"{arm.zoo_name}.yml").read_text(encoding="utf-8")
    return {**yaml.safe_load(text)[name], **arm.changes}


def constructor_arguments(block: Mapping[str, Any], action_dim: int) -> dict[str, Any]:
    """Return the part of a hyperparameter block that is passed to the algorithm's constructor."""
    arguments = {key: value for key, value in block.items() if key not in _OF_THE_ZOO}
    if "noise_type" in block:
        noise = _NOISES[block["noise_type"]]
        arguments["action_noise"] = noise(np.zeros(action_dim), np.full(action_dim, block["noise_std"]))
    return arguments


def arguments_of(arm: Arm) -> dict[str, Any]:
    """Return the arguments of the algorithm's constructor, without environment, seed and device."""
    same_for_all = {"batch_size": BATCH_SIZE, "train_freq": STEPS_PER_UPDATE, "gradient_steps": 1}
    own = {key: arm.changes.get(key, value) for key, value in same_for_all.items()}
    return {**constructor_arguments(block_of(arm), action_dim=2), **own}
