"""TD3's policy with named parameter groups, trunks, and an encoder that the critic alone may train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

from sb3_visual_td3.common.numbers import to_integer
from sb3_visual_td3.common.pictures import channels_are_last, pictures_in
from sb3_visual_td3.visual_td3.batches import Prepared
from sb3_visual_td3.visual_td3.encoders import (
    ChannelsLastNatureCNN,
    CombinedEncoder,
    Convolutions,
    EncoderArch,
    Trunk,
    features_extractor_for,
)
from sb3_visual_td3.visual_td3.param_groups import group_optimizers
from sb3_visual_td3.visual_td3.precision import encode_prepared

Encoder = Literal["separate", "shared"]
_ENCODER = "features_extractor."
_CRITIC_OF = {"actor": "critic", "actor_target": "critic_target"}
"""Whose encoder each actor looks through where it is shared."""


def features_of(network: Actor | ContinuousCritic, observations: PyTorchObs | Prepared) -> th.Tensor:
    """:return: ``(batch, features)`` of the network's features extractor"""
    if not isinstance(observations, Prepared):
        return network.extract_features(observations, network.features_extractor)
    return encode_prepared(network.features_extractor, observations.observations)


def head(layers: nn.Module, features: th.Tensor) -> th.Tensor:
    """:return: ``(batch, outputs)``; under autocast the last layer is in float32, for its output is what is compared"""
    assert isinstance(layers, nn.Sequential)
    if not th.is_autocast_enabled(features.device.type):
        outputs: th.Tensor = layers(features)
        return outputs
    hidden = layers[:-1](features)
    with th.autocast(features.device.type, enabled=False):
        outputs = layers[-1](hidden.float())
    return outputs  # noqa: RET504  typed


class VisualActor(Actor):
    """Stable-Baselines3's actor, with an optional trunk, LayerNorm heads and a borrowed encoder.

    :param trunk_dim: width of a Linear -> LayerNorm -> Tanh trunk in front of the heads; None for none
    :param layer_norm: whether a LayerNorm follows each dense layer of the heads
    :param borrows_encoder: whether the features extractor belongs to the critic. It is a submodule all the same, so
        that the actor is whole when it is traced, exported or saved; but it is in none of this module's
        ``parameters()``, and no gradient flows into it from here

    The other parameters are those of :class:`stable_baselines3.td3.policies.Actor`.
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
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            net_arch,
            features_extractor,
            trunk_dim or features_dim,
            activation_fn,
            normalize_images,
        )
        self.borrows_encoder = borrows_encoder
        self.layer_norm = layer_norm
        self.encoder_dim = features_dim
        if layer_norm:
            action_dim = get_action_dim(action_space)
            heads = create_mlp(
                self.features_dim, action_dim, net_arch, activation_fn, True, post_linear_modules=[nn.LayerNorm]
            )
            self.mu = nn.Sequential(*heads)
        self.trunk: nn.Module = nn.Identity() if trunk_dim is None else Trunk(features_dim, trunk_dim)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Name the actor's own weights, which ``parameters()`` returns: without those of an encoder that it borrows.

        With ``remove_duplicate=False`` they are named too: torch.export asks so for all that the module uses.
        """
        borrowed: set[int] = set()
        if self.borrows_encoder and remove_duplicate:
            assert isinstance(self.features_extractor, nn.Module)
            borrowed = {id(parameter) for parameter in self.features_extractor.parameters()}
        for name, parameter in super().named_parameters(prefix, recurse, remove_duplicate):
            if id(parameter) not in borrowed:
                yield name, parameter

    def encode(self, observations: PyTorchObs | Prepared) -> th.Tensor:
        """:return: ``(batch, features)`` of the encoder; without a gradient where it is the critic's"""
        with th.set_grad_enabled(th.is_grad_enabled() and not self.borrows_encoder):
            return features_of(self, observations)

    def pre_tanh(self, features: th.Tensor) -> th.Tensor:
        """:return: ``(batch, action_dim)`` activations before the squashing tanh"""
        return head(self.mu[:-1], self.trunk(features))

    def act(self, features: th.Tensor) -> th.Tensor:
        """:return: ``(batch, action_dim)`` actions in [-1, 1] for the encoder's features"""
        return th.tanh(self.pre_tanh(features))

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """:return: ``(batch, action_dim)`` actions in [-1, 1]"""
        return self.act(self.encode(obs))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(
            features_dim=self.encoder_dim,  # Stable-Baselines3 has the width in front of the heads there
            trunk_dim=self.features_dim if isinstance(self.trunk, Trunk) else None,
            layer_norm=self.layer_norm,
            borrows_encoder=self.borrows_encoder,
        )
        return data


class VisualCritic(ContinuousCritic):
    """Stable-Baselines3's critics, with an optional trunk and LayerNorm heads.

    :param trunk_dim: width of a Linear -> LayerNorm -> Tanh trunk in front of the heads; None for none
    :param layer_norm: whether a LayerNorm follows each dense layer of the heads

    The other parameters are those of :class:`stable_baselines3.common.policies.ContinuousCritic`.
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
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            net_arch,
            features_extractor,
            trunk_dim or features_dim,
            activation_fn,
            normalize_images,
            n_critics,
            share_features_extractor,
        )
        if layer_norm:
            input_dim = (trunk_dim or features_dim) + get_action_dim(action_space)
            for index in range(n_critics):
                heads = create_mlp(input_dim, 1, net_arch, activation_fn, post_linear_modules=[nn.LayerNorm])
                self.q_networks[index] = nn.Sequential(*heads)
                self.add_module(f"qf{index}", self.q_networks[index])
        self.trunk: nn.Module = nn.Identity() if trunk_dim is None else Trunk(features_dim, trunk_dim)

    def encode(self, observations: PyTorchObs | Prepared) -> th.Tensor:
        """:return: ``(batch, features)`` of the critic's own encoder"""
        # Stable-Baselines3's own sharing trains the encoder from the actor's loss alone.
        with th.set_grad_enabled(th.is_grad_enabled() and not self.share_features_extractor):
            return features_of(self, observations)

    def score(self, features: th.Tensor, actions: th.Tensor, first_only: bool = False) -> tuple[th.Tensor, ...]:
        """Judge actions.

        :param features: ``(batch, features)`` from :meth:`encode` of this critic, never of an actor
        :param actions: ``(batch, action_dim)`` in [-1, 1]
        :param first_only: whether to ask the first critic only
        :return: one ``(batch, 1)`` tensor per critic
        """
        q_input = th.cat([self.trunk(features), actions], dim=1)
        return tuple(head(q_network, q_input) for q_network in self.q_networks[: 1 if first_only else None])

    def forward(self, obs: PyTorchObs | Prepared, actions: th.Tensor) -> tuple[th.Tensor, ...]:
        """:return: one ``(batch, 1)`` tensor of Q(s, a) per critic"""
        return self.score(self.encode(obs), actions)

    def q1_forward(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """:return: ``(batch, 1)`` Q1(s, a), with no gradient into the encoder"""
        with th.no_grad():
            features = self.encode(obs)
        return self.score(features, actions, first_only=True)[0]


class VisualTD3Policy(TD3Policy):
    """TD3's policy for vectors, and the base of the two for pixels.

    :param encoder: ``"separate"``: actor and critic own one encoder each; ``"shared"``: ONE encoder, trained by
        the critic's loss only, which the actor reads detached (Yarats et al. 2019 SAC-AE, 2021 DrQ-v2)
    :param encoder_arch: ``"nature"``, ``"drq"`` or a features extractor class; None keeps ``features_extractor_class``
    :param trunk_dim: width of a Linear -> LayerNorm -> Tanh trunk of actor and critic each; None for none
    :param layer_norm: whether a LayerNorm follows each dense layer of the heads
    :raises ValueError: if a value is none of these, or ``"shared"`` is asked for where there is no encoder

    The other parameters are those of :class:`stable_baselines3.td3.policies.TD3Policy`.
    """

    actor: VisualActor
    actor_target: VisualActor
    critic: VisualCritic
    critic_target: VisualCritic

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
        **kwargs: Any,
    ) -> None:
        if encoder not in ("separate", "shared"):
            raise ValueError(f"encoder={encoder!r}: expected 'separate' or 'shared'")
        if trunk_dim is not None:
            trunk_dim = to_integer("trunk_dim", trunk_dim, 1, "an integer >= 1, or None for no trunk")
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
        super().__init__(observation_space, action_space, lr_schedule, *args, **kwargs)

    @property
    def pictures(self) -> dict[str, spaces.Box]:
        """The pictures that the policy sees, by key: what is a picture to the encoders is one to all else."""
        is_flat = issubclass(self.features_extractor_class, FlattenExtractor)  # it reads no pictures, scaled or not
        return pictures_in(self.observation_space, is_scaled=not self.normalize_images and not is_flat)

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """:return: a features extractor of the policy's class

        :raises ValueError: if the pictures are too small for it
        """
        try:
            return super().make_features_extractor()
        except RuntimeError as error:
            if "Kernel size" not in str(error):
                raise
            sizes = ", ".join(f"{key} {picture.shape}" for key, picture in self.pictures.items())
            raise ValueError(
                f"pictures too small for {self.features_extractor_class.__name__}: {sizes}. NatureCNN's convolutions "
                "need 36 x 36 pixels, encoder_arch='drq' takes 15 x 15. Have larger ones rendered, or resize them "
                "(gymnasium.wrappers.ResizeObservation); an entry that is no picture needs a space with other bounds "
                "than 0 and 255, or with one axis"
            ) from error

    @property
    def encoder_is_shared(self) -> bool:
        """Whether one encoder serves actor and critic and the critic alone trains it."""
        return self.encoder == "shared"

    def _build(self, lr_schedule: Schedule) -> None:
        if self.encoder_is_shared:
            self._build_with_one_encoder(lr_schedule)
        else:
            super()._build(lr_schedule)
        group_optimizers(self)

    def _build_with_one_encoder(self, lr_schedule: Schedule) -> None:
        if self.share_features_extractor:
            raise ValueError("encoder='shared' and share_features_extractor=True exclude each other: drop the latter")
        self.critic = self.make_critic()
        if not any(True for _ in self.critic.features_extractor.parameters()):
            raise ValueError("encoder='shared' needs an encoder: this policy's features extractor has no parameters")
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
        self.actor_target.set_training_mode(False)
        self.critic_target.set_training_mode(False)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the weights as they have always been saved: those of a shared encoder once, as the critic's."""
        state = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "")
        for key in list(state) if self.encoder_is_shared else ():
            if key.startswith(tuple(f"{prefix}{actor}.{_ENCODER}" for actor in _CRITIC_OF)):
                del state[key]
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take weights from :meth:`state_dict`; the parameters and what is returned are those of ``nn.Module``."""
        state = dict(state_dict)
        for actor, critic in _CRITIC_OF.items() if self.encoder_is_shared else ():
            for key in [key for key in state if key.startswith(f"{critic}.{_ENCODER}")]:
                state[f"{actor}.{key.removeprefix(f'{critic}.')}"] = state[key]
        return super().load_state_dict(state, strict, assign)

    def set_training_mode(self, mode: bool) -> None:
        """Put the networks into training or evaluation mode, unless they are in it.

        Every ``predict`` asks for evaluation mode. To visit all the modules for nothing takes about as long as a
        convolution on one image.
        """
        if not self.training == self.actor.training == self.critic.training == mode:
            super().set_training_mode(mode)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> VisualActor:
        """:return: an actor on an encoder of its own, or on the critic's where one is given"""
        kwargs = self._update_features_extractor(self.actor_kwargs, features_extractor)
        kwargs.update(trunk_dim=self.trunk_dim, layer_norm=self.layer_norm)
        return VisualActor(**kwargs, borrows_encoder=features_extractor is not None).to(self.device)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> VisualCritic:
        """:return: the critics on an encoder of their own, or on the one given"""
        kwargs = self._update_features_extractor(self.critic_kwargs, features_extractor)
        return VisualCritic(**kwargs, trunk_dim=self.trunk_dim, layer_norm=self.layer_norm).to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(
            encoder=self.encoder,
            encoder_arch=self.encoder_arch,
            trunk_dim=self.trunk_dim,
            layer_norm=self.layer_norm,
        )
        return data


def _reading_scaled_pictures(space: spaces.Space[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Say what the features extractor needs to know of pictures that come in scaled.

    Stable-Baselines3 tells its own two extractors itself, and transposes no picture but uint8.

    :param space: of the observations
    :param kwargs: the policy's arguments
    :return: the arguments that take the place of those
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
    """:class:`VisualTD3Policy` for images: Stable-Baselines3's NatureCNN unless told otherwise."""

    def __init__(self, *args: Any, encoder_arch: EncoderArch | None = None, **kwargs: Any) -> None:
        if encoder_arch is None and "features_extractor_class" not in kwargs:
            encoder_arch = "nature"
        super().__init__(*args, encoder_arch=encoder_arch, **kwargs)


class VisualMultiInputPolicy(VisualTD3Policy):
    """:class:`VisualTD3Policy` for Dict observations: Stable-Baselines3's CombinedExtractor unless told otherwise."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("encoder_arch") is None:
            kwargs.setdefault("features_extractor_class", CombinedExtractor)
        super().__init__(*args, **kwargs)


VisualMlpPolicy = VisualTD3Policy

OURS_FOR_STOCK: dict[type[BasePolicy], type[VisualTD3Policy]] = {
    TD3Policy: VisualMlpPolicy,
    CnnPolicy: VisualCnnPolicy,
    MultiInputPolicy: VisualMultiInputPolicy,
}
"""Our policy for each of Stable-Baselines3's; with nothing else asked for, the networks are the same."""
