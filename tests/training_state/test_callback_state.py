"""Tests that callbacks of a resumed training continue like those of an uninterrupted training."""

import inspect

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import TD3
from stable_baselines3.common import callbacks as sb3
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    ConvertCallback,
    EvalCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    ProgressBarCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_visual_td3.training_state import callback_state
from sb3_visual_td3.training_state.callback_state import (
    ATTRIBUTES,
    callbacks_state,
    set_callbacks_state,
    unknown_callbacks,
)
from tests.image_env import ImageEnv
from tests.plain_data import read_back


def model_on_images(seed=0):
    return TD3("MlpPolicy", VectorEnv(), buffer_size=100, learning_starts=10_000, seed=seed, device="cpu")


class VectorEnv(ImageEnv):
    """Observations are vectors, the reward is random, and a positive reward is a success."""

    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)

    def _image(self):
        return self.np_random.uniform(-1, 1, 3).astype(np.float32)

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        reward = float(self.np_random.normal())
        return obs, reward, terminated, truncated, {**info, "is_success": np.bool_(reward > 0)}


def by_class(root):
    """Return the last callback of each class by the name of the class."""
    found = {}

    def visit(callback):
        found[type(callback).__name__] = callback
        for name, value in vars(callback).items():
            parts = value if isinstance(value, list) else [value]
            for part in parts:
                if isinstance(part, BaseCallback) and name != "parent":
                    visit(part)

    visit(root)
    return found


def knowledge(root):
    """Return every attribute of the callbacks that is a number or a list."""
    return {
        name: {
            key: repr(np.array(value).tolist())
            for key, value in vars(callback).items()
            if isinstance(value, list | int | float)
        }
        for name, callback in by_class(root).items()
        if name != "CallbackList"
    }


def test_every_class_of_stable_baselines3_is_known():
    classes = [c for _, c in inspect.getmembers(sb3, inspect.isclass) if issubclass(c, BaseCallback)]
    paths = {f"{c.__module__}.{c.__qualname__}" for c in classes if not inspect.isabstract(c)}
    assert len(paths) == 11
    assert {path for path in ATTRIBUTES if path.startswith("stable_baselines3")} == paths


def all_of_them(folder):
    """Return callbacks of Stable-Baselines3, nested as users nest them."""
    best = CallbackList([StopTrainingOnRewardThreshold(1e9), EveryNTimesteps(30, CheckpointCallback(1, str(folder)))])
    evaluation = EvalCallback(
        DummyVecEnv([VectorEnv]),
        callback_on_new_best=best,
        callback_after_eval=StopTrainingOnNoModelImprovement(3, min_evals=1),
        n_eval_episodes=2,
        eval_freq=10,
        log_path=str(folder),
        verbose=0,
        warn=False,
    )
    evaluation.eval_env.seed(7)
    evaluation.eval_env.reset()  # otherwise its generator is not seeded before the first evaluation
    return [
        StopTrainingOnMaxEpisodes(6),
        evaluation,
        EveryNTimesteps(25, EveryNTimesteps(5, ConvertCallback(lambda *_: True))),
        LogEveryNTimesteps(40),
    ]


class Seen(BaseCallback):
    """Records the state of callbacks at each step; at the steps ``moments``, new callbacks take over the state."""

    def __init__(self, make, moments=()):
        super().__init__()
        self.make, self.moments, self.seen = make, moments, []
        self.inner = CallbackList(make())

    def _init_callback(self):
        self.inner.init_callback(self.model)

    def _on_training_start(self):
        self.inner.on_training_start(self.locals, self.globals)

    def update_child_locals(self, locals_):
        self.inner.update_locals(locals_)

    def _on_step(self):
        goes_on = self.inner.on_step()
        if self.num_timesteps in self.moments:
            state = read_back(callbacks_state(self.inner, env_state))
            self.inner = CallbackList(self.make())
            self._init_callback()
            self._on_training_start()
            self.inner.update_locals(self.locals)
            assert set_callbacks_state(self.inner, state, set_env_state) == []
        self.seen.append((callbacks_state(self.inner, env_state), knowledge(self.inner)))
        return goes_on


def env_state(env):
    """Return the state of the random generator, and the seed for the next reset."""
    generator = env.envs[0].unwrapped.np_random.bit_generator
    return {"numbers": {key: str(value) for key, value in generator.state["state"].items()}, "seed": env._seeds[0]}


def set_env_state(env, state):
    generator = env.envs[0].unwrapped.np_random.bit_generator
    generator.state = {**generator.state, "state": {key: int(value) for key, value in state["numbers"].items()}}
    env._seeds[0] = state["seed"]


@pytest.mark.parametrize("moments", [{1}, {33}, {10, 47, 48, 61}])
def test_callbacks_of_stable_baselines3_continue(tmp_path, moments):
    runs, files = [], []
    for name, when in (("a", ()), ("b", moments)):
        folder = tmp_path / name
        folder.mkdir()
        seen = Seen(lambda folder=folder: all_of_them(folder), when)
        model_on_images().learn(1000, callback=seen)
        runs.append(seen.seen)
        arrays = np.load(folder / "evaluations.npz")
        files.append({key: (arrays[key].dtype, arrays[key].shape, arrays[key].tolist()) for key in arrays})
    uninterrupted, resumed = runs
    assert 60 < len(uninterrupted) < 1000, "a callback must stop the training"
    assert len(resumed) == len(uninterrupted)
    for step, (one, other) in enumerate(zip(resumed, uninterrupted, strict=True), 1):
        assert one == other, step
    final, known = resumed[-1]
    assert len(final["callbacks"]) == 13, "callbacks among the local variables of learn() must not be saved"
    assert known["EvalCallback"]["evaluations_successes"].count("[") > 3
    assert files[0] == files[1]
    assert set(files[0]) == {"timesteps", "results", "ep_lengths", "successes"}


def test_each_listed_attribute_is_saved_and_restored(tmp_path):
    one, other = CallbackList(all_of_them(tmp_path)), CallbackList(all_of_them(tmp_path))
    for callback in by_class(one).values():
        callback.n_calls, callback.num_timesteps = 11, 12
        for number, name in enumerate(ATTRIBUTES[f"stable_baselines3.common.callbacks.{type(callback).__name__}"]):
            value = getattr(callback, name)
            setattr(callback, name, [[np.float64(number)]] if isinstance(value, list) else -np.inf)
    assert set_callbacks_state(other, read_back(callbacks_state(one))) == []
    assert callbacks_state(other) == callbacks_state(one)
    restored = by_class(other)["EvalCallback"]
    assert (restored.n_calls, restored.num_timesteps, restored.evaluations_length) == (11, 12, [[4.0]])
    assert restored.best_mean_reward == restored.last_mean_reward == -np.inf


class Counting(BaseCallback):
    """Imitates a user's callback that has a state."""

    def __init__(self):
        super().__init__()
        self.total = 0.0

    def _on_step(self):
        self.total += float(self.locals["rewards"][0])
        return True

    def get_state(self):
        return {"total": self.total}

    def set_state(self, state):
        self.total = state["total"]


class Forgetful(BaseCallback):
    """Imitates a user's callback that has no state, but holds other callbacks."""

    def __init__(self, *held):
        super().__init__()
        self.by_name = {str(number): callback for number, callback in enumerate(held)}
        self.held = held
        self.again = held[0] if held else None

    def _on_step(self):
        return True


class OwnEvaluation(EvalCallback):
    """Imitates a user's subclass of EvalCallback."""


class CountingFunction:
    """Imitates a callback function that has a state."""

    def __init__(self):
        self.n = 0

    def __call__(self, locals_, globals_):
        self.n += 1
        return True

    def get_state(self):
        return {"n": self.n}

    def set_state(self, state):
        self.n = state["n"]


def test_callbacks_are_matched_by_their_class_and_number():
    def make():
        first, second, third = Counting(), Counting(), Counting()
        return CallbackList([first, Forgetful(second, third), first]), (first, second, third)

    (one, counting), (other, fresh) = make(), make()
    for number, callback in enumerate(counting, 1):
        callback.total, callback.n_calls = float(number), 10 * number
    state = callbacks_state(one)
    assert [record["class"].rpartition(".")[2] for record in state["callbacks"]] == [
        "CallbackList",
        "Counting",
        "Forgetful",
        "Counting",
        "Counting",
    ]
    assert set_callbacks_state(other, read_back(state)) == []
    assert [(callback.total, callback.n_calls) for callback in fresh] == [(1.0, 10), (2.0, 20), (3.0, 30)]


@pytest.mark.parametrize("earlier", ["zoo.continuation", "zoo.plugin"])
def test_a_callback_that_has_moved_is_found(earlier):
    from sb3_visual_td3.zoo.wrappers import BeginningCallback

    def make():
        return CallbackList([BeginningCallback(None, lambda: None)])

    state = read_back(callbacks_state(make()))
    for record in state["callbacks"]:
        record["class"] = record["class"].replace("zoo.wrappers", earlier)
    assert set_callbacks_state(make(), state) == []


def test_callbacks_that_hold_each_other_are_visited_once():
    inner = Forgetful()
    outer = Forgetful(inner)
    inner.above = outer
    assert len(callbacks_state(outer)["callbacks"]) == 2


def test_a_missing_callback_or_state_is_a_message_and_not_an_error():
    state = read_back(callbacks_state(CallbackList([Counting(), Counting(), CheckpointCallback(1, "/tmp")])))
    fresh = Counting()
    lines = set_callbacks_state(CallbackList([fresh, EveryNTimesteps(3, Counting()), ConvertCallback(None)]), state)
    assert lines == [
        "EveryNTimesteps has no state in the snapshot: it starts from the beginning",
        "ConvertCallback has no state in the snapshot: it starts from the beginning",
        "CheckpointCallback no longer exists: its state is ignored",
    ]
    lines = set_callbacks_state(fresh, state)
    assert lines == [
        "Counting number 2 no longer exists: its state is ignored",
        "CheckpointCallback no longer exists: its state is ignored",
    ]


def test_only_a_users_callback_without_a_state_is_unknown(tmp_path):
    from sb3_visual_td3 import GradientNormCallback

    root = CallbackList([*all_of_them(tmp_path), Counting(), GradientNormCallback(), ConvertCallback(print)])
    assert unknown_callbacks(root) == []
    root.callbacks += [Forgetful(Forgetful()), OwnEvaluation(DummyVecEnv([VectorEnv]))]
    assert unknown_callbacks(root) == ["Forgetful", "OwnEvaluation"]
    without_state = type("OfOurs", (Forgetful,), {"__module__": "sb3_visual_td3.callbacks.of_ours"})
    assert unknown_callbacks(without_state()) == []


def test_a_subclass_saves_the_attributes_of_its_parent():
    one, other = (OwnEvaluation(DummyVecEnv([VectorEnv])) for _ in range(2))
    one.best_mean_reward = 3.5
    set_callbacks_state(other, read_back(callbacks_state(one)))
    assert other.best_mean_reward == 3.5


def test_a_function_with_a_state_continues():
    one, other = ConvertCallback(CountingFunction()), ConvertCallback(CountingFunction())
    one.callback.n = 5
    set_callbacks_state(other, read_back(callbacks_state(one)))
    assert other.callback.n == 5


def test_without_env_state_evaluation_environments_are_not_saved():
    callback = EvalCallback(DummyVecEnv([VectorEnv]))
    assert "eval_env" not in callbacks_state(callback)["callbacks"][0]
    with_env = callbacks_state(callback, lambda env: {"n": env.num_envs})
    assert with_env["callbacks"][0]["eval_env"] == {"n": 1}
    assert set_callbacks_state(callback, read_back(with_env)) == []
    calls = []
    set_callbacks_state(callback, read_back(with_env), lambda env, state: calls.append((env, state)))
    assert calls == [(callback.eval_env, {"n": 1})]


@pytest.mark.parametrize("model_is_restored_first", [False, True])
def test_a_progress_bar_continues_at_the_resumed_step(model_is_restored_first):
    """The total of the new bar is all steps, or only the remaining steps if the model is restored first."""

    class Resume(BaseCallback):
        def _on_training_start(self):
            self.bar = self.parent_list.callbacks[-1]

        def _on_step(self):
            if self.n_calls == 1:
                state = {"callbacks": [{**record, "num_timesteps": 40}]}
                set_callbacks_state(self.bar, read_back(state))
            return True

    resume, bar = Resume(), ProgressBarCallback()
    (record,) = callbacks_state(bar)["callbacks"]
    resume.parent_list = CallbackList([resume, bar])
    model = model_on_images()
    if model_is_restored_first:
        model.num_timesteps = 40
    model.learn(60 - model.num_timesteps, callback=resume.parent_list, reset_num_timesteps=not model_is_restored_first)
    total = 60 - (40 if model_is_restored_first else 0)
    n_steps = 60 - model_is_restored_first * 40
    assert bar.pbar.total == total
    assert bar.pbar.n == (n_steps if model_is_restored_first else 40 + n_steps)
    assert bar.pbar.initial == (0 if model_is_restored_first else 40)


def test_a_progress_bar_that_has_not_started_is_left_alone():
    bar = ProgressBarCallback()
    assert set_callbacks_state(bar, read_back(callbacks_state(bar))) == []


@pytest.mark.parametrize(
    ("here", "there", "fits"),
    [(1, 2.5, True), (True, False, True), (True, 3, False), ([1], [2], True), (1, "1", False), (None, 3, True)],
)
def test_a_saved_value_must_be_of_the_same_kind_as_the_current_one(here, there, fits):
    assert callback_state._is_alike(here, there) == fits


@pytest.mark.parametrize(
    ("name", "value", "now"), [("n_rounds", 3, "missing"), ("best_mean_reward", "high", "of type float")]
)
def test_a_saved_attribute_that_does_not_fit_is_named_with_what_is_there_now(name, value, now):
    callback = EvalCallback(DummyVecEnv([VectorEnv]))
    record = {"class": "EvalCallback", "n_calls": 0, "num_timesteps": 0, "attributes": {name: value}}
    with pytest.raises(
        ValueError, match=f"has {name}={value!r} for EvalCallback, but this attribute is now {now}: use"
    ):
        callback_state._set_one(callback, record, None)
