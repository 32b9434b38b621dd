"""Define the training runs of the fault bench: runs with a fault, and healthy runs.

Each fault is a mistake that people make, such as a wrong sign, a missing line or a wrong unit. The code of a fault is
as short as possible. ``Training.diagnosis`` is the id of the diagnosis that the report must list first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.envs.rewards import RewardWeights
from sb3_visual_td3.visual_td3 import losses
from sb3_visual_td3.visual_td3.encoders import NatureConvolutions

LITE, PENDULUM = "LiteDriving-v0", "Pendulum-v1"
NARROW = 0.1
"""In ``DeafTD3``, a controller replaces the policy. This is the standard deviation of the controller's actions."""

Wrapper = Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]]


@dataclass(frozen=True)
class Training:
    """One training run: algorithm, environment and settings.

    :param story: the fault, as its author would describe it afterwards
    :param diagnosis: the id that must come first; empty for a healthy training run
    :param also: ids that must be reported as well
    :param watches_alerts: whether to use ExplosionAlertCallback; without it a NaN does not end the training
    """

    story: str
    diagnosis: str = ""
    also: tuple[str, ...] = ()
    algorithm: Callable[..., OffPolicyAlgorithm] = VisualTD3
    settings: dict[str, Any] = field(default_factory=dict)
    env: str = LITE
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    wrapper: Wrapper | None = None
    frame_stack: int = 1
    """The number of frames to stack, for environments that do not stack frames themselves."""
    normalize_reward: bool = True
    n_timesteps: int = 1_300
    image_size: int | None = 48
    """Height and width of LiteDriving-v0's camera; None for its default of 84. No fault depends on the resolution."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    watches_alerts: bool = True
    is_evaluated: bool = True
    """Whether the policy is evaluated on held-out maps, which needs finite actions."""


# Faulty algorithms


class LeakyTD3(VisualTD3):
    """Pass the ACTOR's features to the critic in the actor's loss."""

    def update_actor(self, batch: Any) -> th.Tensor:
        """Update the actor with the faulty loss, and return the loss."""
        with self._arithmetic.autocast():
            features = self.actor.encode(batch.observations)
            pre_tanh = self.actor.pre_tanh(features)
            # In the correct loss, the critic receives its own features. With the actor's features, the actor's encoder
            # can raise Q without any better action: nothing limits the encoder's gradient.
            q_values = self.critic.score(features, th.tanh(pre_tanh), first_only=True)
        loss = losses.actor_loss(q_values)
        values = {"loss": loss, "actions": th.tanh(pre_tanh), "pre_tanh": pre_tanh, "policy_q": q_values[0]}
        self._optimize("actor", loss, values)
        return loss.detach()


class ClippedFirstTD3(LeakyTD3):
    """Combine the faulty loss of ``LeakyTD3`` with gradient clipping, and measure norms after the clipping.

    Two recorded CARLA runs have the faulty loss (docs/why.md). The second run also clipped its gradients, and logged
    norms after the clipping.
    """

    def _optimize(self, network: Any, loss: Any, values: Any, replayed: Any = None) -> None:
        observers, self.observers = self.observers, [_SeesClippedOnly(self.observers, self._parameter_groups)]
        super()._optimize(network, loss, values, replayed)
        self.observers = observers


class _SeesClippedOnly:
    def __init__(self, observers: list[Any], groups: Any) -> None:
        self._observers, self._groups = observers, groups

    def after_backward(self, update: Any) -> None:
        self._groups.clip(update.network)
        for observer in self._observers:
            observer.after_backward(update)

    def after_clipping(self, update: Any) -> None:
        for observer in self._observers:
            observer.after_clipping(update)

    def after_step(self, update: Any) -> None:
        for observer in self._observers:
            observer.after_step(update)


class InverseDiscountTD3(VisualTD3):
    """Bootstrap with gamma to the power of MINUS n, so that values grow without bound."""

    def _target_q_values(self, batch: Any) -> th.Tensor:
        return super()._target_q_values(batch._replace(discounts=1.0 / batch.discounts))


class DeafTD3(VisualTD3):
    """Let another controller drive, so that the environment never receives an action of the policy.

    The critics' targets also use actions of the controller, instead of actions of the target policy.
    """

    def _sample_action(self, *_: Any, **__: Any) -> Any:
        action = np.array([[0.0, 0.3]]) + self._behaviour.normal(0.0, NARROW, (self.n_envs, 2))
        return action.astype(np.float32), action.astype(np.float32)

    @th.no_grad()
    def _target_q_values(self, batch: Any) -> th.Tensor:
        next_actions = th.tensor([0.0, 0.3]) + NARROW * th.randn_like(batch.actions)
        with self._arithmetic.autocast():
            features = self.critic_target.encode(batch.next_observations)
            next_q_values = th.cat(self.critic_target.score(features, next_actions), dim=1)
        return losses.td_target(batch.rewards, batch.dones, batch.discounts, next_q_values)

    def _setup_model(self) -> None:
        super()._setup_model()
        self._behaviour = np.random.default_rng(self.seed)


class OneCriticTD3(VisualTD3):
    """Compute and log the second critic's loss, but leave it out of the sum."""

    def _optimize(self, network: Any, loss: Any, values: Any, replayed: Any = None) -> None:
        if network == "critic":
            loss = values["losses"][0]
        super()._optimize(network, loss, values, replayed)


class DetachedActionTD3(VisualTD3):
    """Detach the action before the critic scores it, so that the actor receives no gradient."""

    def _optimize(self, network: Any, loss: Any, values: Any, replayed: Any = None) -> None:
        if network == "actor":
            loss = loss * 0.0  # a detached action leaves gradients of zero; they are not absent
        super()._optimize(network, loss, values, replayed)


class UnscaledTD3(VisualTD3):
    """Scale the losses by 65,536 with a GradScaler, without unscaling the gradients."""

    def _optimize(self, network: Any, loss: Any, values: Any, replayed: Any = None) -> None:
        super()._optimize(network, loss * 65_536.0, values, replayed)


class StaleTD3(VisualTD3):
    """Omit the soft update.

    The imitated mistake: the call was lost when a loop was rewritten.
    """

    def soft_update(self) -> None:
        """Do nothing."""


class LogOfZeroTD3(VisualTD3):
    """Make the critic's loss NaN from the 700th update on, as a logarithm of 0 in an additional term does."""

    def _optimize(self, network: Any, loss: Any, values: Any, replayed: Any = None) -> None:
        if network == "critic" and self._n_updates >= 700:
            loss = loss * th.log(th.zeros(())) * 0.0  # -inf * 0 is NaN
            values = {**values, "loss": loss}
        super()._optimize(network, loss, values, replayed)


class DetachedConvolutions(NatureConvolutions):
    """Detach the features, so that the encoder receives no gradient.

    The imitated mistake: a ``detach()`` from an earlier experiment was not removed.
    """

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """Return features without a gradient."""
        return super().forward(observations).detach()


# Faulty environments


class ScaledReward(gym.RewardWrapper):  # type: ignore[type-arg]
    """Multiply rewards by 1,000, as if metres had been given in millimetres."""

    def reward(self, reward: Any) -> float:
        """Return the reward times 1,000."""
        return 1_000.0 * float(reward)


class PaidSteering(gym.Wrapper):  # type: ignore[type-arg]
    """Add a bonus for steering to the reward.

    The imitated mistake: a bonus from an earlier test was not removed.
    """

    def step(self, action: Any) -> Any:
        """Return the result of the step, with ``10 * steering`` added to the reward."""
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, float(reward) + 10.0 * float(action[0]), terminated, truncated, info


class TakesNaN(gym.ActionWrapper):  # type: ignore[type-arg]
    """Treat NaN actions as 0 and keep driving."""

    def action(self, action: Any) -> Any:
        """Return the action with NaN replaced by 0."""
        return np.nan_to_num(action)


class FallsThroughTheRoad(gym.Wrapper):  # type: ignore[type-arg]
    """After the first 700 steps of the run, end each episode at its third step.

    The imitated mistake: the collision mesh of the road is not loaded, so the car falls.
    """

    n_total, n_steps = 0, 0

    def reset(self, **kwargs: Any) -> Any:
        """Return the first observation of the episode."""
        self.n_steps = 0
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        """Return the result of the step, or the end of the episode."""
        self.n_total += 1
        self.n_steps += 1
        observation, reward, terminated, truncated, info = super().step(action)
        is_falling = self.n_total > 700 and self.n_steps >= 3
        return observation, float(reward) - 10.0 * is_falling, terminated or is_falling, truncated, info


class FrozenCamera(gym.ObservationWrapper):  # type: ignore[type-arg]
    """Return the 600th frame again at every later step.

    The imitated mistake: a queue of frames is never emptied.
    """

    n_seen, kept = 0, None

    def observation(self, observation: Any) -> Any:
        """Return the observation, or the last one before the camera froze."""
        self.n_seen += 1
        if self.n_seen <= 600:
            self.kept = observation
        return self.kept


class CoveredCamera(gym.ObservationWrapper):  # type: ignore[type-arg]
    """Return a dark image, as if the camera were mounted under the car's hood."""

    def observation(self, observation: Any) -> Any:
        """Return a uniformly dark grey image."""
        return np.full_like(observation, 12)


# ---- the list

_OURS: dict[str, Any] = {
    "learning_rate": 1e-4,
    "buffer_size": 4_000,
    "learning_starts": 300,
    "batch_size": 32,
    "tau": 0.01,
    "n_steps": 3,
    "scale_rewards": False,  # some faults are in the rewards; normalize_reward decides whether they are scaled
}
_SEPARATE = {**_OURS, "policy_kwargs": {"encoder": "separate"}}
_STOCK = {
    **_OURS,
    "preset": "td3",
    "precision": "auto",
    "n_steps": 1,
    "tau": 0.005,
    "policy_kwargs": {"encoder": "separate"},
}
"""Settings of stock TD3: its losses, and its networks with separate encoders for actor and critic."""


def _frozen_or_covered(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    # One of the two kinds, drawn with the run's seed.
    return FrozenCamera(env) if th.randint(2, ()) else CoveredCamera(env)


FAULTS: dict[str, Training] = {
    "leak": Training(
        "the critic scores the actor's features",
        "feature_leak",
        algorithm=LeakyTD3,
        settings=_STOCK,
        normalize_reward=False,
    ),
    "leak, clipped": Training(
        "the critic scores the actor's features, gradients are clipped to 1, and norms are logged after clipping",
        "feature_leak",
        ("clipping_masks_divergence",),
        algorithm=ClippedFirstTD3,
        settings={**_STOCK, "max_grad_norm": 1.0, "actor_cnn_lr": 1e-3},
        env_kwargs={"reward_scale": 10.0},
        normalize_reward=False,
    ),
    "inverse discount": Training(
        "the target is discounted by gamma ** -n",
        "critic_overestimation",
        algorithm=InverseDiscountTD3,
        settings={**_OURS, "gamma": 0.9, "target_q_clamp": False, "critic_lr": 1e-3, "tau": 0.05},
        n_timesteps=2_000,
    ),
    "policy is not heard": Training(
        "another controller fills the buffer with narrow actions, and a forgotten bonus pays for steering",
        "policy_extrapolation",
        algorithm=DeafTD3,
        settings={**_OURS, "gamma": 0.9, "target_q_clamp": False, "pre_tanh_penalty": 0.5, "critic_lr": 1e-3},
        wrapper=PaidSteering,
        normalize_reward=False,
    ),
    "one critic": Training(
        "the second critic's loss is left out of the sum",
        "twin_critic_desync",
        algorithm=OneCriticTD3,
        settings={**_OURS, "actor_objective": "q1"},
        env_kwargs={"reward_scale": 10.0},
        normalize_reward=False,
    ),
    "stock, 1e-3": Training(
        "stock TD3 at SB3's learning rate: every action runs to its limit",
        "actor_saturation",
        ("vanishing_actor_gradient",),
        settings={**_STOCK, "learning_rate": 1e-3},
    ),
    "detached action": Training(
        "the action is detached before the critic scores it",
        "vanishing_actor_gradient",
        algorithm=DetachedActionTD3,
        settings=_OURS,
    ),
    "gradients not unscaled": Training(
        "a GradScaler's 65,536 is never divided out again",
        "gradient_explosion",
        algorithm=UnscaledTD3,
        settings={**_SEPARATE, "max_grad_norm": {}},
    ),
    "millimetres": Training(
        "rewards are a thousand times too large",
        "reward_scale",
        settings=_OURS,
        wrapper=ScaledReward,
        normalize_reward=False,
    ),
    "one term": Training(
        "the weight of the reward term progress is 20, and the other weights keep their defaults",
        "reward_imbalance",
        settings=_OURS,
        env_kwargs={"reward": RewardWeights(progress=20.0)},
    ),
    "falls through the road": Training(
        "half-way through, episodes begin to end at their third step",
        "episode_collapse",
        settings=_OURS,
        wrapper=lambda env: Monitor(FallsThroughTheRoad(env)),  # make_vec_env's own Monitor would not see it
    ),
    "log of zero": Training(
        "a term of the critic's loss becomes NaN",
        "non_finite",
        algorithm=LogOfZeroTD3,
        settings=_OURS,
        wrapper=TakesNaN,
        watches_alerts=False,
        is_evaluated=False,
    ),
    "detached encoder": Training(
        "the encoder's features are detached",
        "encoder_frozen",
        settings={**_OURS, "policy_kwargs": {"encoder_arch": DetachedConvolutions}},
    ),
    "dead camera": Training(
        "frames freeze, or are dark from the start",
        "dead_camera",
        settings=_OURS,
        wrapper=_frozen_or_covered,
    ),
    "learning rate 0.1": Training(
        "learning_rate=0.1, a typing error for 1e-4",
        "learning_rate_too_high",
        settings={**_OURS, "learning_rate": 0.1},
    ),
    "no soft update": Training(
        "the target networks are never moved",
        "stale_target_network",
        algorithm=StaleTD3,
        settings=_OURS,
    ),
    "no warm-up": Training(
        "learning_starts=1: updates begin with a handful of transitions",
        "short_warmup",
        settings={**_OURS, "learning_starts": 1},
    ),
    "clipped to nothing": Training(
        "max_grad_norm=1e-4 for the actor",
        "constant_clipping",
        settings={**_OURS, "max_grad_norm": {"actor": 1e-4}},
    ),
}
"""The faulty training runs by name."""

_HEALTHY = {**_OURS, "learning_starts": 500}


_LONGER = {**_OURS, "buffer_size": 20_000, "learning_starts": 1_000, "batch_size": 128, "train_freq": 2}
"""The hyperparameters for LiteDriving-v0 in zoo_configs/visual_td3.yml, with two differences: the learning rate here is
constant at 1e-4, and ``gamma`` is 0.99."""


def _stock(algorithm: type[OffPolicyAlgorithm]) -> Callable[..., OffPolicyAlgorithm]:
    def make(policy: str, env: Any, **settings: Any) -> OffPolicyAlgorithm:
        noise = NormalActionNoise(np.zeros(1), 0.1 * np.ones(1)) if algorithm is TD3 else None
        return algorithm(policy, env, action_noise=noise, **settings)

    return make


_PENDULUM = {"learning_rate": 1e-3, "buffer_size": 10_000, "learning_starts": 500, "batch_size": 128, "gamma": 0.98}

HEALTHY: dict[str, Training] = {
    "preset, 5,000 steps": Training(
        "nothing", settings=_LONGER, n_timesteps=5_000, image_size=None, seeds=(0, 1, 2, 3, 4)
    ),
    "preset, separate encoders": Training(
        "nothing",
        settings={**_HEALTHY, "policy_kwargs": {"encoder": "separate"}},
        n_timesteps=2_000,
        image_size=None,
    ),
    "preset, rewards as they are": Training(
        "nothing",
        settings=_HEALTHY,
        n_timesteps=2_000,
        image_size=None,
        normalize_reward=False,
        env_kwargs={"n_cars": 2},
    ),
    "Pendulum, VisualTD3": Training(
        "nothing",
        settings={**_PENDULUM, "noise_schedule": 0.1},
        env=PENDULUM,
        n_timesteps=7_000,
        normalize_reward=False,
        seeds=(0, 1),
    ),
    "Pendulum, stock TD3": Training(
        "nothing",
        algorithm=_stock(TD3),
        settings=_PENDULUM,
        env=PENDULUM,
        n_timesteps=7_000,
        normalize_reward=False,
        seeds=(0, 1),
    ),
    "Pendulum, stock SAC": Training(
        "nothing",
        algorithm=_stock(SAC),
        settings=_PENDULUM,
        env=PENDULUM,
        n_timesteps=7_000,
        normalize_reward=False,
    ),
}
"""The healthy training runs by name; none of them may be judged NO-GO."""
