"""Choose a model's replay buffer, and check a buffer that the user loads or sets.

Stable-Baselines3 has no n-step buffer for Dict observations, and stores every frame as often as it appears in a stack.
"""

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
from sb3_visual_td3.visual_td3.requested import frame_stack_before, requests_frame_stack


@contextmanager
def buffer_chosen(model: OffPolicyAlgorithm, preset: PresetName) -> Iterator[None]:
    """Choose the class and the arguments of the replay buffer that a model creates inside the ``with`` block.

    :param model: the model, whose attributes are changed
    :param preset: the preset that the model uses
    """
    buffer_size, n_step_kwargs = model.buffer_size, {"n_steps": model.n_steps, "gamma": model.gamma}
    derived: dict[str, int | float] = {}
    default = _default_class(model, preset)
    if model.replay_buffer_class is None and default in {FrameReplayBuffer, NStepDictReplayBuffer}:
        model.replay_buffer_class = default
        derived = n_step_kwargs
    if model.replay_buffer_class is not None and issubclass(model.replay_buffer_class, FrameReplayBuffer):
        derived = {**n_step_kwargs, "frame_stack": found_frame_stack(model) or frame_stack_before(model) or 1}
        # FrameReplayBuffer always saves memory. With optimize_memory_usage=True, learn() would mark the last transition
        # of an unfinished episode as done.
        model.optimize_memory_usage = False
        # rl-zoo loads a model with buffer_size=1 to watch it. A FrameReplayBuffer needs one transition per environment.
        if buffer_size == 1:
            model.buffer_size = model.n_envs
    # The user's own replay_buffer_kwargs win.
    model.replay_buffer_kwargs = {**derived, **model.replay_buffer_kwargs}
    try:
        with warnings.catch_warnings():
            if model.replay_buffer_kwargs.get("n_steps") == model.n_steps:
                # Stable-Baselines3 warns that an explicit replay buffer class ignores n_steps. This one was given
                # n_steps above.
                warnings.filterwarnings("ignore", message=r"`n_steps=\d+` is ignored")
            yield
    finally:
        model.buffer_size = buffer_size


def _default_class(model: OffPolicyAlgorithm, preset: PresetName) -> type[ReplayBuffer]:
    """Return the default class of a model's replay buffer."""
    if preset == "visual" and holds_frames(model.observation_space):
        return FrameReplayBuffer
    if isinstance(model.observation_space, spaces.Dict):
        return NStepDictReplayBuffer if model.n_steps > 1 else DictReplayBuffer
    return NStepReplayBuffer if model.n_steps > 1 else ReplayBuffer


def found_frame_stack(model: OffPolicyAlgorithm) -> int | None:
    """Find how many frames an observation holds, without guessing from the number of channels.

    :param model: a model, with or without an environment
    :return: the number of frames that the outermost VecFrameStack stacks; without a VecFrameStack, the environments'
        ``frame_stack``. None if this number is unknown, or if no image has a channel count divisible by it
    """
    env, depth = model.env, None
    while depth is None and isinstance(env, VecEnvWrapper):
        if isinstance(env, VecFrameStack):
            depth = env.stacked_obs.n_stack
        env = env.venv
    if depth is None and env is not None:
        depth = _attribute(env)
    cameras = pictures_in(model.observation_space).values()
    if depth is None or not any(camera.shape[0] % depth == 0 for camera in cameras):
        return None
    return depth


def _attribute(env: VecEnv) -> int | None:
    """Return the attribute ``frame_stack`` if it has the same value in all environments; None otherwise."""
    try:
        # A SubprocVecEnv's worker dies from an AttributeError, so has_attr is called before get_attr.
        if not env.has_attr("frame_stack"):
            return None
        depths = set(env.get_attr("frame_stack"))
    except (NotImplementedError, TypeError):
        # A VecEnv of the user may raise a NotImplementedError in these methods. A TypeError means that the attribute is
        # not hashable.
        return None
    if len(depths) != 1:
        return None
    try:
        return to_integer("frame_stack", depths.pop(), 1)
    except ValueError:  # in that environment the attribute has a different meaning
        return None


def check_fits(buffer: ReplayBuffer, model: OffPolicyAlgorithm) -> None:
    """Refuse a replay buffer whose observations, actions or number of environments differ from the model's.

    :param buffer: the buffer
    :param model: the model that will use it
    :raises ValueError: if the buffer does not fit
    """
    if buffer.n_envs != model.n_envs:
        raise ValueError(
            f"the replay buffer has n_envs={buffer.n_envs}: expected n_envs={model.n_envs} as in the model. "
            "load_replay_buffer(..., any_n_envs=True) rearranges the buffer"
        )
    found, expected = (_layout(space) for space in (buffer.observation_space, model.observation_space))
    if found != expected:
        raise ValueError(
            f"the replay buffer holds observations {_shown(found)}: expected {_shown(expected)}. Load a buffer of "
            "the same environment"
        )
    found, expected = _layout(buffer.action_space), _layout(model.action_space)
    if found != expected:
        raise ValueError(
            f"the replay buffer holds actions {_shown(found)}: expected {_shown(expected)}. Load a buffer of the "
            "same environment"
        )


def _layout(space: spaces.Space[Any]) -> dict[str, tuple[Any, str]]:
    return {key: (get_obs_shape(part), str(part.dtype)) for key, part in parts_of(space).items()}


def _shown(layout: dict[str, tuple[Any, str]]) -> str:
    parts = []
    for key, (shape, dtype) in layout.items():
        name = "" if key == THE_ONLY_PART else f"{key}: "
        parts.append(f"{name}{shape} {dtype}")
    return ", ".join(parts)


def fitted(buffer: ReplayBuffer, reference: ReplayBuffer | None, model: OffPolicyAlgorithm) -> ReplayBuffer:
    """Set n_steps and gamma of a loaded replay buffer to the model's values.

    :param buffer: the loaded buffer
    :param reference: the model's own buffer, which has the values; None takes them from the model's arguments
    :param model: the model
    :return: the buffer itself
    :raises ValueError: if the buffer does not fit, or cannot compute n-step returns that the model needs
    """
    check_fits(buffer, model)
    source = model.replay_buffer_kwargs if reference is None else vars(reference)
    n_steps = source.get("n_steps", 1)
    if hasattr(buffer, "n_steps"):
        vars(buffer).update(n_steps=n_steps, gamma=source.get("gamma", model.gamma))
    elif n_steps > 1:
        raise ValueError(
            f"the {type(buffer).__name__} in the file cannot compute n-step returns (n_steps={n_steps}): load a "
            "FrameReplayBuffer or Stable-Baselines3's NStepReplayBuffer, or use n_steps=1"
        )
    return buffer


def describe_buffer(model: OffPolicyAlgorithm, preset: PresetName) -> dict[str, Resolved]:
    """Return the class and the frame stack of a model's replay buffer, and say where each value comes from.

    :param model: a model that is set up
    :param preset: the preset that the model uses
    :return: value and origin (such as ``"argument"``) by name. The names are ``replay_buffer_class`` and, for a
        FrameReplayBuffer, ``replay_buffer_kwargs.frame_stack``
    """
    buffer, default = model.replay_buffer, _default_class(model, preset)
    origin: str = "td3"
    if model.replay_buffer_class is not default:
        origin = "argument"
    elif default is FrameReplayBuffer:
        origin = preset
    elif model.n_steps > 1:
        origin = "n_steps"
    described = {"replay_buffer_class": Resolved(type(buffer).__name__, origin)}
    if isinstance(buffer, FrameReplayBuffer):
        found = found_frame_stack(model)
        origin = "argument"
        if found == buffer.frame_stack:
            origin = "environment"
        elif found is None and buffer.frame_stack == 1:
            origin = "unknown"
        elif frame_stack_before(model) == buffer.frame_stack and not requests_frame_stack(model):
            origin = "saved model"
        described["replay_buffer_kwargs.frame_stack"] = Resolved(buffer.frame_stack, origin)
    return described
