"""Compare a training that resumes from a snapshot in memory with an uninterrupted training."""

import hashlib
import json
import pickle
import random

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_visual_td3.training_state.env_state import env_state, set_env_state
from sb3_visual_td3.training_state.model_settings import check_settings, described_arguments
from sb3_visual_td3.training_state.model_state import load_parameters, model_state, set_model_state
from sb3_visual_td3.training_state.random_state import random_state, set_random_state
from sb3_visual_td3.training_state.training import logger_state, set_logger_state


class OnDisk:
    """Imitates an array that stays on disk until it is read."""

    def __init__(self, array):
        self._bytes = array.tobytes()
        self.shape, self.dtype = array.shape, array.dtype

    def read_into(self, target):
        target[...] = np.asarray(self)

    def __array__(self, dtype=None, copy=None):
        return np.frombuffer(self._bytes, self.dtype).reshape(self.shape).copy()


def through_json(tree, large=64):
    """Return a state as it is read from a snapshot: plain data from JSON, small arrays, and large arrays on disk.

    :param large: arrays with more elements than this are replaced by ``OnDisk``
    """
    arrays = []

    def put(value):
        assert isinstance(value, np.ndarray), f"{value!r} is no plain data"
        arrays.append(value if value.size <= large else OnDisk(value))
        return {"<array>": len(arrays) - 1}

    def take(value):
        return arrays[value["<array>"]] if "<array>" in value else value

    return json.loads(json.dumps(tree, default=put), object_hook=take)


def digest(observation):
    parts = observation.values() if isinstance(observation, dict) else [observation]
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


class Trace(BaseCallback):
    """Records every step."""

    def _on_training_start(self):
        self.steps = []

    def _on_step(self):
        local = self.locals
        actions, rewards = local["buffer_actions"].tobytes(), local["rewards"].tobytes()
        self.steps.append((self.num_timesteps, actions, rewards, digest(local["new_obs"])))
        return True


class Snapshot(BaseCallback):
    """Takes one snapshot, before the first rollout that starts at step ``at`` or later."""

    def __init__(self, at, zip_path):
        super().__init__()
        self.at, self.zip_path, self.states = at, zip_path, None

    def _on_training_start(self):
        self.settings = described_arguments(self.model)

    def _on_rollout_start(self):
        if self.states is None and self.num_timesteps >= self.at:
            model = self.model
            self.states = {
                "model": model_state(model),
                "logger": logger_state(model.logger),
                "env": env_state(model.get_env()),
                "random": random_state(),
            }
            self.states = through_json({**self.states, "settings": self.settings})
            self.buffer = pickle.dumps(model.replay_buffer)
            model.save(self.zip_path)

    def _on_step(self):
        return True


class GoOn(BaseCallback):
    """Restores a snapshot at the start of training."""

    def __init__(self, snapshot):
        super().__init__()
        self.snapshot = snapshot

    def _on_training_start(self):
        model, states = self.model, self.snapshot.states
        check_settings(states["settings"], model)
        load_parameters(model, self.snapshot.zip_path)
        model.replay_buffer = pickle.loads(self.snapshot.buffer)
        self.first_observation = set_env_state(model.get_env(), states["env"])
        set_model_state(model, states["model"], self.first_observation)
        set_logger_state(model.logger, states["logger"])
        set_random_state(states["random"])

    def _on_step(self):
        return True


def parts_of(model):
    """Return a model's state as text and its parameters as tensors, without values that depend on time."""
    state = through_json({"model": model_state(model), "random": random_state(), "logger": logger_state(model.logger)})
    del state["model"]["elapsed_ns"]
    for info in state["model"]["ep_info_buffer"]:
        del info["t"]
    for name in ("time/fps", "time/time_elapsed"):
        state["logger"]["values"].pop(name, None)
    tensors = []
    for value in model.get_parameters().values():
        tensors += pickle_free(value)
    return text_of(state), tensors


def text_of(tree):
    """Return a state as text that contains every byte of its arrays."""

    def shown(value):
        value = np.asarray(value)
        return [str(value.dtype), value.shape, value.tobytes().hex()]

    return json.dumps(tree, default=shown, sort_keys=True)


def pickle_free(value):
    if isinstance(value, th.Tensor):
        return [value.detach().clone()]
    if isinstance(value, dict):
        return [tensor for each in value.values() for tensor in pickle_free(each)]
    if isinstance(value, list):
        return [tensor for each in value for tensor in pickle_free(each)]
    return [th.tensor(float(value))] if isinstance(value, int | float) else []


def assert_goes_on(make, tmp_path, at=30, until=60):
    """Check that training a new model from a snapshot equals uninterrupted training bit for bit.

    :param make: function that takes ``seed`` and returns a new model with its environment
    :param at: environment steps before the snapshot
    :param until: environment steps in total
    """
    model = make(seed=3)
    snapshot, trace = Snapshot(at, tmp_path / "model.zip"), Trace()
    model.learn(until, [trace, snapshot], log_interval=1)
    expected = parts_of(model)
    model.get_env().close()
    set_other_random_state()
    other = make(seed=4)
    second, go_on = Trace(), GoOn(snapshot)
    other.learn(until, [second, go_on], log_interval=1)
    assert go_on.first_observation is None
    n_steps = len(second.steps)
    assert 0 < n_steps < len(trace.steps)
    assert second.steps == trace.steps[-n_steps:]
    text, tensors = parts_of(other)
    assert text == expected[0]
    assert len(tensors) == len(expected[1]) > 0
    for tensor, expected_tensor in zip(tensors, expected[1], strict=True):
        assert th.equal(tensor, expected_tensor)
    other.get_env().close()
    return snapshot, trace


def set_other_random_state():
    random.seed(99)
    np.random.seed(99)
    th.manual_seed(99)
