"""Define the interfaces through which observers, callbacks and snapshots use an algorithm.

Start here when you read the code. The algorithm (``visual_td3``) does not import health measures or callbacks, but
passes each gradient update to its :class:`UpdateObserver` objects. Callbacks attach these observers through
:class:`WatchedModel`. The guard of ExplosionAlertCallback uses :class:`GuardedModel` to lower learning rates and to
restore a healthy snapshot. A snapshot saves everything that implements :class:`HasState`.

Environments, replay buffers and callbacks agree on failed steps by two keys of ``info``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch as th

Network = Literal["actor", "critic"]
NETWORKS: tuple[Network, ...] = ("actor", "critic")

STOCK_ARGUMENTS = (
    "learning_rate",
    "buffer_size",
    "learning_starts",
    "batch_size",
    "tau",
    "gamma",
    "train_freq",
    "gradient_steps",
    "n_steps",
    "policy_delay",
    "target_policy_noise",
    "target_noise_clip",
)
"""Arguments of Stable-Baselines3's TD3 that :meth:`VisualTD3.describe` lists and run.json records."""

INVALID_TRANSITION = "invalid_transition"
"""Key of ``info``: True if the replay buffer must not store the step, because it failed or its result was late."""
SIMULATOR_FAILURE = "simulator_failure"
"""Key of ``info``: the reason why the simulator or the environment's process failed, as text."""


class NetworkUpdate(NamedTuple):
    """Describe one gradient update of one network to its observers.

    :ivar network: the network that is updated
    :ivar n_updates: number of this update, counted from 1 as Stable-Baselines3's ``_n_updates``
    :ivar groups: the parameters, with their gradients, by the name of their group, such as ``"actor_cnn"``
    :ivar values: tensors of this update, detached; they must not be changed. A key that the algorithm does not provide
        is absent.

        - critic: ``loss`` (scalar), ``losses`` (n_critics,), ``q_values`` (batch, n_critics), ``target_q`` (batch, 1),
          ``rewards`` (batch, 1), ``discounts`` (batch, 1) or a scalar, ``reward_divisor`` (a scalar on the CPU: the
          number by which the environment's rewards were divided)
        - actor: ``loss`` (scalar), ``actions`` (batch, action_dim), ``pre_tanh`` (batch, action_dim), ``policy_q``
          (batch, 1), which is Q1(s, pi(s))
    :ivar observations: the batch's observations, not a copy; None if the algorithm does not provide them
    :ivar seen_by_optimizer: True if the gradients are read at the optimizer's step, after any clipping. This is the
        case for the algorithms of Stable-Baselines3 and sb3-contrib.
    """

    network: Network
    n_updates: int
    groups: Mapping[str, Sequence[th.Tensor]]
    values: Mapping[str, th.Tensor]
    observations: th.Tensor | Mapping[str, th.Tensor] | None = None
    seen_by_optimizer: bool = False


Points = Mapping[str, Sequence[tuple[int, float]]]
"""Measurements of single updates: for each logged name, a list of (number of the update, value)."""


class UpdateObserver(Protocol):
    """Watch gradient updates.

    Each method is called once per update of each network, in the order below. An observer must not change a gradient, a
    weight or a random state.

    An observer may have two more attributes; a missing attribute means False:

    - ``handles_non_finite``: True while a callback acts on NaN and infinity that the observer finds. VisualTD3 then
      skips an optimizer step that is not finite. Without such an observer, VisualTD3 raises an error.
    - ``logs_losses``: True while a callback writes the losses to the event file. Without such an observer, VisualTD3
      writes them itself.
    """

    def after_backward(self, update: NetworkUpdate) -> None:
        """Read the gradients after ``loss.backward()`` and before clipping.

        :param update: the update in progress
        """

    def after_clipping(self, update: NetworkUpdate) -> None:
        """Read the gradients that the optimizer is about to use.

        :param update: the update in progress
        """

    def after_step(self, update: NetworkUpdate) -> None:
        """Read the weights after ``optimizer.step()``; the target networks have not moved yet.

        :param update: the finished update
        """


@runtime_checkable
class HasState(Protocol):
    """Save an object's state as plain data, and restore it in the same object or in an object with equal settings.

    A state is a dict with string keys. Its values are None, booleans, numbers, strings, NumPy arrays of numbers, and
    lists and dicts of these. SnapshotCallback saves any callback, environment, replay buffer or noise that has
    ``get_state()`` and ``set_state()``.
    """

    def get_state(self) -> dict[str, Any]:
        """Return everything that the object's future behaviour depends on.

        :return: plain data; arrays may be views, so the caller saves them before training continues
        """

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state, from which the object then continues.

        :param state: the state returned by ``get_state``; an array may be a
            :class:`~sb3_visual_td3.common.saved_state.StoredArray`
        :raises ValueError: if the object's settings differ from the saved settings
        """


@runtime_checkable
class EndsSegments(Protocol):
    """Define a replay buffer that can be told that the next transition does not continue the last one."""

    def end_segment(self) -> None:
        """Treat the next transition as the start of an episode, even if the last transition did not end one."""


@runtime_checkable
class CompletesSavedWeights(Protocol):
    """Load the weights of an earlier version into a policy that has more weights."""

    def completed_state(self, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Make saved weights fit this policy, which may have more weights than the policy that was saved.

        :param state_dict: weights by name, as they were saved
        :return: weights by name, as this policy loads them
        """


@runtime_checkable
class WatchedModel(Protocol):
    """Provide what callbacks need beyond Stable-Baselines3's interface; VisualTD3 implements this."""

    observers: list[UpdateObserver]
    """Observers of every gradient update. Append to the list to watch a model."""

    @property
    def reward_is_normalized(self) -> bool:
        """Return whether the critic sees scaled rewards."""

    @property
    def reward_divisor(self) -> float:
        """Return the number by which the model divides the rewards; 1 if it leaves them unchanged."""

    @property
    def encoder_is_shared(self) -> bool | None:
        """Return whether the critic's loss trains one encoder for actor and critic; None if there is no encoder.

        Such an encoder belongs to the group ``critic_cnn``, and there is no group ``actor_cnn``.
        """

    @property
    def groups(self) -> Mapping[str, Sequence[th.Tensor]]:
        """Return the parameters of each group, by name."""

    @property
    def learning_rates(self) -> Mapping[str, float]:
        """Return the current learning rate of each group, by name."""

    def describe(self) -> Mapping[str, tuple[Any, str]]:
        """Return the value and the source of every setting, ``(value, source)`` by name."""


@runtime_checkable
class GuardedModel(Protocol):
    """Provide what the guard of ExplosionAlertCallback needs; VisualTD3 implements this.

    After a critical alert, the guard can lower the learning rates, or roll back, which restores a healthy snapshot. For
    a model that does not implement this class, the guard lowers the learning rates by wrapping ``lr_schedule``, and a
    rollback restores only weights and optimizers.
    """

    lr_scale: float
    """Factor on every learning rate. Schedules continue, multiplied by this factor."""

    def roll_back(self, state: Mapping[str, Any]) -> None:
        """Restore what the model has learned outside its weights, such as the scale of the rewards.

        The caller has restored weights and optimizers. Counters and ``lr_scale`` do not change.

        :param state: a state that ``get_state`` returned earlier in this training
        """
