"""VisualTD3: Stable-Baselines3's TD3, made to learn from pixels without blowing up."""

from __future__ import annotations

from typing import Any, ClassVar

import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.td3.policies import TD3Policy

from sb3_visual_td3.common.errors import assertions_as_setting_errors
from sb3_visual_td3.common.pictures import pictures_in
from sb3_visual_td3.common.schedules import ScheduleLike, parse_schedule
from sb3_visual_td3.common.tags import GROUPS
from sb3_visual_td3.visual_td3 import losses, own_policies, policies
from sb3_visual_td3.visual_td3.asked_for import policy_kwargs_asked_for, settle
from sb3_visual_td3.visual_td3.batches import Batch, batch_of
from sb3_visual_td3.visual_td3.camera_space import check_camera, check_normalizer
from sb3_visual_td3.visual_td3.exploration import ScheduledActionNoise, set_sigma
from sb3_visual_td3.visual_td3.losses import TargetRange
from sb3_visual_td3.visual_td3.overlap import OverlappedTD3
from sb3_visual_td3.visual_td3.param_groups import (
    GradClip,
    MaxGradNorm,
    ParameterGroups,
    fuse,
    group_optimizers,
)
from sb3_visual_td3.visual_td3.pixels import Preparation
from sb3_visual_td3.visual_td3.precision import Arithmetic, Precision, keep_freed_memory
from sb3_visual_td3.visual_td3.presets import Description, PresetName, default_preset, resolve, settings_of
from sb3_visual_td3.visual_td3.replay import buffer_chosen, describe_buffer
from sb3_visual_td3.visual_td3.step_guard import StepGuard


class VisualTD3(OverlappedTD3):
    """TD3 from pixels: learning rates and clipping by group, one encoder that the critic trains, and more.

    Swap the class name and lose nothing: every argument of :class:`stable_baselines3.TD3` keeps its name, place
    and meaning, and with ``preset="td3"`` and nothing else asked for the weights are TD3's, bit for bit.

    The actor's loss reaches the actor's weights through the action alone: the critic scores its own features of
    the observation. Handing it the actor's features lets the actor's encoder raise Q without acting better, which
    grows without bound whatever the gradients are clipped to.

    :param policy: ``"CnnPolicy"``, ``"MultiInputPolicy"`` or ``"MlpPolicy"``
    :param env: the environment to learn from
    :param learning_rate: for every group that has no rate of its own: whatever ``actor_lr`` may be
    :param preset: ``"visual"`` (default where the policy sees images) or ``"td3"`` (default elsewhere): what the
        arguments below mean where they are None; :meth:`describe` shows what is in force
    :param actor_lr: learning rate of the actor's heads and trunk: a number, ``"lin_3e-4"``, ``"cos_3e-4"`` or a
        callable of the progress remaining; 0 freezes them
    :param critic_lr: the same for the critics' heads and trunk
    :param actor_cnn_lr: the same for the actor's encoder
    :param critic_cnn_lr: the same for the critics' encoder, and for a shared one
    :param max_grad_norm: largest L2 norm of a gradient: one number for each network, or numbers by network
        (``{"actor": 1.0}``) or by group (``{"critic_cnn": 10.0}``)
    :param grad_clip: ``"norm"``, or ``"adaptive"``: each unit's gradient within ``max_grad_norm`` times the norm of its
        own weights (0.3 unless told otherwise)
    :param random_shift: largest random shift of images, in pixels; 0 is off
    :param actor_objective: the actor maximises ``"q1"``, the ``"min"`` or the ``"mean"`` of the critics
    :param pre_tanh_penalty: weight of the mean squared activation before the policy's tanh
    :param target_q_clamp: True keeps targets within what the rewards sampled so far can add up to; a number keeps
        them within +- that number
    :param critic_loss: ``"mse"`` or ``"huber"``
    :param noise_schedule: standard deviation of Gaussian exploration noise over training, such as
        ``"lin_0.5_0.1"``; not used where an ``action_noise`` is given
    :param precision: what the networks compute with while they learn: ``"fp32"``, ``"bf16"``, or ``"auto"``: bfloat16
        where the machine multiplies it in hardware; weights, losses and optimizers stay in float32
    :param overlap: whether the simulator steps while the learner trains; needs a VecEnv whose simulator has a process
        of its own, such as SubprocVecEnv
    :raises ValueError: if an argument is out of its range, or names a group that the model has not; if there is to be
        ``overlap`` on an environment that steps in this process

    The other parameters are those of :class:`stable_baselines3.TD3`.

    Source: Fujimoto et al. 2018 (TD3); Yarats et al. 2019 (SAC-AE) and 2021 (DrQ-v2) for the shared encoder.
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
        precision: Precision | None = None,
        overlap: bool = False,
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
        self.precision = precision
        self.overlap = overlap
        self.observers = []  # callbacks add what watches the updates
        if _init_setup_model:
            self._setup_model()
        else:
            self._names_before_load = frozenset(vars(self))

    def _setup_model(self) -> None:
        """Resolve presets, schedules and groups; ``load()`` calls this too, after it has written the attributes."""
        policies.check_action_space(self.action_space)
        asked_at_load = settle(self)
        if asked_at_load is None or "overlap" in asked_at_load:  # a saved one may be loaded anywhere to be watched
            self._check_overlap()
        if self.policy_class in policies.OURS_FOR_STOCK:  # a stock checkpoint, or a stock policy asked for by class
            self.policy_class = policies.OURS_FOR_STOCK[self.policy_class]
            self.preset = self.preset or "td3"
        own_policies.check_arguments(self.policy_class, self.__dict__)
        self._is_stock_policy = own_policies.is_stock(self.policy_class)
        is_td3 = self._is_stock_policy or self.policy_class is policies.VisualMlpPolicy
        default = "td3" if is_td3 else default_preset(self.observation_space)
        self._resolved = resolve(self.preset, default, self.__dict__, policy_kwargs_asked_for(self))
        self.settings = settings_of(self._resolved)
        self.policy_kwargs = dict(self.settings.policy_kwargs)
        # Without normalize_images the policy takes scaled pixels, as Stable-Baselines3's does; what a policy of
        # Stable-Baselines3's kind can read is its own matter.
        scales_pixels = self.policy_kwargs.get("normalize_images", True)
        if self.policy_class is not policies.VisualMlpPolicy and not self._is_stock_policy and scales_pixels:
            check_camera(self.observation_space, self._vec_normalize_env)
        check_normalizer(self.observation_space, self._vec_normalize_env)
        own_policies.check_keywords(self.policy_class, self.policy_kwargs)
        with assertions_as_setting_errors(), buffer_chosen(self, self._resolved["preset"].value):
            super()._setup_model()
        own_policies.check_networks(self.policy, self.lr_schedule)
        if not self._is_stock_policy:
            group_optimizers(self.policy)  # again, where the policy's class is the user's own and has made others
        rates = {group: getattr(self, f"{group.removesuffix('_mlp')}_lr") for group in GROUPS}
        self._parameter_groups = ParameterGroups(
            self.policy, rates, self.settings.max_grad_norm, self.settings.grad_clip
        )
        self._pictures = pictures_in(self.observation_space) if self._is_stock_policy else self.policy.pictures
        self._set_arithmetic()
        self._losses = {}
        self._target_range = self.__dict__.get("_target_range", TargetRange())  # loaded: as it was
        self._target_range.limit = self.settings.target_q_clamp
        self._set_noise()

    def _set_noise(self) -> None:
        """Have noise follow the schedule, where there is one and the user has given no noise."""
        schedule = self.settings.noise_schedule
        self._noise_schedule = None if schedule is None else parse_schedule(schedule, "noise_schedule")
        if self._noise_schedule is not None and self.action_noise is None:
            assert self.action_space.shape is not None  # a Box
            sigma = self._noise_schedule(self._current_progress_remaining)
            self.action_noise = ScheduledActionNoise(self.action_space.shape, sigma)

    def _set_arithmetic(self) -> None:
        is_stock = self._resolved["preset"].value == "td3"
        self._arithmetic = Arithmetic(self.settings.precision, self.device, is_stock)
        self._prepare = None
        self._step_guard = StepGuard(self.device, is_stock)
        if self._arithmetic.is_exact:
            return
        extractor, scales = self.critic.features_extractor, self.policy.normalize_images
        self._prepare = Preparation(self.observation_space, self._pictures, extractor, scales, self._arithmetic.dtype)
        for network in (self.actor, self.critic):
            fuse(network.optimizer)
        if self.device.type == "cpu":
            keep_freed_memory()

    def describe(self) -> Description:
        """Return the settings in force.

        :return: for every setting its value and where it comes from: ``"argument"``, or the preset's name. The
            mapping prints as a table
        """
        described = Description(self._resolved)
        described.update(describe_buffer(self, self._resolved["preset"].value))
        described.update(self._describe_rates())
        return described

    def _on_step(self) -> None:
        if self._noise_schedule is not None:
            set_sigma(self.action_noise, self._noise_schedule(self._current_progress_remaining))

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Make ``gradient_steps`` updates of the critics, and of actor and targets every ``policy_delay`` of them.

        :param gradient_steps: how many updates
        :param batch_size: transitions of each
        :raises ValueError: if a loss or its gradient is not finite, and no callback sees to it; the weights are then
            those of before. Under the preset ``"td3"`` nothing is looked at, as in Stable-Baselines3
        """
        self.policy.set_training_mode(True)
        self._update_learning_rate([self.actor.optimizer, self.critic.optimizer])
        actor_losses, critic_losses = [], []
        for _ in range(gradient_steps):
            self._n_updates += 1
            batch = self._sample(batch_size)
            critic_losses.append(self.update_critic(batch))
            if self._n_updates % self.policy_delay == 0:
                actor_losses.append(self.update_actor(batch))
                self.soft_update()
        self._step_guard.raise_if_refused()
        self._keep_losses(actor_losses, critic_losses)

    def _sample(self, batch_size: int) -> Batch:
        assert self.replay_buffer is not None
        data = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
        return batch_of(data, self.gamma, self.settings.random_shift, self._pictures, self._prepare)

    @th.no_grad()
    def _target_q_values(self, batch: Batch) -> th.Tensor:
        noise = batch.actions.clone().data.normal_(0, self.target_policy_noise)
        if self._is_stock_policy:
            next_q_values = own_policies.next_q_values(self, batch, noise)
        else:
            next_q_values = self._next_q_values(batch, noise)
        targets = losses.td_target(batch.rewards, batch.dones, batch.discounts, next_q_values)
        return self._target_range.clamp(targets, batch.rewards, batch.discounts)

    def _next_q_values(self, batch: Batch, noise: th.Tensor) -> th.Tensor:
        """:return: ``(batch, n_critics)`` of the target policy's smoothed actions, by the target critics"""
        with self._arithmetic.autocast():
            critic_features = self.critic_target.encode(batch.next_observations)
            shared = self.policy.encoder_is_shared
            actor_features = critic_features if shared else self.actor_target.encode(batch.next_observations)
            next_actions = losses.smoothed_actions(self.actor_target.act(actor_features), noise, self.target_noise_clip)
            return th.cat(self.critic_target.score(critic_features, next_actions), dim=1)

    def update_critic(self, batch: Batch) -> th.Tensor:
        """Move the critics, and a shared encoder, towards their target.

        :return: the sum of the critics' losses, a scalar
        """
        target_q_values = self._target_q_values(batch)
        with self._arithmetic.autocast():
            q_values = self.critic(batch.observations, batch.actions)
        each = losses.critic_losses(q_values, target_q_values, self.settings.critic_loss)
        loss = sum(each[1:], start=each[0])
        values = {
            "loss": loss,
            "losses": th.stack(each),
            "q_values": th.cat(q_values, dim=1),
            "target_q": target_q_values,
            "rewards": batch.rewards,
            "discounts": th.as_tensor(batch.discounts),
        }
        self._optimize("critic", loss, values, batch.replayed)
        return loss.detach()

    def update_actor(self, batch: Batch) -> th.Tensor:
        """Move the actor towards actions that the critics, on features of their own, score higher.

        :return: the loss without the penalty, a scalar
        """
        if self._is_stock_policy:
            loss, values = own_policies.actor_loss(self, batch)
            self._optimize("actor", loss, values)
            return loss.detach()
        objective = self.settings.actor_objective
        if not self._arithmetic.is_exact:
            self.critic.optimizer.zero_grad()  # they have been used, and nobody can take them for the actor's
        with self._arithmetic.autocast():
            with th.no_grad():
                critic_features = self.critic.encode(batch.observations)
            shared = self.policy.encoder_is_shared
            pre_tanh = self.actor.pre_tanh(critic_features if shared else self.actor.encode(batch.observations))
            actions = th.tanh(pre_tanh)
            q_values = self.critic.score(critic_features, actions, first_only=objective == "q1")
        loss = losses.actor_loss(q_values, objective)
        weight = self.settings.pre_tanh_penalty
        objective_loss = loss + weight * losses.pre_tanh_penalty(pre_tanh) if weight else loss
        values = {"loss": loss, "actions": actions, "pre_tanh": pre_tanh, "policy_q": q_values[0]}
        self._optimize("actor", objective_loss, values)
        return loss.detach()

    def soft_update(self) -> None:
        """Move the target networks; a shared encoder moves once, with the critics that own it."""
        polyak_update(self.critic.parameters(), self.critic_target.parameters(), self.tau)
        polyak_update(self.actor.parameters(), self.actor_target.parameters(), self.tau)
        polyak_update(self.critic_batch_norm_stats, self.critic_batch_norm_stats_target, 1.0)
        polyak_update(self.actor_batch_norm_stats, self.actor_batch_norm_stats_target, 1.0)

    def _excluded_save_params(self) -> list[str]:
        derived = (
            "observers settings _resolved _parameter_groups _noise_schedule _arithmetic _prepare _pictures _losses "
            "_is_stock_policy _step_guard"
        )
        return [*super()._excluded_save_params(), *derived.split()]
