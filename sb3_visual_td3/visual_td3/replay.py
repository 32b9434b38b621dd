"""Which replay buffer a model gets, where Stable-Baselines3's own choice falls short."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.preprocessing import get_obs_shape
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecFrameStack

from sb3_visual_td3.buffers.frame_replay_buffer import FrameReplayBuffer, holds_frames
from sb3_visual_td3.buffers.n_step_dict_replay_buffer import NStepDictReplayBuffer
from sb3_visual_td3.common.numbers import to_integer
from sb3_visual_td3.common.pictures import THE_ONLY_PART, parts_of, pictures_in
from sb3_visual_td3.visual_td3.presets import PresetName, Resolved
from sb3_visual_td3.visual_td3.requested import frame_stack_before


@contextmanager
def buffer_chosen(model: OffPolicyAlgorithm, preset: PresetName) -> Iterator[None]:
    """Choose the replay buffer and tell it what it must know; to set a model up within.

    :param model: the model that is being set up; it gets the buffer's class and arguments, if it was given no class
    :param preset: the preset in force
    """
    buffer_size, n_step_kwargs = model.buffer_size, {"n_steps": model.n_steps, "gamma": model.gamma}
    told: dict[str, int | float] = {}
    default = _default_class(model, preset)
    if model.replay_buffer_class is None and default in {FrameReplayBuffer, NStepDictReplayBuffer}:
        model.replay_buffer_class = default
        told = n_step_kwargs
    if model.replay_buffer_class is not None and issubclass(model.replay_buffer_class, FrameReplayBuffer):
        told = {**n_step_kwargs, "frame_stack": found_frame_stack(model) or frame_stack_before(model) or 1}
        # It is saved in any case; learn() would mark the last transition of an unfinished episode as done.
        model.optimize_memory_usage = False
        if buffer_size == 1:  # as rl-zoo loads a model to watch it, on however many environments
            model.buffer_size = model.n_envs
    model.replay_buffer_kwargs = {**told, **model.replay_buffer_kwargs}
    try:
        with warnings.catch_warnings():
            if model.replay_buffer_kwargs.get("n_steps") == model.n_steps:
                # It takes every class that is set (by us, or by an earlier save) for one that is not told of n_steps.
                warnings.filterwarnings("ignore", message=r"`n_steps=\d+` is ignored")
            yield
    finally:
        model.buffer_size = buffer_size


def _default_class(model: OffPolicyAlgorithm, preset: PresetName) -> type[ReplayBuffer]:
    """:return: the buffer of a model that was given no class"""
    if preset == "visual" and holds_frames(model.observation_space):
        return FrameReplayBuffer
    if isinstance(model.observation_space, spaces.Dict):
        return NStepDictReplayBuffer if model.n_steps > 1 else DictReplayBuffer
    return NStepReplayBuffer if model.n_steps > 1 else ReplayBuffer


def found_frame_stack(model: OffPolicyAlgorithm) -> int | None:
    """Find out how many frames an observation holds; never from the number of channels.

    :param model: a model, with an environment or without
    :return: the depth of the outermost VecFrameStack, or else what all environments' attribute ``frame_stack`` says;
        None where nothing says it, or it divides no image's channels
    """
    env, depth = model.env, None
    while depth is None and isinstance(env, VecEnvWrapper):
        depth = env.stacked_obs.n_stack if isinstance(env, VecFrameStack) else None
        env = env.venv
    if depth is None and env is not None:
        depth = _attribute(env)
    cameras = pictures_in(model.observation_space).values()
    return depth if depth is not None and any(camera.shape[0] % depth == 0 for camera in cameras) else None


def _attribute(env: VecEnv) -> int | None:
    try:
        # Asked first: a process that is asked for what it has not dies of it.
        said = set(env.get_attr("frame_stack")) if env.has_attr("frame_stack") else set()
    except (NotImplementedError, TypeError):  # a user's VecEnv without these methods, or an unhashable attribute
        return None
    try:
        return to_integer("frame_stack", said.pop(), 1) if len(said) == 1 else None
    except ValueError:  # the attribute means something else there
        return None


def check_fits(buffer: ReplayBuffer, model: OffPolicyAlgorithm) -> None:
    """Refuse a replay buffer of other observations, actions or another number of environments.

    :param buffer: loaded, or set by the user
    :param model: that is to fill it, and to learn from it
    :raises ValueError: if it does not fit; the message has both shapes
    """
    if buffer.n_envs != model.n_envs:
        raise ValueError(
            f"the replay buffer is (buffer_size={buffer.buffer_size}, n_envs={buffer.n_envs}, ...): expected "
            f"n_envs={model.n_envs}, as the model has. load_replay_buffer(..., any_n_envs=True) rearranges it"
        )
    found, expected = (_layout(space) for space in (buffer.observation_space, model.observation_space))
    if found != expected:
        raise ValueError(f"the replay buffer holds observations {_shown(found)}: expected {_shown(expected)}")
    found, expected = _layout(buffer.action_space), _layout(model.action_space)
    if found != expected:
        raise ValueError(f"the replay buffer holds actions {_shown(found)}: expected {_shown(expected)}")


def _layout(space: spaces.Space[Any]) -> dict[str, tuple[Any, str]]:
    return {key: (get_obs_shape(part), str(part.dtype)) for key, part in parts_of(space).items()}


def _shown(layout: dict[str, tuple[Any, str]]) -> str:
    parts = [
        f"{shape} {dtype}" if key == THE_ONLY_PART else f"{key}: {shape} {dtype}"
        for key, (shape, dtype) in layout.items()
    ]
    return ", ".join(parts)


def fitted(buffer: ReplayBuffer, reference: ReplayBuffer | None, model: OffPolicyAlgorithm) -> ReplayBuffer:
    """Have a loaded replay buffer do what the model's own does.

    :param buffer: loaded; its transitions are single steps, whatever it summed before
    :param reference: the model's, as it was set up; None where it has none any more
    :param model: that is to learn from it
    :return: the same buffer, with the n_steps and gamma in force
    :raises ValueError: if it does not fit, or sums no rewards and the model needs sums
    """
    check_fits(buffer, model)
    source = model.replay_buffer_kwargs if reference is None else vars(reference)
    n_steps = source.get("n_steps", 1)
    if hasattr(buffer, "n_steps"):
        vars(buffer).update(n_steps=n_steps, gamma=source.get("gamma", model.gamma))
    elif n_steps > 1:
        raise ValueError(
            f"the file holds a {type(buffer).__name__}, which sums no rewards: expected a replay buffer for "
            f"n_steps={n_steps}, such as FrameReplayBuffer or Stable-Baselines3's NStepReplayBuffer"
        )
    return buffer


def describe_buffer(model: OffPolicyAlgorithm, preset: PresetName) -> dict[str, Resolved]:
    """Say what the buffer is and where that comes from.

    :param model: a model that is set up
    :param preset: the preset in force
    :return: ``replay_buffer_class``, whose origin is a preset, ``"n_steps"`` or ``"argument"``; and for a
        FrameReplayBuffer ``replay_buffer_kwargs.frame_stack``, whose origin is ``"environment"``, ``"unknown"`` or
        ``"argument"``
    """
    buffer, default = model.replay_buffer, _default_class(model, preset)
    origin: str = "n_steps" if model.n_steps > 1 else "td3"
    if default is FrameReplayBuffer:
        origin = preset
    described = {
        "replay_buffer_class": Resolved(
            type(buffer).__name__, origin if model.replay_buffer_class is default else "argument"
        )
    }
    if isinstance(buffer, FrameReplayBuffer):
        found = found_frame_stack(model)
        origin = "environment" if found == buffer.frame_stack else "argument"
        if found is None and buffer.frame_stack == 1:
            origin = "unknown"
        described["replay_buffer_kwargs.frame_stack"] = Resolved(buffer.frame_stack, origin)
    return described
