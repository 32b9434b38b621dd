"""Define TD3's policies with trunks, LayerNorm heads, and an encoder that only the critic trains.

``encode`` turns observations into features, and ``act`` and ``score`` work on features. A shared encoder therefore runs
only once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy, ContinuousCritic
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
    create_mlp,
)
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.td3.policies import Actor, CnnPolicy, MultiInputPolicy, TD3Policy
from torch import nn

from sb3_visual_td3.common.errors import InvalidSettingError
from sb3_visual_td3.common.numbers import to_integer
from sb3_visual_td3.common.pictures import channels_are_last, pictures_in, pictures_read
from sb3_visual_td3.visual_td3.averaging import AVERAGE, averaged_copy, completed_state
from sb3_visual_td3.visual_td3.batches import Prepared
from sb3_visual_td3.visual_td3.encoders import (
    ChannelsLastNatureCNN,
    CombinedEncoder,
    Convolutions,
    EncoderArch,
    features_extractor_for,
    head_input_dim,
    trunk_for,
)
from sb3_visual_td3.visual_td3.param_groups import group_optimizers
from sb3_visual_td3.visual_td3.precision import encode_prepared

Encoder = Literal["separate", "shared"]
_ENCODER = "features_extractor."
_CRITIC_OF = {"actor": "critic", "actor_target": "critic_target"}
"""For each actor, the critic whose encoder it uses if the encoder is shared."""


def features_of(network: Actor | ContinuousCritic, observations: PyTorchObs | Prepared) -> th.Tensor:
    """Return the output ``(batch, features)`` of the network's features extractor."""
    if not isinstance(observations, Prepared):
        return network.extract_features(observations, network.features_extractor)
    return encode_prepared(network.features_extractor, observations.observations)


def head(layers: nn.Module, features: th.Tensor) -> th.Tensor:
    """Return the output ``(batch, outputs)`` of a head.

    Under autocast the last layer computes in float32, because the losses depend on small differences between its
    outputs.
    """
    assert isinstance(layers, nn.Sequential)
    if not th.is_autocast_enabled(features.device.type):
        outputs: th.Tensor = layers(features)
        return outputs
    hidden = layers[:-1](features)
    with th.autocast(features.device.type, enabled=False):
        outputs = layers[-1](hidden.float())
    return outputs  # noqa: RET504  typed


class VisualActor(Actor):
    """Extend Stable-Baselines3's actor by an optional trunk, a LayerNorm head and the use of the critic's encoder.

    A subclass may override :meth:`encode` and :meth:`pre_tanh`, from which the updates compute the actions. The updates
    do not call :meth:`forward`.

    :param observation_space: the observation space
    :param action_space: the action space
    :param net_arch: widths of the head's hidden layers
    :param features_extractor: the encoder
    :param features_dim: number of features that the encoder returns
    :param activation_fn: activation of the hidden layers
    :param normalize_images: True divides pixels by 255
    :param trunk_dim: width of the trunk (Linear -> LayerNorm -> Tanh) before the head; None for no trunk
    :param vectors_skip_trunk: True passes vectors of Dict observations directly to the head
    :param layer_norm: True puts a LayerNorm after each dense layer of the head
    :param borrows_encoder: True if the features extractor belongs to the critic; it is then not among the actor's
        ``parameters()``
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        net_arch: list[int],
        features_extractor: nn.Module,
        features_dim: int,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
        trunk_dim: int | None = None,
        layer_norm: bool = False,
        borrows_encoder: bool = False,
        vectors_skip_trunk: bool = False,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            net_arch,
            features_extractor,
            head_input_dim(features_extractor, features_dim, trunk_dim, vectors_skip_trunk),
            activation_fn,
            normalize_images,
        )
        self.borrows_encoder = borrows_encoder
        self.trunk_dim = trunk_dim
        self.vectors_skip_trunk = vectors_skip_trunk
        self.layer_norm = layer_norm
        self.encoder_dim = features_dim
        if layer_norm:
            action_dim = get_action_dim(action_space)
            heads = create_mlp(
                self.features_dim, action_dim, net_arch, activation_fn, True, post_linear_modules=[nn.LayerNorm]
            )
            self.mu = nn.Sequential(*heads)
        self.trunk = trunk_for(features_extractor, features_dim, trunk_dim, vectors_skip_trunk)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Return the actor's weights and their names, by default without the weights of the critic's encoder.

        :param prefix: see ``nn.Module``
        :param recurse: see ``nn.Module``
        :param remove_duplicate: False also returns the weights of the critic's encoder, which torch.export needs
        """
        borrowed: set[int] = set()
        if self.borrows_encoder and remove_duplicate:
            assert isinstance(self.features_extractor, nn.Module)
            borrowed = {id(parameter) for parameter in self.features_extractor.parameters()}
        for name, parameter in super().named_parameters(prefix, recurse, remove_duplicate):
            if id(parameter) not in borrowed:
                yield name, parameter

    def encode(self, observations: PyTorchObs | Prepared) -> th.Tensor:
        """Return the encoder's features ``(batch, features)``, detached if the encoder belongs to the critic."""
        with th.set_grad_enabled(th.is_grad_enabled() and not self.borrows_encoder):
            return features_of(self, observations)

    def pre_tanh(self, features: th.Tensor) -> th.Tensor:
        """Return the activations before the tanh that limits actions, ``(batch, action_dim)``."""
        return head(self.mu[:-1], self.trunk(features))

    def act(self, features: th.Tensor) -> th.Tensor:
        """Return the actions for the encoder's features, ``(batch, action_dim)`` in [-1, 1]."""
        return th.tanh(self.pre_tanh(features))

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """Return the actions for a batch of observations, ``(batch, action_dim)`` in [-1, 1]."""
        return self.act(self.encode(obs))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(
            features_dim=self.encoder_dim,  # instead of self.features_dim, the head's input width
            trunk_dim=self.trunk_dim,
            layer_norm=self.layer_norm,
            borrows_encoder=self.borrows_encoder,
            vectors_skip_trunk=self.vectors_skip_trunk,
        )
        return data


class VisualCritic(ContinuousCritic):
    """Extend Stable-Baselines3's critics by an optional trunk and LayerNorm heads.

    A subclass may override :meth:`encode` and :meth:`score`. The updates do not always call :meth:`forward`.

    :param observation_space: the observation space
    :param action_space: the action space
    :param net_arch: widths of each head's hidden layers
    :param features_extractor: the encoder
    :param features_dim: number of features that the encoder returns
    :param activation_fn: activation of the hidden layers
    :param normalize_images: True divides pixels by 255
    :param n_critics: number of heads
    :param share_features_extractor: True if the critic uses the actor's encoder, which only the actor's loss trains
    :param trunk_dim: width of the trunk (Linear -> LayerNorm -> Tanh) before the heads; None for no trunk
    :param vectors_skip_trunk: True passes vectors of Dict observations directly to the heads
    :param layer_norm: True puts a LayerNorm after each dense layer of the heads
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        net_arch: list[int],
        features_extractor: BaseFeaturesExtractor,
        features_dim: int,
        activation_fn: type[nn.Module] = nn.ReLU,
        normalize_images: bool = True,
        n_critics: int = 2,
        share_features_extractor: bool = False,
        trunk_dim: int | None = None,
        layer_norm: bool = False,
        vectors_skip_trunk: bool = False,
    ) -> None:
        heads_dim = head_input_dim(features_extractor, features_dim, trunk_dim, vectors_skip_trunk)
        super().__init__(
            observation_space,
            action_space,
            net_arch,
            features_extractor,
            heads_dim,
            activation_fn,
            normalize_images,
            n_critics,
            share_features_extractor,
        )
        if layer_norm:
            input_dim = heads_dim + get_action_dim(action_space)
            for index in range(n_critics):
                heads = create_mlp(input_dim, 1, net_arch, activation_fn, post_linear_modules=[nn.LayerNorm])
                self.q_networks[index] = nn.Sequential(*heads)
                self.add_module(f"qf{index}", self.q_networks[index])
        self.trunk = trunk_for(features_extractor, features_dim, trunk_dim, vectors_skip_trunk)

    def encode(self, observations: PyTorchObs | Prepared) -> th.Tensor:
        """Return the output ``(batch, features)`` of the critic's own encoder."""
        # With share_features_extractor, Stable-Baselines3 trains the encoder by the actor's loss only.
        with th.set_grad_enabled(th.is_grad_enabled() and not self.share_features_extractor):
            return features_of(self, observations)

    def score(self, features: th.Tensor, actions: th.Tensor, first_only: bool = False) -> tuple[th.Tensor, ...]:
        """Return the Q-values of actions.

        :param features: output ``(batch, features)`` of this critic's :meth:`encode`
        :param actions: the actions, ``(batch, action_dim)`` in [-1, 1]
        :param first_only: True evaluates only the first critic
        :return: one ``(batch, 1)`` tensor per critic
        """
        q_input = th.cat([self.trunk(features), actions], dim=1)
        q_networks = self.q_networks[:1] if first_only else self.q_networks
        return tuple(head(q_network, q_input) for q_network in q_networks)

    def forward(self, obs: PyTorchObs | Prepared, actions: th.Tensor) -> tuple[th.Tensor, ...]:
        """Return one ``(batch, 1)`` tensor of Q(s, a) per critic."""
        return self.score(self.encode(obs), actions)

    def q1_forward(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """Return the first critic's Q-values ``(batch, 1)``, without a gradient into the encoder."""
        with th.no_grad():
            features = self.encode(obs)
        return self.score(features, actions, first_only=True)[0]


class VisualTD3Policy(TD3Policy):
    """Implement TD3's policy for vectors; this is also the base class of the two policies for pixels.

    :param observation_space: the observation space
    :param action_space: the action space
    :param lr_schedule: the learning rate over training
    :param args: the other arguments of :class:`stable_baselines3.td3.policies.TD3Policy`
    :param encoder: ``"separate"``, or ``"shared"``: one encoder, trained by the critic's loss only (Yarats et al. 2019
        SAC-AE, 2021 DrQ-v2)
    :param encoder_arch: ``"nature"``, ``"drq"`` or a features extractor class; None keeps ``features_extractor_class``
    :param trunk_dim: width of the trunks (Linear -> LayerNorm -> Tanh); None for no trunks
    :param vectors_skip_trunk: True passes vectors of Dict observations directly to the heads. Otherwise a few important
        numbers may have little effect among thousands of features of pictures
    :param layer_norm: True puts a LayerNorm after each dense layer of the heads
    :param actor_keys: keys of the Dict observation that the actor reads; None for all
    :param critic_keys: keys of the Dict observation that the critics read; None for all. The critics may read what a
        deployed policy cannot know (Pinto et al. 2018, "Asymmetric actor critic for image-based robot learning").
        ``actor_keys`` and ``critic_keys`` need ``encoder="separate"`` and ``share_features_extractor=False``
    :param kwargs: further arguments of the policy, by name
    :raises ValueError: if an argument is invalid, or does not fit the observation space or the encoder
    """

    actor: VisualActor
    actor_target: VisualActor
    critic: VisualCritic
    critic_target: VisualCritic
    averaged_actor: VisualActor | None
    """Copy of ``actor`` with a moving average of its weights. ``predict`` uses this copy. None for no average."""
    may_average: bool = True
    """Whether :meth:`load_state_dict` loads an averaged actor if the weights include one; False drops it."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Schedule,
        *args: Any,
        encoder: Encoder = "separate",
        encoder_arch: EncoderArch | None = None,
        trunk_dim: int | None = None,
        layer_norm: bool = False,
        vectors_skip_trunk: bool = False,
        actor_keys: Sequence[str] | None = None,
        critic_keys: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if encoder not in ("separate", "shared"):
            raise ValueError(f"encoder={encoder!r}: expected 'separate' or 'shared'")
        for name, keys in (("actor_keys", actor_keys), ("critic_keys", critic_keys)):
            _check_keys(name, keys, observation_space, encoder, kwargs.get("share_features_extractor", False))
        if trunk_dim is not None:
            trunk_dim = to_integer("trunk_dim", trunk_dim, 1, "an integer >= 1, or None for no trunk")
        if "n_critics" in kwargs:
            kwargs["n_critics"] = to_integer("n_critics", kwargs["n_critics"], 1)
        if encoder_arch is not None:
            kwargs["features_extractor_class"] = features_extractor_for(encoder_arch, trunk_dim)
            if isinstance(encoder_arch, str) and isinstance(observation_space, spaces.Dict):
                own = kwargs.get("features_extractor_kwargs") or {}
                kwargs["features_extractor_kwargs"] = {"image_encoder": kwargs["features_extractor_class"], **own}
                kwargs["features_extractor_class"] = CombinedEncoder
        if not kwargs.get("normalize_images", True):
            kwargs.update(_reading_scaled_pictures(observation_space, kwargs))
        # TD3Policy builds its networks in its constructor, so what they need is set first.
        self.encoder = encoder
        self.encoder_arch = encoder_arch
        self.trunk_dim = trunk_dim
        self.layer_norm = layer_norm
        self.vectors_skip_trunk = vectors_skip_trunk
        self.actor_keys = actor_keys
        self.critic_keys = critic_keys
        super().__init__(observation_space, action_space, lr_schedule, *args, **kwargs)
        self.averaged_actor = None
        self._uses_average = True

    @property
    def pictures(self) -> dict[str, spaces.Box]:
        """Return the spaces of the pictures that the policy sees, by key."""
        return pictures_read(self.observation_space, self.normalize_images, self.features_extractor_class)

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """Build a features extractor.

        :raises ValueError: if the pictures are too small for it
        """
        try:
            return super().make_features_extractor()
        except RuntimeError as error:
            if "Kernel size" not in str(error):
                raise
            sizes = ", ".join(f"{key} {picture.shape}" for key, picture in self.pictures.items())
            raise ValueError(
                f"pictures too small for {self.features_extractor_class.__name__}: {sizes}. NatureCNN needs at least "
                "36 x 36 pixels, and encoder_arch='drq' needs at least 15 x 15. Render larger pictures, or resize them "
                "(gymnasium.wrappers.ResizeObservation). If a listed observation is not a picture, flatten it, or set "
                "the bounds of its space to values other than 0 and 255"
            ) from error

    @property
    def encoder_is_shared(self) -> bool:
        """Return whether actor and critic share one encoder, which only the critic's loss trains."""
        return self.encoder == "shared"

    def _build(self, lr_schedule: Schedule) -> None:
        if self.encoder_is_shared:
            self._build_with_one_encoder(lr_schedule)
        else:
            super()._build(lr_schedule)
        group_optimizers(self)

    def _build_with_one_encoder(self, lr_schedule: Schedule) -> None:
        # As TD3Policy._build, but the critic comes first: it owns the encoder that the actor is given.
        if self.share_features_extractor:
            raise ValueError(
                "encoder='shared' and share_features_extractor=True exclude each other: drop share_features_extractor"
            )
        self.critic = self.make_critic()
        if not any(True for _ in self.critic.features_extractor.parameters()):
            raise ValueError(
                "encoder='shared' needs an encoder: this policy's features extractor has no parameters. Use "
                "encoder='separate'"
            )
        self.critic_target = self.make_critic()
        self.critic_target.load_state_dict(self.critic.state_dict())
        self.actor = self.make_actor(self.critic.features_extractor)
        self.actor_target = self.make_actor(self.critic_target.features_extractor)
        self.actor_target.load_state_dict(self.actor.state_dict())
        for network in (self.actor, self.critic):
            network.optimizer = self.optimizer_class(
                network.parameters(),
                lr=lr_schedule(1),  # type: ignore[call-arg]
                **self.optimizer_kwargs,
            )
        # Target networks should always be in eval mode
        self.actor_target.set_training_mode(False)
        self.critic_target.set_training_mode(False)

    def keep_average(self) -> None:
        """Create ``averaged_actor``, which begins as a copy of the actor."""
        self.averaged_actor = averaged_copy(self.actor)

    @contextmanager
    def without_average(self) -> Iterator[None]:
        """Make ``predict`` use the actor itself instead of the averaged actor, until this context ends."""
        self._uses_average = False
        try:
            yield
        finally:
            self._uses_average = True

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        """Return the actions of the averaged actor, or of the actor if there is no average."""
        if self.averaged_actor is not None and self._uses_average:
            actions: th.Tensor = self.averaged_actor(observation)
            return actions
        return super()._predict(observation, deterministic)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the weights by name; a shared encoder appears once, under the critic, as in saved models.

        :param args: see ``nn.Module``
        :param kwargs: see ``nn.Module``
        """
        state = super().state_dict(*args, **kwargs)
        if not self.encoder_is_shared:
            return state
        # nn.Module also takes (destination, prefix, keep_vars) by position.
        prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "")
        for key in list(state):
            if key.startswith(tuple(f"{prefix}{actor}.{_ENCODER}" for actor in _CRITIC_OF)):
                del state[key]
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load the result of :meth:`state_dict`; a shared encoder is loaded into actor and critic.

        :param state_dict: weights by name
        :param strict: see ``nn.Module``
        :param assign: see ``nn.Module``
        :return: see ``nn.Module``
        """
        if self.averaged_actor is None and self.may_average and any(name.startswith(AVERAGE) for name in state_dict):
            self.keep_average()  # policy.save() has saved these weights, without the model
        state = self.completed_state(state_dict)
        if self.encoder_is_shared:
            for actor, critic in _CRITIC_OF.items():
                for key in [key for key in state if key.startswith(f"{critic}.{_ENCODER}")]:
                    state[f"{actor}.{key.removeprefix(f'{critic}.')}"] = state[key]
        return super().load_state_dict(state, strict, assign)

    def completed_state(self, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Make saved weights fit this policy: add the averaged actor if the policy has one, and remove it otherwise.

        :param state_dict: weights by name
        :return: weights by name; an averaged actor that is missing gets the weights of the saved actor
        """
        return completed_state(state_dict, self.averaged_actor is not None, self.encoder_is_shared)

    def set_training_mode(self, mode: bool) -> None:
        """Put the networks into training or evaluation mode, unless they are in that mode.

        Every ``predict`` calls this method, so it must be fast.

        :param mode: True for training mode
        """
        if not self.training == self.actor.training == self.critic.training == mode:
            super().set_training_mode(mode)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> VisualActor:
        """Build an actor.

        :param features_extractor: the critic's encoder, which the actor uses but does not train; None builds a new
            encoder for the actor
        """
        kwargs = self._network_kwargs(self.actor_kwargs, features_extractor, self.actor_keys)
        return VisualActor(**kwargs, borrows_encoder=features_extractor is not None).to(self.device)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> VisualCritic:
        """Build the critics with the given encoder, or with a new one if None is given."""
        kwargs = self._network_kwargs(self.critic_kwargs, features_extractor, self.critic_keys)
        return VisualCritic(**kwargs).to(self.device)

    def _network_kwargs(
        self, kwargs: dict[str, Any], features_extractor: BaseFeaturesExtractor | None, keys: Sequence[str] | None
    ) -> dict[str, Any]:
        """Return the arguments with which this package's actor or critics are built.

        :param features_extractor: None for a new one
        :param keys: keys of the observation that the network reads; None for all
        """
        trunk_dim, skip = self.trunk_dim, self.vectors_skip_trunk
        if keys is not None:
            assert isinstance(self.observation_space, spaces.Dict)
            parts = spaces.Dict({key: self.observation_space[key] for key in keys})
            features_extractor = self.features_extractor_class(parts, **self.features_extractor_kwargs)
            if not self.pictures.keys() & set(keys):
                trunk_dim, skip = None, False
        kwargs = self._update_features_extractor(kwargs, features_extractor)
        kwargs.update(trunk_dim=trunk_dim, layer_norm=self.layer_norm, vectors_skip_trunk=skip)
        return kwargs

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(
            encoder=self.encoder,
            encoder_arch=self.encoder_arch,
            trunk_dim=self.trunk_dim,
            layer_norm=self.layer_norm,
            vectors_skip_trunk=self.vectors_skip_trunk,
            actor_keys=self.actor_keys,
            critic_keys=self.critic_keys,
        )
        return data


def _check_keys(
    name: str,
    keys: Sequence[str] | None,
    space: spaces.Space[Any],
    encoder: Encoder,
    share_features_extractor: bool,
) -> None:
    """Refuse keys of a Dict observation that a network cannot read."""
    if keys is None:
        return
    if not isinstance(space, spaces.Dict):
        raise ValueError(f"{name}={keys!r} needs a Dict observation space, got {space}: drop {name}")
    if isinstance(keys, str) or not keys or not set(keys) <= space.spaces.keys():
        raise ValueError(f"{name}={keys!r}: expected a list of one or more of {list(space.spaces)}")
    if encoder == "shared":
        raise ValueError(
            f"{name}={keys!r} with encoder='shared': a shared encoder reads all observations. Drop {name}, or set "
            "encoder='separate' in policy_kwargs"
        )
    if share_features_extractor:
        raise ValueError(
            f"{name}={keys!r} with share_features_extractor=True: networks that read different observations cannot "
            f"share an encoder. Drop {name} or share_features_extractor"
        )


def _reading_scaled_pictures(space: spaces.Space[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Choose a features extractor for pictures that the environment has already scaled (``normalize_images=False``).

    Stable-Baselines3 transposes pictures to channels first only if they are uint8. A scaled picture may still have its
    channels last, and the features extractor then has to transpose it.

    :return: the arguments of the policy that have to be replaced
    """
    extractor = kwargs.get("features_extractor_class", FlattenExtractor)
    own = kwargs.get("features_extractor_kwargs") or {}
    if issubclass(extractor, Convolutions):
        return {"features_extractor_kwargs": {"normalized_image": True, **own}}
    if not any(channels_are_last(picture) for picture in pictures_in(space, is_scaled=True).values()):
        return {}
    if extractor is NatureCNN:
        return {"features_extractor_class": ChannelsLastNatureCNN}
    if extractor is CombinedExtractor and not own:
        as_ours = {"image_encoder": NatureCNN, "normalized_image": True}
        return {"features_extractor_class": CombinedEncoder, "features_extractor_kwargs": as_ours}
    return {}


class VisualCnnPolicy(VisualTD3Policy):
    """Implement :class:`VisualTD3Policy` for images. By default its encoder is Stable-Baselines3's NatureCNN."""

    def __init__(self, *args: Any, encoder_arch: EncoderArch | None = None, **kwargs: Any) -> None:
        if encoder_arch is None and "features_extractor_class" not in kwargs:
            encoder_arch = "nature"
        super().__init__(*args, encoder_arch=encoder_arch, **kwargs)


class VisualMultiInputPolicy(VisualTD3Policy):
    """Implement :class:`VisualTD3Policy` for Dict observations. Its default features extractor is CombinedExtractor."""

    def __init__(self, observation_space: spaces.Space[Any], *args: Any, **kwargs: Any) -> None:
        if kwargs.get("encoder_arch") is None and "features_extractor_class" not in kwargs:
            require_dict(observation_space)
            kwargs["features_extractor_class"] = CombinedExtractor
        super().__init__(observation_space, *args, **kwargs)


def require_dict(space: spaces.Space[Any]) -> None:
    """Refuse MultiInputPolicy for observations that are not a Dict, and name the policy that reads them.

    :param space: the observation space
    :raises InvalidSettingError: if the space is not a Dict
    """
    if isinstance(space, spaces.Dict):
        return
    fitting = "CnnPolicy" if pictures_in(space) else "MlpPolicy"
    raise InvalidSettingError(
        f"MultiInputPolicy reads Dict observations, but the observation space is {space}: use {fitting}"
    )


VisualMlpPolicy = VisualTD3Policy

OURS_FOR_STOCK: dict[type[BasePolicy], type[VisualTD3Policy]] = {
    TD3Policy: VisualMlpPolicy,
    CnnPolicy: VisualCnnPolicy,
    MultiInputPolicy: VisualMultiInputPolicy,
}
"""Our policy class for each policy class of Stable-Baselines3."""
