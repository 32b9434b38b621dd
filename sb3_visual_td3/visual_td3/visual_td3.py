"""Define VisualTD3: Stable-Baselines3's TD3, extended to learn from pixels without divergence.

The methods are in the order of ``stable_baselines3/td3/td3.py``.
"""

from __future__ import annotations

import inspect
import io
import math
import pathlib
import warnings
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3 import TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise, VectorizedActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutReturn, TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.utils import (
    FloatSchedule,
    check_for_correct_spaces,
    polyak_update,
    update_learning_rate,
)
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from stable_baselines3.td3.policies import TD3Policy

from sb3_visual_td3.buffers.other_n_envs import for_n_envs
from sb3_visual_td3.buffers.valid_transitions import ValidTransitions
from sb3_visual_td3.common import tags
from sb3_visual_td3.common.errors import assertions_as_setting_errors
from sb3_visual_td3.common.groups import CRITIC_CNN, GROUP_OF_NAME, GROUPS
from sb3_visual_td3.common.pictures import pictures_read
from sb3_visual_td3.common.schedules import ScheduleLike, parse_schedule
from sb3_visual_td3.common.segments import end_segments
from sb3_visual_td3.common.types import (
    INVALID_TRANSITION,
    NETWORKS,
    STOCK_ARGUMENTS,
    Network,
    NetworkUpdate,
    UpdateObserver,
)
from sb3_visual_td3.visual_td3 import checks, losses, policies
from sb3_visual_td3.visual_td3.averaging import update_average
from sb3_visual_td3.visual_td3.batches import Batch, batch_of
from sb3_visual_td3.visual_td3.exploration import ScheduledActionNoise, is_scheduled, noise_for_n_envs, set_sigma
from sb3_visual_td3.visual_td3.losses import RewardScale, TargetRange
from sb3_visual_td3.visual_td3.overlap import OverlappedLoop, check_can_overlap
from sb3_visual_td3.visual_td3.param_groups import (
    GradClip,
    Groups,
    MaxGradNorm,
    ParameterGroups,
    fuse,
    group_optimizers,
)
from sb3_visual_td3.visual_td3.precision import Arithmetic, Precision, Preparation, keep_freed_memory
from sb3_visual_td3.visual_td3.presets import Description, PresetName, Resolved, default_preset, resolve, settings_of
from sb3_visual_td3.visual_td3.replay import buffer_chosen, check_fits, describe_buffer, fitted
from sb3_visual_td3.visual_td3.requested import (
    REQUESTED_AT_LOAD,
    check_train_freq,
    convert_numbers,
    record_requested,
    requested_policy_kwargs,
    restore_requested,
)
from sb3_visual_td3.visual_td3.step_guard import NonFiniteUpdateError, StepGuard

SelfVisualTD3 = TypeVar("SelfVisualTD3", bound="VisualTD3")


class VisualTD3(TD3):
    """Train TD3 from pixels, with separate learning rates and gradient clipping for encoders and heads.

    Every argument of :class:`stable_baselines3.TD3` keeps its name, position and meaning. With ``preset="td3"`` and no
    other new argument, the weights are TD3's, bit for bit.

    The gradient of the actor's loss flows only through the action, not through the features from which the critic
    computes Q. Otherwise, an encoder could learn to raise Q without better actions, and Q would grow without bound,
    even with clipped gradients.

    :param policy: ``"CnnPolicy"``, ``"MultiInputPolicy"`` or ``"MlpPolicy"``
    :param env: the environment to learn from
    :param learning_rate: learning rate where ``actor_lr``, ``critic_lr``, ``actor_cnn_lr`` or ``critic_cnn_lr`` is
        None. It accepts the same values as ``actor_lr``
    :param preset: ``"visual"`` (default for images) or ``"td3"`` (default otherwise); it sets the arguments below that
        are None. :meth:`describe` shows the values in force
    :param actor_lr: learning rate of the actor's heads and trunk: a number, ``"lin_3e-4"``, ``"cos_3e-4"`` or a
        callable of the progress remaining; 0 freezes them
    :param critic_lr: learning rate of the critics' heads and trunk
    :param actor_cnn_lr: learning rate of the actor's encoder
    :param critic_cnn_lr: learning rate of the critics' encoder, and of a shared encoder
    :param max_grad_norm: largest L2 norm of a gradient. A number limits the gradient of the actor and the gradient of
        the critics separately. A dict sets limits by the name of a network or group (``{"critic_cnn": 10.0}``)
    :param grad_clip: ``"norm"``, or ``"adaptive"``, which limits the gradient of each row or filter to
        ``max_grad_norm`` (default 0.3) times the norm of its weights
    :param random_shift: largest random shift of images, in pixels; 0 is off
    :param actor_objective: the actor maximises the Q-value of the first critic (``"q1"``), or the minimum (``"min"``)
        or the mean (``"mean"``) of all critics' Q-values
    :param pre_tanh_penalty: weight of the mean squared activation before the actor's tanh
    :param target_q_clamp: True clamps targets to the range of returns that are possible with the rewards so far: at
        most r / (1 - gamma) if the largest reward is r > 0. A number x clamps targets to [-x, x], in the unit of the
        environment's rewards
    :param critic_loss: loss of the critics: ``"mse"`` (squared error) or ``"huber"``
    :param noise_schedule: standard deviation of Gaussian exploration noise over training, such as ``"lin_0.5_0.1"``;
        not used if an ``action_noise`` is given
    :param noise_correlation: correlation of the noise of ``noise_schedule`` from one step to the next, in [0, 1); 0 is
        off. A larger value keeps the noise in one direction for more steps. Not used if an ``action_noise`` is given
    :param precision: arithmetic of updates: ``"fp32"``, ``"bf16"`` or ``"auto"``. ``"auto"`` uses bfloat16 if the
        hardware supports it
    :param overlap: True lets the simulator step while the learner trains; needs a VecEnv such as SubprocVecEnv
    :param policy_average: decay per update, in [0, 1), of an exponential average of the actor and its encoder; 0 is
        off. ``predict``, evaluations and saved policies use the average; exploration and learning use the latest actor
    :param scale_rewards: True divides the rewards by the mean magnitude of all rewards so far, so that their unit does
        not matter. It has no effect if VecNormalize scales the rewards
    :raises ValueError: if an argument is out of range, or does not fit the model or the environment

    The other parameters are those of :class:`stable_baselines3.TD3`.

    Source: Fujimoto et al. 2018 (TD3). Yarats et al. 2019 (SAC-AE) and 2021 (DrQ-v2) let actor and critics share one
    encoder, which the actor's loss does not train. By default, ``preset="visual"`` also shares the encoder, and only
    the critics' loss trains it.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": policies.VisualMlpPolicy,
        "CnnPolicy": policies.VisualCnnPolicy,
        "MultiInputPolicy": policies.VisualMultiInputPolicy,
    }
    actor: policies.VisualActor
    actor_target: policies.VisualActor
    critic: policies.VisualCritic
    critic_target: policies.VisualCritic
    policy: policies.VisualTD3Policy
    observers: list[UpdateObserver]
    """Objects that are called at every gradient update; callbacks add their own."""
    lr_scale: float = 1.0
    """Factor on the learning rate of every group; it is saved with the model."""
    _resolved: dict[str, Resolved]
    """Value and origin of each setting, by the name of the setting."""
    _learned_with_vec_normalize: bool = False
    """Whether the environment of the latest ``learn()`` had a VecNormalize. Models of earlier versions do not say."""
    _is_stock_policy: bool = False
    """True if the policy class inherits from Stable-Baselines3's classes and not from ours. Such a policy is trained
    exactly as Stable-Baselines3's TD3 trains it."""

    def __init__(
        self,
        policy: str | type[TD3Policy],
        env: GymEnv | str,
        learning_rate: ScheduleLike = 1e-3,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        policy_delay: int = 2,
        target_policy_noise: float = 0.2,
        target_noise_clip: float = 0.5,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        preset: PresetName | None = None,
        actor_lr: ScheduleLike | None = None,
        critic_lr: ScheduleLike | None = None,
        actor_cnn_lr: ScheduleLike | None = None,
        critic_cnn_lr: ScheduleLike | None = None,
        max_grad_norm: MaxGradNorm = None,
        grad_clip: GradClip | None = None,
        random_shift: int | None = None,
        actor_objective: losses.ActorObjective | None = None,
        pre_tanh_penalty: float | None = None,
        target_q_clamp: float | bool | None = None,
        critic_loss: losses.CriticLoss | None = None,
        noise_schedule: ScheduleLike | None = None,
        noise_correlation: float | None = None,
        precision: Precision | None = None,
        overlap: bool = False,
        policy_average: float | None = None,
        scale_rewards: bool | None = None,
    ) -> None:
        advice = "TD3's actions are a Box with finite bounds (for discrete ones, use DQN)"
        with assertions_as_setting_errors(advice, about="action"):
            super().__init__(
                policy,
                env,
                learning_rate,  # type: ignore[arg-type]  # strings too: _setup_lr_schedule
                buffer_size,
                learning_starts,
                batch_size,
                tau,
                gamma,
                train_freq,
                gradient_steps,
                action_noise,
                replay_buffer_class,
                replay_buffer_kwargs,
                optimize_memory_usage,
                n_steps,
                policy_delay,
                target_policy_noise,
                target_noise_clip,
                stats_window_size,
                tensorboard_log,
                policy_kwargs,
                verbose,
                seed,
                device,
                _init_setup_model=False,
            )
        self.preset = preset
        self.actor_lr = actor_lr
        self.critic_lr = critic_lr
        self.actor_cnn_lr = actor_cnn_lr
        self.critic_cnn_lr = critic_cnn_lr
        self.max_grad_norm = max_grad_norm
        self.grad_clip = grad_clip
        self.random_shift = random_shift
        self.actor_objective = actor_objective
        self.pre_tanh_penalty = pre_tanh_penalty
        self.target_q_clamp = target_q_clamp
        self.critic_loss = critic_loss
        self.noise_schedule = noise_schedule
        self.noise_correlation = noise_correlation
        self.precision = precision
        self.overlap = overlap
        self.policy_average = policy_average
        self.scale_rewards = scale_rewards
        self.observers = []
        if _init_setup_model:
            self._setup_model()
        else:
            # load() creates the model without setting it up. As arguments it accepts the attributes that exist
            # here, and no others.
            self._names_before_load = frozenset(vars(self))

    # ---- set-up

    def _setup_model(self) -> None:
        """Create the model from its settings."""
        checks.check_action_space(self.action_space)
        requested_at_load = restore_requested(self)
        convert_numbers(self)
        record_requested(self)
        self._fit_to_n_envs()
        # A saved model may be loaded in any environment, for example to be watched. learn() makes these checks again.
        if requested_at_load is None or "overlap" in requested_at_load:
            self._check_overlap()
        if requested_at_load is None or "train_freq" in requested_at_load:
            check_train_freq(self)
        # The policy class belongs to Stable-Baselines3 in a checkpoint of stock TD3, or if the user passes this class
        # itself. With preset="td3", our policy classes build the same networks.
        if self.policy_class in policies.OURS_FOR_STOCK:
            self.policy_class = policies.OURS_FOR_STOCK[self.policy_class]
            self.preset = self.preset or "td3"
        checks.check_arguments(self.policy_class, self.__dict__)
        self._is_stock_policy = checks.is_stock(self.policy_class)
        self._resolve_settings()
        if requested_at_load is not None and "_reward_scale" not in self.__dict__:
            self._leave_rewards_unscaled()
        self._check_observations()
        checks.check_keywords(self.policy_class, self.policy_kwargs)
        with (
            assertions_as_setting_errors(),
            checks.errors_about_images_in_short(self.observation_space),
            buffer_chosen(self, self._resolved["preset"].value),
        ):
            super()._setup_model()
        if requested_at_load is None and self.preset is None and self._reads_images:
            checks.warn_of_float_images(self.observation_space, self._resolved["preset"].value)
        checks.check_networks(self.policy, self.lr_schedule)
        if requested_at_load is None:
            checks.check_overrides(self.policy)
        if not self._is_stock_policy:
            group_optimizers(self.policy)  # again, because the user's policy class may have made other optimizers
            self.policy.may_average = bool(self.settings.policy_average)
            if self.policy.may_average:
                self.policy.keep_average()
        rates = {group.name: getattr(self, group.rate_argument) for group in GROUPS}
        self._parameter_groups = ParameterGroups(
            self.policy, rates, self.settings.max_grad_norm, self.settings.grad_clip
        )
        self._pictures = pictures_read(
            self.observation_space, self.policy.normalize_images, self.policy.features_extractor_class
        )
        self._setup_arithmetic()
        self._losses: dict[str, list[th.Tensor]] = {}
        self._overlapped_loop = OverlappedLoop()
        # A loaded model keeps the range that it had found.
        self._target_range: TargetRange = self.__dict__.get("_target_range", TargetRange())
        self._target_range.limit = self.settings.target_q_clamp
        self._reward_scale: RewardScale = self.__dict__.get("_reward_scale", RewardScale())
        self._setup_noise()

    def _fit_to_n_envs(self) -> None:
        """Fit a loaded model to its environments; their number may have changed since the model was saved."""
        self.action_noise = noise_for_n_envs(self.action_noise, self.n_envs)
        last_obs = self._last_obs
        if isinstance(last_obs, dict):
            last_obs = next(iter(last_obs.values()))
        if last_obs is not None and len(last_obs) != self.n_envs:
            self._last_obs = None  # training begins with a reset

    def _resolve_settings(self) -> None:
        """Decide which values the model uses: the given arguments, or the preset's values."""
        default = default_preset(self.observation_space)
        if not self._reads_images:
            default = "td3"
        self._resolved = resolve(self.preset, default, self.__dict__, requested_policy_kwargs(self))
        self.settings = settings_of(self._resolved)
        self.policy_kwargs = dict(self.settings.policy_kwargs)

    @property
    def _reads_images(self) -> bool:
        """Return whether the policy is one of ours for images, or for observations that may contain images."""
        return not self._is_stock_policy and self.policy_class is not policies.VisualMlpPolicy

    def _leave_rewards_unscaled(self) -> None:
        """Turn off ``scale_rewards`` for a model of an earlier version, unless the user requests it.

        The critics of such a model have learned the values of unscaled rewards.
        """
        if self.scale_rewards is None and self.settings.scale_rewards:
            self.scale_rewards = False
            self._resolved["scale_rewards"] = Resolved(False, "argument")
            self.settings = settings_of(self._resolved)

    def _check_observations(self) -> None:
        """Refuse observations that our encoders cannot read; observations of a stock policy are not checked."""
        # Without normalize_images the policy takes pixels that are scaled already, as Stable-Baselines3's does.
        scales_pixels = self.policy_kwargs.get("normalize_images", True)
        if self._reads_images and scales_pixels:
            checks.check_camera(self.observation_space, self._vec_normalize_env)
        checks.check_normalizer(self.observation_space, self._vec_normalize_env)

    def _setup_lr_schedule(self) -> None:
        """Parse ``learning_rate``, which may be a string such as ``"lin_3e-4"``."""
        self.lr_schedule = FloatSchedule(parse_schedule(self.learning_rate, "learning_rate"))

    def _setup_arithmetic(self) -> None:
        """Set up the numerical precision of the updates, and their speed-ups, such as fused optimizers.

        There are no speed-ups if updates must equal those of Stable-Baselines3 bit for bit.
        """
        self._arithmetic = Arithmetic(self.settings.precision, self.device, self._is_stock)
        self._step_guard = StepGuard(self.device, self._is_stock)
        self._prepare: Preparation | None = None
        if self._arithmetic.is_exact:
            return
        self._prepare = Preparation(
            self.observation_space,
            self._pictures,
            (self.critic.features_extractor, self.actor.features_extractor),
            self.policy.normalize_images,
            self._arithmetic.dtype,
        )
        for network in (self.actor, self.critic):
            fuse(network.optimizer)
        if self.device.type == "cpu":
            keep_freed_memory()

    def _setup_noise(self) -> None:
        """Make the noise that follows ``noise_schedule``, unless the user has given an ``action_noise``."""
        schedule = self.settings.noise_schedule
        self._noise_schedule = None
        if schedule is not None:
            self._noise_schedule = parse_schedule(schedule, "noise_schedule")
        elif self.settings.noise_correlation:
            raise ValueError(
                f"noise_correlation={self.settings.noise_correlation!r} has no effect without noise_schedule: pass a "
                'noise_schedule, such as "lin_0.5_0.1"'
            )
        if self._noise_schedule is not None and self.action_noise is None:
            assert self.action_space.shape is not None  # a Box
            sigma = self._noise_schedule(self._current_progress_remaining)
            self.action_noise = ScheduledActionNoise(self.action_space.shape, sigma, self.settings.noise_correlation)

    @property
    def _is_stock(self) -> bool:
        """Return whether the model trains exactly as Stable-Baselines3's TD3 does, with the same faults."""
        return bool(self._resolved["preset"].value == "td3")

    # ---- training

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Update the critics ``gradient_steps`` times, and actor and targets once every ``policy_delay`` updates.

        :param gradient_steps: number of updates of the critics
        :param batch_size: number of transitions in each update
        :raises ValueError: if a loss or its gradient is not finite and no callback handles that, except under
            ``preset="td3"``
        """
        # Switch to train mode (this affects batch norm / dropout)
        self.policy.set_training_mode(True)

        # Update learning rate according to lr schedule
        self._update_learning_rate([self.actor.optimizer, self.critic.optimizer])

        actor_losses, critic_losses = [], []
        try:
            for _ in range(gradient_steps):
                self._n_updates += 1
                # Sample replay buffer
                batch = self._sample(batch_size)
                critic_losses.append(self.update_critic(batch))
                # Delayed policy updates
                if self._n_updates % self.policy_delay == 0:
                    actor_losses.append(self.update_actor(batch))
                    self.soft_update()
                self._update_average()
            # On a GPU, the device knows which steps were skipped. Reading this once here avoids a wait in every update.
            self._step_guard.raise_if_skipped()
        except NonFiniteUpdateError as error:
            self._log_skipped(error)
            raise
        self._keep_losses(actor_losses, critic_losses)

    def _sample(self, batch_size: int) -> Batch:
        """Sample a batch from the replay buffer, and shift its images randomly.

        If ``_prepare`` is set, the observations are already converted for the networks.
        """
        assert self.replay_buffer is not None
        self._measure_stored_rewards()
        replay_data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
        return batch_of(
            replay_data, self.gamma, self.settings.random_shift, self._pictures, self._prepare, self.reward_divisor
        )

    def _measure_stored_rewards(self) -> None:
        """Find the scale of the rewards in the replay buffer, if no reward has been measured yet."""
        if not self._scales_rewards or not self._reward_scale.is_empty or self.replay_buffer is None:
            return
        # A user's own buffer may keep its rewards elsewhere; then only the rewards of further steps are measured.
        stored = getattr(self.replay_buffer, "rewards", None)
        if isinstance(stored, np.ndarray) and self.replay_buffer.size():
            self._reward_scale.add(stored[: self.replay_buffer.size()])

    def update_critic(self, batch: Batch) -> th.Tensor:
        """Make one gradient step of the critics, and of a shared encoder, towards the TD targets.

        :param batch: the transitions of this update
        :return: the sum of the critics' losses, a scalar
        """
        target_q_values = self._target_q_values(batch)

        # Get current Q-values estimates for each critic network, each (batch, 1)
        with self._arithmetic.autocast():
            current_q_values = self.critic(batch.observations, batch.actions)

        # Compute critic loss
        each_loss = losses.critic_losses(current_q_values, target_q_values, self.settings.critic_loss)
        critic_loss = sum(each_loss[1:], start=each_loss[0])

        # Optimize the critics
        values = {
            "loss": critic_loss,
            "losses": th.stack(each_loss),
            "q_values": th.cat(current_q_values, dim=1),
            "target_q": target_q_values,
            "rewards": batch.rewards,
            "discounts": th.as_tensor(batch.discounts),
            "reward_divisor": th.as_tensor(batch.reward_divisor),
        }
        self._optimize("critic", critic_loss, values, batch.replayed)
        # Not .item() as in Stable-Baselines3: that would make a GPU wait in every update.
        return critic_loss.detach()

    @th.no_grad()
    def _target_q_values(self, batch: Batch) -> th.Tensor:
        """Return the targets ``(batch, 1)`` of TD3: clipped double Q-learning with target policy smoothing.

        Source: Fujimoto et al. 2018, algorithm 1.
        """
        # Select action according to policy and add clipped noise
        noise = batch.actions.clone().data.normal_(0, self.target_policy_noise)
        if self._is_stock_policy:
            # A stock policy's networks have no encode() or score(), so forward() is called, as in TD3.
            actions = self.actor_target(batch.next_observations)
            next_actions = losses.smoothed_actions(actions, noise, self.target_noise_clip)
            next_q_values = th.cat(self.critic_target(batch.next_observations, next_actions), dim=1)
        else:
            with self._arithmetic.autocast():
                critic_features = self.critic_target.encode(batch.next_observations)
                # A shared encoder has encoded these observations already.
                actor_features = critic_features
                if not self.policy.encoder_is_shared:
                    actor_features = self.actor_target.encode(batch.next_observations)
                actions = self.actor_target.act(actor_features)
                next_actions = losses.smoothed_actions(actions, noise, self.target_noise_clip)
                # Compute the next Q-values (batch, n_critics)
                next_q_values = th.cat(self.critic_target.score(critic_features, next_actions), dim=1)
        # Bootstrap from the min over all critics targets
        target_q_values = losses.td_target(batch.rewards, batch.dones, batch.discounts, next_q_values)
        # Clamp the targets to the range of possible returns, if target_q_clamp is set
        return self._target_range.clamp(target_q_values, batch.rewards, batch.discounts, batch.reward_divisor)

    def update_actor(self, batch: Batch) -> th.Tensor:
        """Make one gradient step of the actor towards actions with higher Q-values.

        :param batch: the transitions of this update
        :return: the actor's loss without ``pre_tanh_penalty``, a scalar
        """
        if self._is_stock_policy:
            # As TD3, whose networks encode the observations themselves
            actions = self.actor(batch.observations)
            policy_q = self.critic.q1_forward(batch.observations, actions)  # type: ignore[arg-type]
            actor_loss = -policy_q.mean()
            values = {"loss": actor_loss, "actions": actions, "policy_q": policy_q}
            self._optimize("actor", actor_loss, values)
            return actor_loss.detach()

        objective = self.settings.actor_objective
        if not self._arithmetic.is_exact:
            # The critics' gradients are no longer needed. They would occupy memory during the actor's backward pass,
            # and an observer could mistake them for gradients of the actor's loss.
            self.critic.optimizer.zero_grad()

        # Compute actor loss
        with self._arithmetic.autocast():
            # The critic computes Q from its own features, which pass no gradient on. With the actor's features instead,
            # the actor's encoder could raise Q without a better action.
            with th.no_grad():
                critic_features = self.critic.encode(batch.observations)
            # A shared encoder is the critic's: the actor reads the same features, detached.
            actor_features = critic_features
            if not self.policy.encoder_is_shared:
                actor_features = self.actor.encode(batch.observations)
            pre_tanh = self.actor.pre_tanh(actor_features)
            actions = th.tanh(pre_tanh)
            q_values = self.critic.score(critic_features, actions, first_only=objective == "q1")
        actor_loss = losses.actor_loss(q_values, objective)

        # A penalty on large activations keeps the tanh out of the range where its gradient vanishes. The logged loss
        # excludes the penalty, so that losses can be compared between settings.
        penalized_loss = actor_loss
        if self.settings.pre_tanh_penalty:
            penalized_loss = actor_loss + self.settings.pre_tanh_penalty * losses.pre_tanh_penalty(pre_tanh)

        # Optimize the actor
        values = {"loss": actor_loss, "actions": actions, "pre_tanh": pre_tanh, "policy_q": q_values[0]}
        self._optimize("actor", penalized_loss, values)
        return actor_loss.detach()

    def soft_update(self) -> None:
        """Move the target networks towards the trained ones; a shared encoder is moved once, as part of the critics."""
        polyak_update(self.critic.parameters(), self.critic_target.parameters(), self.tau)
        polyak_update(self.actor.parameters(), self.actor_target.parameters(), self.tau)
        # Copy running stats, see https://github.com/DLR-RM/stable-baselines3/issues/996
        polyak_update(self.critic_batch_norm_stats, self.critic_batch_norm_stats_target, 1.0)
        polyak_update(self.actor_batch_norm_stats, self.actor_batch_norm_stats_target, 1.0)

    def _update_average(self) -> None:
        """Move the averaged copy of the actor, which ``predict`` uses, towards the actor's current weights."""
        if self.settings.policy_average:
            assert self.policy.averaged_actor is not None
            update_average(self.policy.averaged_actor, self.actor, self.settings.policy_average, self._n_updates)

    def _optimize(
        self,
        network: Network,
        loss: th.Tensor,
        values: dict[str, th.Tensor],
        replayed: th.Tensor | dict[str, th.Tensor] | None = None,
    ) -> None:
        """Step the optimizer of one network, and call the observers at each stage.

        :param loss: the network's loss, a scalar
        :param values: the update's tensors by name
        :param replayed: the observations as the replay buffer gave them, for the observers
        """
        optimizer = getattr(self, network).optimizer
        detached = {name: value.detach() for name, value in values.items()}
        groups = self._parameter_groups.of_network[network]
        update = NetworkUpdate(network, self._n_updates, groups, detached, replayed)

        optimizer.zero_grad()
        trained = self._parameter_groups.trained_weights(network)
        if self._is_stock_policy:
            # The user's optimizer may hold any weights, so all of them get a gradient.
            loss.backward()  # type: ignore[no-untyped-call]
        elif trained:
            # Only the trained weights of this network get a gradient. Otherwise the actor's loss would leave gradients
            # in the critics, too. For frozen weights in ``inputs``, backward() would raise an error. Optimizers skip
            # weights without a gradient.
            loss.backward(inputs=trained)  # type: ignore[no-untyped-call]
        for observer in self.observers:
            observer.after_backward(update)

        self._parameter_groups.clip(network)
        for observer in self.observers:
            observer.after_clipping(update)

        # If a callback handles non-finite numbers, the guard need not raise an error.
        is_handled = any(getattr(observer, "handles_non_finite", False) for observer in self.observers)
        if self._step_guard.must_check(is_handled):
            self._step_guard.step(optimizer, update, self.num_timesteps, is_handled)
        else:
            optimizer.step()
        for observer in self.observers:
            observer.after_step(update)

    def _update_learning_rate(self, optimizers: list[th.optim.Optimizer] | th.optim.Optimizer) -> None:
        """Set each group's own learning rate; Stable-Baselines3 would write one rate into all of them."""
        learning_rate = self.lr_schedule(self._current_progress_remaining) * self.lr_scale
        self.logger.record("train/learning_rate", learning_rate)
        assert isinstance(optimizers, list)
        if self._is_stock_policy:
            for optimizer in optimizers:
                update_learning_rate(optimizer, learning_rate)
            return
        for network, optimizer in zip(NETWORKS, optimizers, strict=True):
            self._parameter_groups.set_learning_rates(network, optimizer, self.learning_rates)

    def _keep_losses(self, actor_losses: list[th.Tensor], critic_losses: list[th.Tensor]) -> None:
        """Keep the losses of a ``train()`` call until they are logged."""
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        if actor_losses:
            self._losses["train/actor_loss"] = actor_losses
        if critic_losses:
            self._losses["train/critic_loss"] = critic_losses
        # The numbers are fetched from a GPU only when the log is written.
        if self.device.type == "cpu":
            self._record_losses()

    def _log_skipped(self, error: NonFiniteUpdateError) -> None:
        """Log the loss or the gradient that was not finite, before the training ends.

        Without this, the log would end with healthy values. On a GPU it is unknown which group's gradient was not
        finite, so the norms of all groups of the network are logged as NaN.
        """
        network, loss = error.update.network, error.update.values["loss"].item()
        self._record_losses()
        self.logger.record(f"train/{network}_loss", loss)
        if math.isfinite(loss):
            for group in error.update.groups:
                self.logger.record(tags.GRADIENT_NORM[group], math.nan)
        self.logger.dump(error.n_steps)

    def _record_losses(self) -> None:
        # An observer such as GradientNormCallback may write the losses to the event file itself. This method then
        # leaves them out of the event file, so that each tag has one writer.
        has_writer = any(getattr(observer, "logs_losses", False) for observer in self.observers)
        exclude = "tensorboard" if has_writer else None
        if self._losses and self.settings.scale_rewards:
            # The losses have the unit of the scaled rewards: the report needs the divisor to compare them with returns.
            self.logger.record(tags.REWARD_DIVISOR, self.reward_divisor, exclude=exclude)
        for name, values in self._losses.items():
            self.logger.record(name, np.mean([value.item() for value in values]), exclude=exclude)
        self._losses.clear()

    def dump_logs(self) -> None:
        """Write the values that were recorded since the last call."""
        self._record_losses()
        super().dump_logs()

    # ---- the loop around train()

    def _check_overlap(self) -> None:
        """Refuse ``overlap`` on an environment that cannot step while the learner works."""
        if self.overlap and self.env is not None:
            check_can_overlap(self.env)

    def learn(
        self: SelfVisualTD3,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "VisualTD3",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfVisualTD3:
        """Train the model; the parameters are those of :meth:`stable_baselines3.TD3.learn`.

        :raises ValueError: if the environment cannot be used with ``overlap``
        """
        arguments = total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar
        observers = list(self.observers)
        try:
            if not self.overlap:
                return super().learn(*arguments)
            self._check_overlap()
            self._learn_overlapped(*arguments)
        except BaseException:
            # After an exception, callbacks cannot detach their observers, because on_training_end() is not called.
            self.observers[:] = observers
            raise
        return self

    def _learn_overlapped(
        self,
        total_timesteps: int,
        callback: MaybeCallback,
        log_interval: int,
        tb_log_name: str,
        reset_num_timesteps: bool,
        progress_bar: bool,
    ) -> None:
        # This is OffPolicyAlgorithm.learn with another loop. Callbacks receive the local variables, which have the same
        # names as in Stable-Baselines3. In learn(), super() would add __class__ to the local variables, so this is a
        # method of its own.
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        self._overlapped_loop.n_updates_owed = 0
        callback.on_training_start(locals(), globals())  # a resumed training restores n_updates_owed here
        self._overlapped_loop.run(self, total_timesteps, callback, log_interval)
        callback.on_training_end()

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        """Prepare a training run as Stable-Baselines3 does, and check the replay buffer.

        If the training begins with a reset of the environments, the new transitions do not continue the stored ones.
        This method then marks where the stored ones end, so that no n-step return combines stored and new transitions.
        With ``preset="td3"`` it sets no mark, as in Stable-Baselines3.
        """
        check_train_freq(self)
        # The constructor refuses networks that override a method that the updates do not call. Version 0.3.0 trained
        # and saved such networks, so for a loaded model there is only a warning.
        checks.check_overrides(self.policy, only_warn=True)
        if self.replay_buffer is not None:
            check_fits(self.replay_buffer, self)
            begins_with_reset = reset_num_timesteps or self._last_obs is None
            if begins_with_reset and not self._is_stock:
                end_segments(self.replay_buffer)
        if self._learned_with_vec_normalize and self._vec_normalize_env is None:
            warnings.warn(
                "the model was trained with VecNormalize, and this environment has none, so rewards or observations "
                "have another scale: after a training, save env.save('vecnormalize.pkl') too, and continue with "
                "VecNormalize.load('vecnormalize.pkl', env)",
                stacklevel=3,
            )
        self._learned_with_vec_normalize = self._vec_normalize_env is not None
        self._target_range.use_unit(is_normalized=self._vec_normalize_scales)
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)

    def collect_rollouts(self, env: VecEnv, callback: BaseCallback, *arguments: Any, **keywords: Any) -> RolloutReturn:
        """Collect steps, and also store the step at which a callback stops the training.

        Stable-Baselines3 does not store that step, and with ``preset="td3"`` this method does not store it either. In
        these two cases, the next ``learn()`` without a reset stores a transition that never took place.

        :param env: the environments
        :param callback: the callback of ``learn()``
        :param arguments: positional arguments of Stable-Baselines3's method
        :param keywords: arguments of that method by name
        :return: steps, episodes and whether training continues
        """
        try:
            rollout = super().collect_rollouts(env, callback, *arguments, **keywords)
        except BaseException:
            if not self._is_stock:
                # A step may have been made but not stored: the next learn() begins with a reset.
                self._last_obs = None
            raise
        if not rollout.continue_training and not self._is_stock:
            self._finish_step(callback.locals)
        return rollout

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        """Choose the actions of a training step with the latest weights of the actor.

        With ``policy_average``, ``predict`` uses averaged weights instead. This method does not use them, because
        the replay buffer should hold transitions of the actor that is trained.
        """
        if self._is_stock_policy:
            return super()._sample_action(learning_starts, action_noise, n_envs)
        with self.policy.without_average():
            return super()._sample_action(learning_starts, action_noise, n_envs)

    def _finish_step(self, step: dict[str, Any]) -> None:
        """Store the step after which a callback stopped the training.

        If the step cannot be stored, the next ``learn()`` begins with a reset.

        :param step: ``callback.locals``
        """
        is_complete = {"infos", "dones", "rewards", "new_obs", "buffer_actions", "replay_buffer"} <= step.keys()
        if not is_complete or not _is_finite(step["new_obs"]) or not _is_finite(step["rewards"]):
            # There is nothing to learn from a NaN, which may be why the callback has stopped the training.
            self._last_obs = None
            return
        infos, dones = step["infos"], step["dones"]
        self._update_info_buffer(infos, dones)
        self._store_transition(
            step["replay_buffer"], step["buffer_actions"], step["new_obs"], step["rewards"], dones, infos
        )
        self._update_current_progress_remaining(self.num_timesteps, self._total_timesteps)
        self._on_step()
        ended = np.flatnonzero(dones).tolist()
        self._episode_num += len(ended)
        if self.action_noise is None or not ended:
            return
        if isinstance(self.action_noise, VectorizedActionNoise):  # one noise for each environment
            self.action_noise.reset(indices=ended)
        else:
            self.action_noise.reset()

    def _on_step(self) -> None:
        """Set the standard deviation of scheduled noise; Stable-Baselines3 calls this method after every step."""
        if self._noise_schedule is not None:
            set_sigma(self.action_noise, self._noise_schedule(self._current_progress_remaining))

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store the transitions of one step in the replay buffer, except for those that their info marks as invalid.

        A transition is invalid if the simulator failed in the step, or if the result of the step was late. With
        ``overlap``, the transitions are stored after the next action is sent.
        """
        reward, dones = np.asarray(reward), np.asarray(dones)  # a VecEnv may return lists
        if self._scales_rewards:
            self._measure_stored_rewards()
            # The reward of a step in which the simulator failed is not real.
            self._reward_scale.add(reward[[not info.get(INVALID_TRANSITION) for info in infos]])
        target: Any = self._overlapped_loop.pending
        if target is None:
            target = ValidTransitions(replay_buffer)
        normalizer = self._vec_normalize_env
        if normalizer is None or normalizer.norm_obs:
            super()._store_transition(target, buffer_action, new_obs, reward, dones, infos)
            return
        # VecNormalize scales rewards only. Stable-Baselines3 would store VecNormalize's own observation, without the
        # changes of outer wrappers such as VecFrameStack. So the observation that the policy saw is stored instead. The
        # rest is copied from Stable-Baselines3's method.
        self._last_original_obs = self._last_obs
        # Avoid modification by reference
        next_obs = deepcopy(new_obs)
        # As the VecEnv resets automatically, new_obs is already the first observation of the next episode
        for index in np.flatnonzero(dones):
            terminal_observation = infos[index].get("terminal_observation")
            if terminal_observation is None:
                continue
            if isinstance(next_obs, dict):
                for key, part in next_obs.items():
                    part[index] = terminal_observation[key]
            else:
                next_obs[index] = terminal_observation
        original_reward = normalizer.get_original_reward()
        target.add(self._last_original_obs, next_obs, buffer_action, original_reward, dones, infos)
        self._last_obs = new_obs

    # ---- what callbacks and users read

    @property
    def groups(self) -> Groups:
        """Return the weights of both networks by group name."""
        return self._parameter_groups.parameters

    @property
    def learning_rates(self) -> dict[str, float]:
        """Return the current learning rate of each group, by name."""
        progress = self._current_progress_remaining
        return self._parameter_groups.learning_rates(self.lr_schedule, progress, self.lr_scale)

    @property
    def encoder_is_shared(self) -> bool | None:
        """Return whether the critic's loss trains one encoder for actor and critic; None if there is no encoder."""
        if CRITIC_CNN.name not in self.groups:
            return None
        return not self._is_stock_policy and self.policy.encoder_is_shared

    @property
    def reward_is_normalized(self) -> bool:
        """Return whether the critic sees scaled rewards, by VecNormalize or by ``scale_rewards``."""
        return self._vec_normalize_scales or self.settings.scale_rewards

    @property
    def reward_divisor(self) -> float:
        """Return the number by which ``scale_rewards`` divides rewards now; 1 if it leaves them unchanged."""
        return self._reward_scale.divisor if self._scales_rewards else 1.0

    @property
    def _scales_rewards(self) -> bool:
        """Return whether the model itself scales the rewards; if VecNormalize scales them, the model does not."""
        return self.settings.scale_rewards and not self._vec_normalize_scales

    @property
    def _vec_normalize_scales(self) -> bool:
        """Return whether VecNormalize scales the rewards."""
        return self._vec_normalize_env is not None and self._vec_normalize_env.norm_reward

    def describe(self) -> Description:
        """Return the settings that the model uses, each with its origin.

        :return: value and origin (such as ``"argument"`` or a preset's name) by the name of the setting; it prints as a
            table
        """
        described = Description(self._resolved)
        if self.settings.scale_rewards and self._vec_normalize_scales:
            described["scale_rewards"] = Resolved(True, "not used: VecNormalize scales the rewards")
        if not is_scheduled(self.action_noise):
            described["action_noise"] = _stock_setting("action_noise", self.action_noise)
            if self._noise_schedule is not None:
                described["noise_schedule"] = Resolved(self.settings.noise_schedule, "not used: action_noise")
        described["overlap"] = Resolved(self.overlap, "argument" if self.overlap else "td3")
        for name in (*STOCK_ARGUMENTS, "optimize_memory_usage"):
            described[name] = _stock_setting(name, getattr(self, name))
        described.update(describe_buffer(self, self._resolved["preset"].value))
        described["lr_scale"] = Resolved(self.lr_scale, "td3" if self.lr_scale == 1.0 else "attribute")
        at_the_start = self._parameter_groups.learning_rates(self.lr_schedule, 1.0)
        at_the_end = self._parameter_groups.learning_rates(self.lr_schedule, 0.0)
        for name, rate in at_the_start.items():
            argument = GROUP_OF_NAME[name].rate_argument
            given = getattr(self, argument)
            if given is not None:
                described[argument] = Resolved(given, "argument")
            elif rate == at_the_end[name]:
                described[argument] = Resolved(rate, "learning_rate")
            else:  # a schedule is shown as it was given
                described[argument] = Resolved(self.learning_rate, "learning_rate")
        return described

    # ---- state of a training run, for snapshots

    def get_state(self) -> dict[str, Any]:
        """Return the state beyond Stable-Baselines3's attributes; call this at the start of a rollout.

        With ``overlap=True``, this call also adds a pending transition to the replay buffer.

        :return: numbers, strings and arrays, in lists and dicts
        """
        self._record_losses()
        if self.replay_buffer is not None:
            self._overlapped_loop.store_pending(self.replay_buffer)
        state = {
            "target_range": self._target_range.get_state(),
            "lr_scale": self.lr_scale,
            "n_updates_owed": self._overlapped_loop.n_updates_owed,
        }
        if self.settings.scale_rewards:
            state["reward_scale"] = self._reward_scale.get_state()
        return state

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore a state that :meth:`get_state` returned.

        Call this in a callback's ``on_training_start`` or later, because ``learn()`` resets the number of pending
        updates before it calls the callback.

        :param state: the state that :meth:`get_state` returned
        """
        if "reward_scale" not in state:  # the run did not scale its rewards, for example with an earlier version
            self._leave_rewards_unscaled()
        self.roll_back(state)
        self.lr_scale = float(state.get("lr_scale", 1.0))  # states of earlier versions have none
        self._overlapped_loop.n_updates_owed = state["n_updates_owed"]

    def roll_back(self, state: Mapping[str, Any]) -> None:
        """Restore the scale of the rewards and the range of the targets.

        This does not change ``lr_scale`` or the number of pending updates.

        :param state: the state that an earlier :meth:`get_state` returned
        """
        self._target_range.set_state(state["target_range"])
        if "reward_scale" in state:
            self._reward_scale.set_state(state["reward_scale"])

    # ---- saving and loading

    def _excluded_save_params(self) -> list[str]:
        derived = [
            "observers",
            "settings",
            "_resolved",
            "_is_stock_policy",
            "_parameter_groups",
            "_pictures",
            "_arithmetic",
            "_prepare",
            "_step_guard",
            "_losses",
            "_noise_schedule",
            "_overlapped_loop",
        ]
        return [*super()._excluded_save_params(), *derived]

    @classmethod
    def load(
        cls: type[SelfVisualTD3],
        path: str | pathlib.Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> SelfVisualTD3:
        """Load a model from a zip file, as Stable-Baselines3 does.

        :param path: path of the file
        :param env: the environment, with any number of parallel environments
        :param device: the device of the networks
        :param custom_objects: objects by name that replace those in the file
        :param print_system_info: True prints the system that saved the model
        :param force_reset: True begins training with a reset
        :param kwargs: new values of the model's arguments, which replace the saved values. Values derived from them,
            such as ``gamma`` in the replay buffer, change too
        :raises ValueError: if another algorithm saved the model, or if an argument does not exist or does not fit the
            saved model
        """
        if "policy_class" not in (custom_objects or {}):
            checks.check_saved_by(path, cls)
        given = {**kwargs, REQUESTED_AT_LOAD: kwargs}
        # Stable-Baselines3 would compare the user's policy_kwargs with the saved policy_kwargs, which include values
        # of the preset.
        given.pop("policy_kwargs", None)
        return super().load(path, env, device, custom_objects, print_system_info, force_reset, **given)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Continue the training in another environment, also with another number of parallel environments.

        The replay buffer is rearranged for the new number. Under ``preset="td3"`` the number must stay the same, as in
        Stable-Baselines3.

        :param env: the environment
        :param force_reset: True resets the environment first; with a new number of environments, it is always reset
        :raises ValueError: if the environment has other spaces, or does not fit the replay buffer
        """
        env = self._wrap_env(env, self.verbose)
        checks.check_normalizer(self.observation_space, unwrap_vec_normalize(env))
        if env.num_envs != self.n_envs and not self._is_stock:
            check_for_correct_spaces(env, self.observation_space, self.action_space)
            assert self.replay_buffer is not None
            self.replay_buffer = for_n_envs(self.replay_buffer, env.num_envs)
            self.n_envs = env.num_envs
            self.action_noise = noise_for_n_envs(self.action_noise, self.n_envs)
            force_reset = True
        with assertions_as_setting_errors():
            super().set_env(env, force_reset)

    def load_replay_buffer(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        truncate_last_traj: bool = True,
        any_n_envs: bool = False,
    ) -> None:
        """Load a replay buffer from a pickle file, as Stable-Baselines3 does.

        The loaded buffer gets the ``n_steps`` and ``gamma`` of the model.

        :param path: path of the file
        :param truncate_last_traj: True ends HerReplayBuffer's last episode where the file ends
        :param any_n_envs: True rearranges a buffer of another number of environments; False refuses it
        :raises ValueError: if the buffer does not fit the model, which then keeps its previous buffer
        """
        before = self.replay_buffer
        try:
            super().load_replay_buffer(path, truncate_last_traj)
            loaded = self.replay_buffer
            assert loaded is not None
            if any_n_envs and loaded.n_envs != self.n_envs:
                loaded = for_n_envs(loaded, self.n_envs)
            self.replay_buffer = fitted(loaded, before, self)
        except BaseException:
            self.replay_buffer = before
            raise


def _stock_setting(name: str, value: Any) -> Resolved:
    """Return an argument of Stable-Baselines3's TD3, and whether it has its default."""
    if isinstance(value, TrainFreq):  # as the user gives it
        value = value.frequency if value.unit is TrainFrequencyUnit.STEP else (value.frequency, value.unit.value)
    is_default = value == inspect.signature(TD3).parameters[name].default
    return Resolved(value, "td3" if is_default else "argument")


def _is_finite(values: np.ndarray | Mapping[str, np.ndarray]) -> bool:
    """Return whether all numbers of an array, or of a dict of arrays, are finite."""
    parts = values.values() if isinstance(values, Mapping) else [values]
    return all(bool(np.isfinite(part).all()) for part in parts)
