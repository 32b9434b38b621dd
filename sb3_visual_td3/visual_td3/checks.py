"""Check the spaces, the policy class and the networks from which a model is built.

Without these checks, a mistake would appear only later in training, or not at all.
"""

from __future__ import annotations

import inspect
import io
import json
import pathlib
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.save_util import open_path
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.td3.policies import TD3Policy
from torch import nn

from sb3_visual_td3.common.errors import InvalidSettingError
from sb3_visual_td3.common.groups import GROUPS
from sb3_visual_td3.common.pictures import is_picture, looks_like_picture, parts_of
from sb3_visual_td3.common.types import NETWORKS
from sb3_visual_td3.visual_td3.policies import OURS_FOR_STOCK, VisualActor, VisualCritic, VisualTD3Policy

# ---- spaces


def check_action_space(space: spaces.Space[Any]) -> None:
    """Refuse actions that cannot be scaled to [-1, 1] and back. Stable-Baselines3 refuses spaces other than a Box.

    :param space: the action space
    :raises InvalidSettingError: if the actions are integers, or if the range of a dimension is empty or infinite
    """
    if not isinstance(space, spaces.Box):
        return
    if not np.issubdtype(space.dtype, np.floating):
        raise InvalidSettingError(
            f"the action space is {space}: expected a floating-point dtype, because TD3's actions are real numbers. "
            "Declare the space as float32 and round the actions in the environment, or use DQN for discrete actions"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        widths = space.high - space.low
    for index in np.ndindex(space.shape):
        if np.isfinite(widths[index]) and widths[index] > 0:
            continue
        low, high = space.low[index], space.high[index]
        name = f"action[{', '.join(str(int(number)) for number in index)}]"
        if low >= high:
            raise InvalidSettingError(
                f"{name} has the bounds low={low} and high={high}, expected low < high. If this value is "
                "constant, leave it out of the action space and set it in the environment"
            )
        raise InvalidSettingError(
            f"{name} has the bounds low={low} and high={high}: their difference is not finite in {space.dtype}, so "
            "actions cannot be scaled. Give the bounds that the environment really uses, such as -1 and 1"
        )


def check_camera(space: spaces.Space[Any], normalizer: VecNormalize | None) -> None:
    """Refuse images that no encoder of this package can read.

    :param space: the observation space of the policy
    :param normalizer: the VecNormalize around the environment; None without one
    :raises InvalidSettingError: if stacked frames have a separate axis, or if VecNormalize scales the pixels
    """
    for key, part in parts_of(space).items():
        if isinstance(part, spaces.Box) and len(part.shape) == 4 and part.dtype == np.uint8:
            raise InvalidSettingError(
                f"{key} has the shape {part.shape}, with a separate axis for the stacked frames: expected the frames "
                "in the channels. Stack with VecFrameStack. Or use FrameStackObservation on grey frames without a "
                "channel axis, for example from GrayscaleObservation(keep_dim=False)"
            )
    if normalizer is not None and normalizer.norm_obs:
        scaled = _pictures_scaled_by(normalizer)
        if scaled:
            raise InvalidSettingError(
                f"VecNormalize scales the pixels of {', '.join(sorted(scaled))}, but the policy scales pixels itself. "
                "Normalise rewards only: {norm_obs: false, norm_reward: true}. Or, with a Dict observation, list only "
                "the keys of its vectors in norm_obs_keys"
            )


def _pictures_scaled_by(normalizer: VecNormalize) -> set[str]:
    """Return the keys of the pictures that VecNormalize scales.

    In a Dict space, VecNormalize replaces the uint8 space of each scaled picture by a float32 space. VecNormalize and
    the VecEnv inside it hold the same Dict object, so the space of the inner VecEnv changes as well. Therefore this
    function recognises pictures by the dtype of the observations that the environments return.
    """
    found = set()
    replaced = parts_of(normalizer.observation_space)
    for key, part in parts_of(normalizer.venv.observation_space).items():
        if normalizer.norm_obs_keys is not None and key not in normalizer.norm_obs_keys:
            continue
        if is_picture(part) or (_is_clip_box(replaced[key], normalizer.clip_obs) and _was_uint8(normalizer, key)):
            found.add(key)
    return found


def _is_clip_box(space: spaces.Space[Any], clip_obs: float) -> bool:
    """Return whether a space is the Box from ``-clip_obs`` to ``clip_obs`` that VecNormalize uses for scaled images."""
    if not isinstance(space, spaces.Box) or not is_picture(space, is_scaled=True) or space.dtype != np.float32:
        return False
    return bool(np.all(space.low == np.float32(-clip_obs)) and np.all(space.high == np.float32(clip_obs)))


def _was_uint8(normalizer: VecNormalize, key: str) -> bool:
    """Return whether the environment's observations under this key have the dtype uint8; True if that is unknown."""
    env = normalizer.unwrapped
    # DummyVecEnv allocated arrays for observations before VecNormalize changed the space that both of them hold.
    arrays = getattr(env, "buf_obs", None)
    if isinstance(arrays, dict) and key in arrays:
        return bool(arrays[key].dtype == np.uint8)
    try:  # environments in other processes have their own space objects
        space = parts_of(env.get_attr("observation_space", 0)[0]).get(key)
    except (AttributeError, NotImplementedError):
        # A user's VecEnv may not implement get_attr, or its environments may lack the attribute.
        return True
    return space is None or bool(space.dtype == np.uint8)


@contextmanager
def errors_about_images_in_short(space: spaces.Space[Any]) -> Iterator[None]:
    """Replace the error of Stable-Baselines3's NatureCNN about a space without images by a short one.

    :param space: the observation space of the policy
    :raises InvalidSettingError: if the body raises that error
    """
    try:
        yield
    except AssertionError as error:
        if "NatureCNN" not in str(error):
            raise
        raise InvalidSettingError(
            "a CNN reads images: uint8 from 0 to 255, of the shape (height, width, channels) or (channels, height, "
            f"width). The observation space is {space}: {_advice_for_a_cnn(space)}"
        ) from error


def _advice_for_a_cnn(space: spaces.Space[Any]) -> str:
    """Return what a user can do whose observation space a CNN cannot read."""
    if not isinstance(space, spaces.Box) or len(space.shape) < 2:
        return "for a vector, use MlpPolicy"
    if len(space.shape) == 2:
        return f"for a grey image, keep a channel axis, such as {(*space.shape, 1)}; otherwise use MlpPolicy"
    if len(space.shape) > 3:
        return "expected three axes"
    if np.issubdtype(space.dtype, np.floating):
        return (
            "return uint8 images, which the policy scales itself. Or, for float images with channels "
            "first, pass preset='visual' and policy_kwargs=dict(normalize_images=False)"
        )
    return "declare images as uint8 with the bounds 0 and 255"


def warn_of_float_images(space: spaces.Space[Any], preset: str) -> None:
    """Warn that the default preset is not ``"visual"``, although observations look like images.

    :param space: the observation space of the policy
    :param preset: the preset that the model uses by default
    """
    found = [key for key, part in parts_of(space).items() if looks_like_picture(part)]
    if preset == "visual" or not found:
        return
    warnings.warn(
        f"{' and '.join(found)}: the shape is that of an image, but the values are not uint8 from 0 to 255, so the "
        f"default preset is {preset!r}. For images, return uint8 from 0 to 255; or, for float images with channels "
        "first, pass preset='visual' and policy_kwargs=dict(normalize_images=False). Otherwise, pass preset='td3'",
        stacklevel=2,
    )


def check_normalizer(space: spaces.Space[Any], normalizer: VecNormalize | None) -> None:
    """Refuse a VecNormalize whose observations have a different shape than those that the policy sees.

    The replay buffer stores the observations as VecNormalize receives them.

    :param space: the observation space of the policy
    :param normalizer: the VecNormalize around the environment; None without one
    :raises InvalidSettingError: if VecNormalize scales observations, and a wrapper around it changes a shape
    """
    if normalizer is None or not normalizer.norm_obs:
        return
    given = parts_of(normalizer.venv.observation_space)
    for key, part in parts_of(space).items():
        if key not in given or given[key].shape == part.shape:
            continue
        if is_picture(part) and part.shape == (given[key].shape[2], *given[key].shape[:2]):  # type: ignore[index]
            raise InvalidSettingError(
                "Stable-Baselines3 puts VecTransposeImage around VecNormalize, so the replay buffer would hold "
                f"{key} of shape {given[key].shape}, but the policy sees {part.shape}. Use "
                "VecNormalize(VecTransposeImage(env), norm_obs_keys="
                f"{sorted(set(normalizer.norm_obs_keys or given) - {key})!r}), or let the environment return "
                "channels first"
            )
        if normalizer.norm_obs_keys is None or key in normalizer.norm_obs_keys:
            raise InvalidSettingError(
                "VecFrameStack or another wrapper around VecNormalize changes a shape, so the replay buffer would hold "
                f"{key} of shape {given[key].shape}, but the policy sees {part.shape}. Make VecNormalize the outermost "
                "wrapper, or normalise rewards only: {norm_obs: false, norm_reward: true}"
            )
        raise InvalidSettingError(
            "a wrapper around VecNormalize changes a shape, so the replay buffer would hold "
            f"{key} of shape {given[key].shape}, but the policy sees {part.shape}. Make VecNormalize the outermost "
            "wrapper, or normalise rewards only: {norm_obs: false, norm_reward: true}"
        )


# ---- policy classes: the user's may inherit from Stable-Baselines3's or from ours

_OURS = "sb3_visual_td3.visual_td3.policies"
_STOCK_VALUES: Mapping[str, tuple[Any, ...]] = {
    "preset": (None, "td3"),
    **{group.rate_argument: (None,) for group in GROUPS},
    "actor_objective": (None, "q1"),
    "pre_tanh_penalty": (None, 0, 0.0),
    "precision": (None, "fp32"),
    "policy_average": (None, 0, 0.0),
}
"""Arguments that need a policy class of this package, each with the values that turn the argument off."""


def is_stock(policy_class: type) -> bool:
    """Return whether a policy class inherits from Stable-Baselines3's policies but not from this package's.

    VisualTD3 trains a policy of a stock class bit for bit as TD3 does.

    :param policy_class: the policy class
    """
    return not issubclass(policy_class, VisualTD3Policy)


def check_arguments(policy_class: type, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that a stock policy class does not support, before the policy is built.

    :param policy_class: the class, after Stable-Baselines3's own classes have been replaced by ours
    :param arguments: the model's arguments by name
    :raises ValueError: if an argument needs one of our policy classes
    """
    if not is_stock(policy_class):
        return
    for name, stock in _STOCK_VALUES.items():
        value = arguments.get(name)
        # The types are compared too, because 0 == False and 0 == 0.0.
        if not any(value is each or (type(value) is type(each) and value == each) for each in stock):
            raise ValueError(
                f"{name}={value!r} needs a policy class of this package, but {policy_class.__name__} inherits from "
                f"{policy_class.__mro__[1].__name__}. Remove {name}, or let the class inherit from "
                f"{_OURS}.VisualTD3Policy, VisualCnnPolicy or VisualMultiInputPolicy. With one of these base classes, "
                "set learning rates by actor_lr and critic_lr, not in the class"
            )


_MODULE_OF_POLICIES = re.compile(r"(?:stable_baselines3|sb3_contrib)\.(\w+)\..+")


def check_saved_by(path: str | pathlib.Path | io.BufferedIOBase, algorithm: type[BaseAlgorithm]) -> None:
    """Refuse a model that another algorithm saved; the module of its policy class shows the algorithm.

    A model is accepted if its policy class is from neither Stable-Baselines3 nor sb3-contrib. This function ignores a
    file that is not a saved model, and ``load`` refuses it later.

    :param path: the zip file, as for ``load``
    :param algorithm: class that is to load the model
    :raises ValueError: if another algorithm saved the model
    :raises OSError: if the file cannot be read
    """
    file = open_path(path, "r", suffix="zip")
    try:
        with zipfile.ZipFile(file) as archive:
            module = json.loads(archive.read("data"))["policy_class"]["__module__"]
    except (zipfile.BadZipFile, LookupError, TypeError, ValueError):
        return
    finally:
        if file is not path:
            file.close()
    aliases = {parent.__name__: parent.__dict__.get("policy_aliases", {}) for parent in algorithm.__mro__}
    found = _MODULE_OF_POLICIES.fullmatch(str(module))
    if found is None or any(module == policy.__module__ for each in aliases.values() for policy in each.values()):
        return
    # PPO, A2C and TRPO share one module of policies.
    saved_by = "another on-policy algorithm" if found[1] == "common" else found[1].upper()
    expected = " or ".join(name for name, each in aliases.items() if each or name == algorithm.__name__)
    raise ValueError(f"{path} was saved by {saved_by}, expected {expected}: give the zip file of another model")


def check_keywords(policy_class: type[BasePolicy], keywords: Iterable[str]) -> None:
    """Refuse unknown ``policy_kwargs``; a user's policy class may accept any.

    :param policy_class: the policy class to build
    :param keywords: the keys of its ``policy_kwargs``
    :raises ValueError: if the class is one of ours and has no such parameter
    """
    if policy_class not in OURS_FOR_STOCK.values():
        return
    parameters = [*inspect.signature(TD3Policy).parameters, *inspect.signature(VisualTD3Policy).parameters]
    known = set(parameters) - {"observation_space", "action_space", "lr_schedule", "args", "kwargs"}
    unknown = sorted(set(keywords) - known)
    if unknown:
        raise ValueError(
            f"policy_kwargs: unknown {', '.join(unknown)}; expected only keys among {', '.join(sorted(known))}"
        )


def check_networks(policy: nn.Module, lr_schedule: Schedule) -> None:
    """Check that the updates can train the networks of a policy that has just been built.

    If an optimizer has another learning rate than the model, a warning is issued: the first update overwrites the
    optimizer's rate with the model's rate.

    :param policy: a policy for TD3
    :param lr_schedule: the model's ``learning_rate``
    :raises ValueError: if a network has no torch optimizer. For a VisualTD3Policy, also if a network is neither a
        VisualActor nor a VisualCritic, or if the actor would train a shared encoder
    """
    name = type(policy).__name__
    for network in NETWORKS:
        module = getattr(policy, network, None)
        optimizer = getattr(module, "optimizer", None)
        if not isinstance(module, nn.Module) or not isinstance(optimizer, th.optim.Optimizer):
            raise ValueError(
                f"{name}.{network} is {type(module).__name__} with optimizer={optimizer!r}: expected a network with a "
                "torch optimizer. Create the optimizer in _build, as TD3Policy does"
            )
        first_rate = lr_schedule(1.0)
        if isinstance(policy, VisualTD3Policy):
            _check_ours(policy, network)
        own_rates = sorted({float(group["lr"]) for group in optimizer.param_groups} - {float(first_rate)})
        if own_rates:
            warnings.warn(
                f"{name} gives the {network}'s optimizer the learning rate {', '.join(map(str, own_rates))}. As in "
                f"Stable-Baselines3, the first update replaces this rate by learning_rate={first_rate}. To keep your "
                f"rate, let {name} inherit from {_OURS}.VisualTD3Policy, and pass {network}_lr={own_rates[0]}",
                stacklevel=2,
            )


def _check_ours(policy: VisualTD3Policy, network: str) -> None:
    kind = VisualActor if network == "actor" else VisualCritic
    for name in (network, f"{network}_target"):
        module = getattr(policy, name)
        if not isinstance(module, kind):
            raise ValueError(
                f"{type(policy).__name__}.{name} is of type {type(module).__name__}: expected {_OURS}.{kind.__name__}. "
                "Let the network inherit from this class. Or, to train this network exactly as Stable-Baselines3's TD3 "
                "does, let the policy class inherit from TD3Policy"
            )
    if network == "actor" and policy.encoder_is_shared and not policy.actor.borrows_encoder:
        raise ValueError(
            f"{type(policy).__name__}.make_actor creates an actor that would train its encoder, but with "
            "encoder='shared' only the critic trains the encoder. Create the actor with VisualActor(..., "
            "borrows_encoder=(features_extractor is not None)), or use policy_kwargs={'encoder': 'separate'}"
        )


_NOT_CALLED: Mapping[type[nn.Module], tuple[str, ...]] = {
    VisualActor: ("forward", "act", "extract_features"),
    VisualCritic: ("forward", "q1_forward", "extract_features"),
}
"""Methods of our networks that a subclass must not override, because not every update calls them."""
_CALLED = {VisualActor: "encode() or pre_tanh()", VisualCritic: "encode() or score()"}
"""Methods of our networks that a subclass may override."""


def check_overrides(policy: nn.Module, only_warn: bool = False) -> None:
    """Refuse networks that override a method that the updates do not call.

    :param policy: a policy for TD3, after :func:`check_networks`
    :param only_warn: whether to issue a warning instead of an error
    :raises ValueError: if a VisualActor or VisualCritic overrides such a method
    """
    if not isinstance(policy, VisualTD3Policy):
        return
    networks = (policy.actor, policy.actor_target, policy.critic, policy.critic_target)
    for network_class in dict.fromkeys(map(type, networks)):
        kind = VisualActor if issubclass(network_class, VisualActor) else VisualCritic
        for method in _NOT_CALLED[kind]:
            if getattr(network_class, method) is getattr(kind, method):
                continue
            message = (
                f"{network_class.__name__} overrides {method}(), which the updates of VisualTD3 do not call, so "
                f"they would train another function: override {_CALLED[kind]} instead. Or, to train this network "
                "exactly as Stable-Baselines3's TD3 does, let the policy class inherit from TD3Policy"
            )
            if not only_warn:
                raise ValueError(message)
            warnings.warn(message, stacklevel=2)
