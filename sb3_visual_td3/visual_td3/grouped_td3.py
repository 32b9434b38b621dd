"""TD3 by named parameter groups, whose updates can be watched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.utils import FloatSchedule, update_learning_rate

from sb3_visual_td3.common.schedules import parse_schedule
from sb3_visual_td3.common.types import NETWORKS, JudgesFiniteness, Network, NetworkUpdate, UpdateObserver
from sb3_visual_td3.visual_td3.losses import TargetRange
from sb3_visual_td3.visual_td3.param_groups import Groups, ParameterGroups
from sb3_visual_td3.visual_td3.policies import VisualTD3Policy
from sb3_visual_td3.visual_td3.presets import Resolved
from sb3_visual_td3.visual_td3.step_guard import StepGuard
from sb3_visual_td3.visual_td3.stored_td3 import StoredTD3


class GroupedTD3(StoredTD3):
    """TD3 that steps its optimizers by named groups: a learning rate and clipping for each, observers for all.

    What calls :meth:`_optimize`, and sets up ``_parameter_groups`` and ``_target_range``, is the subclass.
    """

    policy: VisualTD3Policy
    observers: list[UpdateObserver]
    lr_scale: float = 1.0
    """Factor on the learning rate of every group; it lasts, and is saved with the model."""
    _is_stock_policy: bool = False
    """Whether the policy class is of Stable-Baselines3's kind and trains as with its TD3."""
    _parameter_groups: ParameterGroups
    _target_range: TargetRange
    _step_guard: StepGuard
    """Keeps the weights from a loss that is not finite."""
    _losses: dict[str, list[th.Tensor]]
    """Of the last training, by name, until they are recorded."""

    @property
    def reward_is_normalized(self) -> bool:
        """Whether the critic sees rewards that VecNormalize has scaled."""
        return self._vec_normalize_env is not None and self._vec_normalize_env.norm_reward

    @property
    def encoder_is_shared(self) -> bool | None:
        """Whether one encoder, which the critic trains, serves actor and critic; None where there is none."""
        if "critic_cnn" not in self.groups:
            return None
        return not self._is_stock_policy and self.policy.encoder_is_shared

    @property
    def groups(self) -> Groups:
        """The named parameter groups of both networks."""
        return self._parameter_groups.parameters

    @property
    def learning_rates(self) -> dict[str, float]:
        """The learning rate in force, by group."""
        progress = self._current_progress_remaining
        return self._parameter_groups.learning_rates(self.lr_schedule, progress, self.lr_scale)

    def _describe_rates(self) -> dict[str, Resolved]:
        """:return: the rate of each group, where it comes from, and the factor on all"""
        described = {"lr_scale": Resolved(self.lr_scale, "td3" if self.lr_scale == 1.0 else "attribute")}
        at_the_end = self._parameter_groups.learning_rates(self.lr_schedule, 0.0)
        for group, rate in self._parameter_groups.learning_rates(self.lr_schedule, 1.0).items():
            name = f"{group.removesuffix('_mlp')}_lr"
            given = getattr(self, name)
            default = rate if rate == at_the_end[group] else self.learning_rate  # a number, or the schedule
            described[name] = Resolved(default, "learning_rate") if given is None else Resolved(given, "argument")
        return described

    def get_state(self) -> dict[str, Any]:
        """:return: what training depends on beside Stable-Baselines3's own attributes, as plain data"""
        return {"target_range": self._target_range.get_state(), "lr_scale": self.lr_scale}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from where :meth:`get_state` was called; to be called when training has started.

        :param state: as returned there
        """
        self._target_range.set_state(state["target_range"])
        self.lr_scale = float(state.get("lr_scale", 1.0))  # older states have none

    def roll_back(self, state: Mapping[str, Any]) -> None:
        """Return to what had been learnt, beside the weights, when a state was taken: the range of rewards seen.

        Updates that are owed and ``lr_scale`` are none of it.

        :param state: of an earlier :meth:`get_state`
        """
        self._target_range.set_state(state["target_range"])

    def _setup_lr_schedule(self) -> None:
        """Take what the groups' own rates may be, strings included, and refuse what is no rate."""
        self.lr_schedule = FloatSchedule(parse_schedule(self.learning_rate, "learning_rate"))

    def _update_learning_rate(self, optimizers: list[th.optim.Optimizer] | th.optim.Optimizer) -> None:
        """Set each group's own rate; Stable-Baselines3 would write one into all of them."""
        progress = self._current_progress_remaining
        self.logger.record("train/learning_rate", self.lr_schedule(progress) * self.lr_scale)
        assert isinstance(optimizers, list)
        if self._is_stock_policy:
            for optimizer in optimizers:
                update_learning_rate(optimizer, self.lr_schedule(progress) * self.lr_scale)
            return
        for network, optimizer in zip(NETWORKS, optimizers, strict=True):
            self._parameter_groups.set_learning_rates(network, optimizer, self.lr_schedule, progress, self.lr_scale)

    def _optimize(
        self,
        network: Network,
        loss: th.Tensor,
        values: dict[str, th.Tensor],
        replayed: th.Tensor | dict[str, th.Tensor] | None = None,
    ) -> None:
        optimizer = getattr(self, network).optimizer
        detached = {name: value.detach() for name, value in values.items()}
        groups = self._parameter_groups.of_network[network]
        update = NetworkUpdate(network, self._n_updates, groups, detached, replayed)
        optimizer.zero_grad()
        # Only this network's weights: the actor's loss would leave gradients in the critics too. Not the frozen ones,
        # which have no gradient to be asked for, and keep none: optimizers leave such weights alone.
        trained = [weight for weight in self._parameter_groups.weights(network) if weight.requires_grad]
        if self._is_stock_policy:
            loss.backward()  # type: ignore[no-untyped-call]  # an optimizer of the user's own may hold any weights
        elif trained:
            loss.backward(inputs=trained)  # type: ignore[no-untyped-call]
        for observer in self.observers:
            observer.after_backward(update)
        self._parameter_groups.clip(network)
        for observer in self.observers:
            observer.after_clipping(update)
        is_judged = any(isinstance(observer, JudgesFiniteness) for observer in self.observers)
        if self._step_guard.looks_at(is_judged):
            self._step_guard.step(optimizer, trained, update, self.num_timesteps, is_judged)
        else:
            optimizer.step()
        for observer in self.observers:
            observer.after_step(update)

    def _keep_losses(self, actor_losses: list[th.Tensor], critic_losses: list[th.Tensor]) -> None:
        """Have the losses of this training logged; numbers are fetched from a GPU only when the log is written."""
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        kept = {"train/actor_loss": actor_losses, "train/critic_loss": critic_losses}
        self._losses.update({name: values for name, values in kept.items() if values})
        if self.device.type == "cpu":
            self._record_losses()

    def _record_losses(self) -> None:
        # One writer per name: with an observer, the event file gets these from its callback.
        exclude = "tensorboard" if self.observers else None
        for name, values in self._losses.items():
            self.logger.record(name, np.mean([value.item() for value in values]), exclude=exclude)
        self._losses.clear()

    def dump_logs(self) -> None:
        """Write what was recorded since the last time."""
        self._record_losses()
        super().dump_logs()
