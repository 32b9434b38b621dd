"""Accumulate measures of the gradient updates on the device, and return them in one transfer to the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch as th

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.numbers import to_integer
from sb3_visual_td3.common.types import NetworkUpdate, Points
from sb3_visual_td3.health import quantities
from sb3_visual_td3.health.network_probe import NetworkProbe

LARGEST_LOGGED = th.finfo(th.float32).max
"""The largest number that an event file can hold: its values are 32-bit floats."""

MAX_COLLECTED_BATCHES = 100
"""The extremes of the rewards are computed for this many batches at once, which is faster than for each batch."""


class GradientMonitor:
    """Measure a model's gradient updates, as an :class:`~sb3_visual_td3.common.types.UpdateObserver`.

    Between two reads, all measurements stay on the device.

    :param sample_freq: updates between two measurements, >= 1; rewards are measured in every update
    :param keep_points: whether to keep the values of single updates for :meth:`read_points`
    :raises ValueError: if ``sample_freq`` is not an integer >= 1
    """

    def __init__(self, sample_freq: int = 10, keep_points: bool = False) -> None:
        self.sample_freq = to_integer("sample_freq", sample_freq, 1)
        self.keep_points = keep_points
        self.logs_losses = False
        """Whether a callback writes the losses that :meth:`read` returns to the event file."""
        self.probe: NetworkProbe | None = None
        """Measures the networks themselves, such as their dormant units. A callback sets this probe."""
        self._points: list[tuple[str, int, th.Tensor]] = []
        self._extremes_since_point: dict[str, th.Tensor] = {}
        self._sampled_now = 0
        self._last_q1: th.Tensor | None = None
        self._seen_by_optimizer = False
        self._last_sampled: dict[str, int] = {}
        self._before_clipping: dict[str, tuple[th.Tensor, th.Tensor]] = {}
        self._weights: dict[str, list[th.Tensor]] = {}
        self._value_bound: th.Tensor | None = None
        """Largest |Q| that the rewards allow, in the unit of the environment's rewards."""
        self._divisor = 1.0
        """The number by which the model divided the rewards of the last batch."""
        self._is_undiscounted: th.Tensor | None = None
        self._collected_rewards: list[tuple[th.Tensor, th.Tensor, float]] = []
        """Rewards of each batch, their discounts, and the number by which the rewards were divided."""
        self._start_window()

    def _start_window(self) -> None:
        self._sums: dict[str, th.Tensor] = {}
        self._counts: dict[str, int] = {}
        self._extremes: dict[str, th.Tensor] = {}
        self._has_probed = False
        self.n_updates = 0
        """Critic updates seen since the last read."""

    def after_backward(self, update: NetworkUpdate) -> None:
        """Measure the norms of the gradients before they are clipped, and collect the rewards of the batch.

        :param update: the update in progress
        """
        if update.network == "critic":
            self.n_updates += 1
            if "rewards" in update.values:
                self._divisor = float(update.values.get("reward_divisor", 1.0))
                collected = update.values["rewards"], update.values["discounts"], self._divisor
                self._collected_rewards.append(collected)
                if len(self._collected_rewards) >= MAX_COLLECTED_BATCHES:
                    self._reduce_rewards()
        last = self._last_sampled.get(update.network)
        # A monitor that is attached to another model sees a smaller number of updates.
        if last is None or update.n_updates < last or update.n_updates - last >= self.sample_freq:
            self._last_sampled[update.network] = self._sampled_now = update.n_updates
            self._seen_by_optimizer = update.seen_by_optimizer
            for group, parameters in update.groups.items():
                if quantities.is_frozen(parameters):  # no gradient, which is not the same as a norm of 0
                    continue
                norm = quantities.gradient_norm(parameters)
                self._add(tags.GRADIENT_NORM[group], norm)
                if not update.seen_by_optimizer:
                    self._before_clipping[group] = quantities.gradients_of(parameters), norm

    def after_clipping(self, update: NetworkUpdate) -> None:
        """Measure the norms that the optimizer will see, and copy the weights before the step."""
        if not self._is_sampled(update):
            return
        for group, parameters in update.groups.items():
            if quantities.is_frozen(parameters):
                continue
            if not update.seen_by_optimizer:
                # The gradients are compared, not their norms: adaptive clipping may change one small unit, which does
                # not show in the norm of the group.
                gradients, norm = self._before_clipping.pop(group)
                was_clipped = quantities.were_changed(gradients, parameters)
                # On a CPU this comparison is available at once, and an unchanged norm need not be computed again. On a
                # GPU computing it again is faster than waiting for the comparison.
                if was_clipped.device.type != "cpu" or was_clipped:
                    norm = quantities.gradient_norm(parameters)
                self._add(tags.GRADIENT_NORM_CLIPPED[group], norm)
                self._add(tags.CLIP_FRACTION[group], was_clipped)
            self._weights[group] = [parameter.detach().clone() for parameter in parameters]

    def after_step(self, update: NetworkUpdate) -> None:
        """Measure the losses, Q values and actions of the update, and how far the step has moved the weights."""
        if not self._is_sampled(update):
            return
        for group, parameters in update.groups.items():
            if group not in self._weights:
                continue
            after = [parameter.detach() for parameter in parameters]
            self._add(tags.UPDATE_RATIO[group], quantities.update_ratio(self._weights.pop(group), after))
        if update.network == "critic":
            self._add_critic_values(update)
            self._add_probed(update)
        else:
            self._add_actor_values(update)

    def _is_sampled(self, update: NetworkUpdate) -> bool:
        return self._last_sampled.get(update.network) == update.n_updates

    def _add_critic_values(self, update: NetworkUpdate) -> None:
        values = update.values
        if "loss" in values:
            self._add(tags.CRITIC_LOSS, values["loss"])
        for tag, loss in zip((tags.CRITIC_1_LOSS, tags.CRITIC_2_LOSS), values.get("losses", ()), strict=False):
            self._add(tag, loss)
        # float64, because the sum over a batch may overflow when its mean does not.
        q_means = values["q_values"].mean(dim=0, dtype=th.float64) if "q_values" in values else ()
        for tag, q_value in zip((tags.Q1_VALUE, tags.Q2_VALUE), q_means, strict=False):
            self._add(tag, q_value)
        if "q_values" in values:
            self._last_q1 = values["q_values"][:, 0].mean(dtype=th.float64).detach()
        if "target_q" in values:
            self._add(tags.TARGET_Q_MEAN, values["target_q"].mean(dtype=th.float64))
        self._reduce_rewards()
        for tag, extreme in self._extremes_since_point.items():
            self._keep(tag, extreme)
        self._extremes_since_point.clear()
        if self._value_bound is not None:
            self._keep(tags.Q_BOUND, self._value_bound / self._divisor)

    def _add_actor_values(self, update: NetworkUpdate) -> None:
        values = update.values
        if "loss" in values:
            self._add(tags.ACTOR_LOSS, values["loss"])
        if "policy_q" in values:
            policy_q = values["policy_q"].mean(dtype=th.float64)
            self._add(tags.POLICY_Q_VALUE, policy_q)
            if self._last_q1 is not None:
                # This is the gap of a single update. For a window of updates, read() computes the difference of the
                # means.
                self._keep(tags.Q_GAP, policy_q - self._last_q1)
        if "actions" in values:
            self._add(tags.ACTION_SATURATION, quantities.action_saturation(values["actions"]))
            self._add(tags.ACTION_STD_MIN, quantities.smallest_action_std(values["actions"]))
        if "pre_tanh" in values:
            self._add(tags.PRE_TANH_ABS_MEAN, values["pre_tanh"].abs().mean(dtype=th.float64))

    def _add_probed(self, update: NetworkUpdate) -> None:
        if self.probe is None:
            return
        probed = self.probe.targets_moved()
        if not self._has_probed:
            # These measures need a pass over all weights and a pass through the encoder, so they are taken once per
            # window.
            self._has_probed = True
            probed.update(self.probe.distances())
            if update.observations is not None:
                probed.update(self.probe.dormancy(update.observations))
        for tag, value in probed.items():
            self._add(tag, value)

    def _reduce_rewards(self) -> None:
        """Compute the smallest and the largest of the collected rewards, for many batches in one call."""
        if not self._collected_rewards:
            return
        rewards = th.cat([reward for reward, _, _ in self._collected_rewards])
        discounts = th.cat([_as_many(discount, reward) for reward, discount, _ in self._collected_rewards])
        # The divisor changes during the training, so the bound over all batches is computed from unscaled rewards.
        unscaled = th.cat([reward * divisor for reward, _, divisor in self._collected_rewards])
        self._collected_rewards.clear()
        lowest, highest = rewards.aminmax()
        for tag, fold, extreme in ((tags.REWARD_MIN, th.minimum, lowest), (tags.REWARD_MAX, th.maximum, highest)):
            self._extremes[tag] = _fold(fold, self._extremes.get(tag), extreme)
            self._extremes_since_point[tag] = _fold(fold, self._extremes_since_point.get(tag), extreme)
        self._value_bound = _fold(th.maximum, self._value_bound, quantities.value_bound(unscaled, discounts))
        self._is_undiscounted = _fold(th.maximum, self._is_undiscounted, (discounts >= 1.0).any().float())

    def _add(self, tag: str, value: th.Tensor) -> None:
        value = value.detach().double()
        self._keep(tag, value)
        self._sums[tag] = self._sums[tag] + value if tag in self._sums else value
        self._counts[tag] = self._counts.get(tag, 0) + 1

    def _keep(self, tag: str, value: th.Tensor) -> None:
        if self.keep_points:
            self._points.append((tag, self._sampled_now, value.detach().double()))

    def read_points(self) -> Points:
        """Return the values of single updates since the last call.

        :return: pairs (update, value) by tag; empty unless ``keep_points`` is set
        """
        if not self._points:
            return {}
        kept, self._points = self._points, []
        points: dict[str, list[tuple[int, float]]] = {}
        for (tag, n_updates, _), value in zip(kept, th.stack([value for *_, value in kept]).tolist(), strict=True):
            if must_log(tag, value):
                points.setdefault(tag, []).append((n_updates, value))
        return points

    def read(self) -> dict[str, float]:
        """Return the measures of the current window of updates, and start the next window.

        :return: means and extremes by tag, with the bound on |Q| over the whole run if this bound exists; an empty dict
            if no update was sampled
        """
        if not self._sums:
            return {}
        self._reduce_rewards()
        means = {tag: total / self._counts[tag] for tag, total in self._sums.items()}
        if tags.POLICY_Q_VALUE in means and tags.Q1_VALUE in means:
            means[tags.Q_GAP] = means[tags.POLICY_Q_VALUE] - means[tags.Q1_VALUE]
        tensors = {**means, **self._extremes}
        if self._value_bound is not None:
            tensors[tags.Q_BOUND] = self._value_bound / self._divisor
        if self._is_undiscounted is not None:
            tensors[tags.RETURN_IS_UNDISCOUNTED] = self._is_undiscounted
        self._start_window()
        found = {tag: value for tag, value in _transfer(tensors).items() if must_log(tag, value)}
        return {**found, tags.SEEN_BY_OPTIMIZER: float(self._seen_by_optimizer)}

    def get_state(self) -> dict[str, Any]:
        """Return all measurements of the current window and of the whole run; call this between two updates.

        :return: a dict without tensors
        """
        self._reduce_rewards()
        bound = {} if self._value_bound is None else {tags.Q_BOUND: self._value_bound}
        if self._is_undiscounted is not None:
            bound[tags.RETURN_IS_UNDISCOUNTED] = self._is_undiscounted
        last_q1 = {} if self._last_q1 is None else {tags.Q1_VALUE: self._last_q1}
        values = _transfer({str(number): value for number, (*_, value) in enumerate(self._points)})
        return {
            "last_sampled": dict(self._last_sampled),
            "n_updates": self.n_updates,
            "counts": dict(self._counts),
            "sums": _numbers(self._sums),
            "extremes": _numbers(self._extremes),
            "value_bound": _numbers(bound),
            "reward_divisor": self._divisor,
            "points": [[tag, n, values[str(number)]] for number, (tag, n, _) in enumerate(self._points)],
            "extremes_since_point": _numbers(self._extremes_since_point),
            "last_q1": _numbers(last_q1),
            "sampled_now": self._sampled_now,
            "seen_by_optimizer": self._seen_by_optimizer,
            "has_probed": self._has_probed,
            "probe": None if self.probe is None else self.probe.get_state(),
        }

    def set_state(self, state: Mapping[str, Any], device: th.device | str = "cpu") -> None:
        """Restore the measurements that :meth:`get_state` of another monitor returned, bit for bit.

        :param state: result of :meth:`get_state`
        :param device: device of the observed model
        """
        self._start_window()
        self._collected_rewards.clear()
        self._last_sampled = dict(state["last_sampled"])
        self.n_updates = state["n_updates"]
        self._counts = dict(state["counts"])
        self._sums = _scalar_tensors(state["sums"], device)
        self._extremes = _scalar_tensors(state["extremes"], device)
        # States of earlier versions lack this key.
        self._has_probed = state.get("has_probed", tags.TARGET_DISTANCE["critic"] in state["sums"])
        bound = _scalar_tensors(state["value_bound"], device)
        self._value_bound = bound.get(tags.Q_BOUND)
        self._is_undiscounted = bound.get(tags.RETURN_IS_UNDISCOUNTED)  # states of earlier versions lack this tag
        self._divisor = float(state.get("reward_divisor", 1.0))
        self._points = [
            (tag, n_updates, th.tensor(value, dtype=th.float64, device=device))
            for tag, n_updates, value in state["points"]
        ]
        self._extremes_since_point = _scalar_tensors(state["extremes_since_point"], device)
        self._last_q1 = _scalar_tensors(state["last_q1"], device).get(tags.Q1_VALUE)
        self._sampled_now = state["sampled_now"]
        self._seen_by_optimizer = state["seen_by_optimizer"]
        if self.probe is not None and state["probe"] is not None:
            self.probe.set_state(state["probe"], device)


def _fold(fold: Callable[[th.Tensor, th.Tensor], th.Tensor], so_far: th.Tensor | None, value: th.Tensor) -> th.Tensor:
    value = value.detach()
    return value if so_far is None else fold(so_far, value)


def must_log(tag: str, value: float) -> bool:
    """Return whether to log a value of a tag.

    Derived tags hold bounds, differences and ratios. An infinite value of such a tag is not logged, because it means
    that the quantity does not exist. For example, undiscounted returns have no bound.
    """
    return tag not in tags.DERIVED or not abs(value) > LARGEST_LOGGED


def _as_many(discounts: th.Tensor, rewards: th.Tensor) -> th.Tensor:
    """Return one discount for each reward, on the device of the rewards."""
    if discounts.device != rewards.device:
        # The discount was made from a Python number, so reading it needs no transfer from the device.
        return th.full_like(rewards, float(discounts))
    return discounts.expand_as(rewards)


def _transfer(tensors: dict[str, th.Tensor]) -> dict[str, float]:
    if not tensors:
        return {}
    return dict(zip(tensors, th.stack([tensor.double() for tensor in tensors.values()]).tolist(), strict=True))


def _numbers(tensors: dict[str, th.Tensor]) -> dict[str, Any]:
    """Convert each scalar tensor to a list ``[value, dtype]``, such as ``[0.5, "float32"]``."""
    return {
        name: [number, str(tensors[name].dtype).removeprefix("torch.")] for name, number in _transfer(tensors).items()
    }


def _scalar_tensors(numbers: Mapping[str, Any], device: th.device | str) -> dict[str, th.Tensor]:
    """Convert the result of :func:`_numbers` back to tensors."""
    return {
        name: th.tensor(number, dtype=getattr(th, dtype), device=device) for name, (number, dtype) in numbers.items()
    }
