"""Types that two rooms share. Importing this module costs nothing: torch is named for type checkers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch as th

Network = Literal["actor", "critic"]
NETWORKS: tuple[Network, ...] = ("actor", "critic")


class NetworkUpdate(NamedTuple):
    """One gradient update of one network, as its observers see it.

    ``groups`` maps a group name (``actor_cnn``, ``actor_mlp``, ``critic_cnn``, ``critic_mlp``) to its
    parameters; ``values`` holds the update's own tensors, detached, which nobody writes to afterwards. Their keys:

    - critic: ``loss`` (scalar), ``losses`` (n_critics,), ``q_values`` (batch, n_critics), ``target_q``
      (batch, 1), ``rewards`` (batch, 1), ``discounts`` (batch, 1) or a scalar
    - actor: ``loss`` (scalar), ``actions`` (batch, action_dim), ``pre_tanh`` (batch, action_dim),
      ``policy_q`` (batch, 1): Q1(s, pi(s))

    A key that the algorithm does not let be seen is absent. ``observations`` are the batch's own, as the replay
    buffer gave them, by reference; None where they are not shown. ``seen_by_optimizer`` says that the gradients
    were first seen by the optimizer, after any clipping of the algorithm's own.
    """

    network: Network
    n_updates: int
    groups: Mapping[str, Sequence[th.Tensor]]
    values: Mapping[str, th.Tensor]
    observations: th.Tensor | Mapping[str, th.Tensor] | None = None
    seen_by_optimizer: bool = False


Points = Mapping[str, Sequence[tuple[int, float]]]
"""By tag, (update, value): what was measured of single updates."""


class UpdateObserver(Protocol):
    """What may watch a gradient update. Each method is called once per update of each network.

    An observer reads; it changes no gradient, no weight and no random state.
    """

    def after_backward(self, update: NetworkUpdate) -> None:
        """Gradients are fresh and not yet clipped."""

    def after_clipping(self, update: NetworkUpdate) -> None:
        """Gradients are what the optimizer will use."""

    def after_step(self, update: NetworkUpdate) -> None:
        """The optimizer has stepped; the target networks have not moved yet."""


@runtime_checkable
class JudgesFiniteness(Protocol):
    """An observer that finds what is not finite itself, and has a callback act on it: stop, or roll back."""

    def first(self) -> Any:
        """:return: the first number since the last call that is not finite; None if all are"""


@runtime_checkable
class HasState(Protocol):
    """What can be put aside as plain data and taken up again, in this object or in one made alike.

    A state is a dict with string keys of None, booleans, numbers, strings, numpy arrays, and lists and dicts of these.
    """

    def get_state(self) -> dict[str, Any]:
        """:return: all that the future depends on; arrays may be views, to be written away before anything goes on"""

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from where ``get_state`` was called.

        :param state: as returned there; arrays may be :class:`~sb3_visual_td3.common.saved_state.StoredArray`
        :raises ValueError: if it is the state of something else
        """


@runtime_checkable
class WatchedModel(Protocol):
    """What callbacks ask of a model beyond Stable-Baselines3's own interface."""

    observers: list[UpdateObserver]

    @property
    def reward_is_normalized(self) -> bool:
        """Whether the critic sees rewards scaled by VecNormalize."""

    @property
    def encoder_is_shared(self) -> bool | None:
        """Whether one encoder serves actor and critic; None where there is no encoder."""

    @property
    def groups(self) -> Mapping[str, Sequence[th.Tensor]]:
        """The named parameter groups."""

    @property
    def learning_rates(self) -> Mapping[str, float]:
        """The learning rate in force, by group."""

    def describe(self) -> Mapping[str, tuple[Any, str]]:
        """Every setting in force and where it comes from."""


@runtime_checkable
class GuardedModel(Protocol):
    """What a guard asks of a model that can do more than Stable-Baselines3's."""

    lr_scale: float
    """Factor on every learning rate: schedules go on below it."""

    def roll_back(self, state: Mapping[str, Any]) -> None:
        """Return to what had been learnt beside the weights; counters and ``lr_scale`` go on.

        :param state: of an earlier ``get_state``
        """
