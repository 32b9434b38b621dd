"""Test that a non-finite loss raises an error that names the step, and leaves the weights unchanged."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import TD3
from stable_baselines3.common.vec_env import SubprocVecEnv

from sb3_visual_td3 import ExplosionAlertCallback, GradientNormCallback, VisualTD3
from sb3_visual_td3.common.types import NetworkUpdate
from sb3_visual_td3.diagnosis.criteria import judge, load_criteria
from sb3_visual_td3.diagnosis.ranking import diagnose
from sb3_visual_td3.diagnosis.verdict import Verdict, decide
from sb3_visual_td3.report.discovery import find_runs
from sb3_visual_td3.report.event_reader import read_run
from sb3_visual_td3.visual_td3.step_guard import StepGuard

SETTINGS = {"buffer_size": 200, "learning_starts": 8, "batch_size": 32, "device": "cpu", "seed": 0}
CAMERA = spaces.Box(0, 255, (3, 36, 36), np.uint8)
VECTOR = spaces.Box(-np.inf, np.inf, (4,), np.float32)


class BrokenEnv(gym.Env):
    """Return a reward or a vector that breaks the training, from step 30 on."""

    action_space = spaces.Box(-1, 1, (2,), np.float32)
    observation_space = spaces.Dict({"camera": CAMERA, "vector": VECTOR})

    def __init__(self, reward=1.0, vector=0.5):
        self.reward, self.vector, self.n_steps = reward, vector, 0

    def _observation(self):
        value = self.vector if self.n_steps >= 30 else 0.5
        return {
            "camera": self.np_random.integers(0, 256, CAMERA.shape, np.uint8),
            "vector": np.full(4, value, np.float32),
        }

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action):
        self.n_steps += 1
        reward = self.reward if self.n_steps >= 30 else 1.0
        return self._observation(), reward, self.n_steps % 7 == 0, False, {}


def model_on(env, preset="visual", **kwargs):
    kwargs = {"policy_kwargs": {"net_arch": [16]}, **SETTINGS, **kwargs}
    return VisualTD3("MultiInputPolicy", env, preset=preset, **kwargs)


def logged(folder):
    (run,) = find_runs(folder)
    return read_run(run.path, run.files).series


def first_diagnosis(folder):
    return diagnose(logged(folder))[0]


def verdict(folder):
    return decide(judge(load_criteria(), logged(folder)))


def are_finite(model):
    return all(bool(th.isfinite(weight).all()) for weight in model.policy.parameters())


BARE = {
    "max_grad_norm": {},
    "target_q_clamp": False,
    "scale_rewards": False,
    "policy_kwargs": {"net_arch": [16], "trunk_dim": None},
}
"""These arguments switch off what makes huge numbers harmless, such as LayerNorm trunks and clamped targets."""


@pytest.mark.parametrize(
    ("broken", "words", "kwargs"),
    [
        ({"reward": math.nan}, "The sampled rewards hold nan", {}),
        ({"reward": math.inf}, "The sampled rewards hold inf", {"critic_loss": "huber", "n_steps": 3}),
        ({"vector": math.nan}, "check the environment's next observations|observations.'vector'.. hold nan", {}),
        (
            {"vector": math.nan},
            "check the environment's next observations|observations.'vector'.. hold nan",
            {"precision": "bf16"},
        ),
        ({"vector": 1e30}, r"of the observations\['vector'\]", BARE),
        ({"vector": 1e38}, r"of the observations\['vector'\]|not finite", {**BARE, "gradient_steps": 3}),
        ({"reward": 1e30}, r"of the rewards 1e\+30", BARE),
    ],
)
def test_a_training_that_breaks_is_refused_with_its_step_and_its_weights_stay_sound(broken, words, kwargs, tmp_path):
    model = model_on(BrokenEnv(**broken), tensorboard_log=str(tmp_path), **kwargs)
    with pytest.raises(ValueError, match=words) as caught:
        model.learn(80)
    assert f"environment step {model.num_timesteps}:" in str(caught.value)
    assert f"at update {model._n_updates}," in str(caught.value)
    assert are_finite(model)
    diagnosis = first_diagnosis(tmp_path)
    assert (diagnosis.id, diagnosis.first_step) == ("non_finite", model.num_timesteps)
    assert verdict(tmp_path) is Verdict.NO_GO


def test_the_td3_preset_continues_as_stock_td3_does():
    trained = []
    for cls, kwargs in ((TD3, {}), (VisualTD3, {"preset": "td3"})):
        model = cls(
            "MultiInputPolicy", BrokenEnv(reward=math.nan), policy_kwargs={"net_arch": [16]}, **kwargs, **SETTINGS
        )
        trained.append(model.learn(45))
    assert not are_finite(trained[0])
    for one, two in zip(*(model.policy.parameters() for model in trained), strict=True):
        assert th.equal(one.isnan(), two.isnan())
        assert th.equal(th.nan_to_num(one), th.nan_to_num(two))


@pytest.mark.parametrize("preset", ["td3", "visual"])
@pytest.mark.parametrize("gradient_steps", [1, 4])
def test_with_the_alert_the_training_ends_without_an_error_and_with_sound_weights(preset, gradient_steps, tmp_path):
    alert = ExplosionAlertCallback(check_freq=10, verbose=0)
    found = []
    alert._announce = found.append
    model = model_on(
        BrokenEnv(vector=1e30), preset, **BARE, gradient_steps=gradient_steps, tensorboard_log=str(tmp_path)
    )
    model.learn(80, callback=alert)
    assert model.num_timesteps < 80
    assert "non_finite" in {each.rule for each in found}
    assert are_finite(model)
    assert first_diagnosis(tmp_path).id == "non_finite"
    assert verdict(tmp_path) is Verdict.NO_GO


def test_with_overlap_no_update_after_the_alert_changes_the_weights():
    alert = ExplosionAlertCallback(check_freq=10, verbose=0)
    env = SubprocVecEnv([lambda: BrokenEnv(vector=1e30)])
    try:
        model = model_on(env, overlap=True, **BARE)
        model.learn(80, callback=alert)
    finally:
        env.close()
    assert model.num_timesteps < 80
    assert are_finite(model)


def test_the_gradient_norm_callback_does_not_suppress_the_error_for_a_nan_reward(tmp_path):
    model = model_on(BrokenEnv(reward=math.nan), tensorboard_log=str(tmp_path))
    with pytest.raises(ValueError, match="The sampled rewards hold nan"):
        model.learn(120, callback=GradientNormCallback())
    diagnosis = first_diagnosis(tmp_path)
    assert (diagnosis.id, diagnosis.first_step) == ("non_finite", model.num_timesteps)


class FusedOnTheDevice(StepGuard):
    """Use the code for a GPU on a CPU, where fused optimizers skip non-finite steps in the same way."""

    def __init__(self):
        super().__init__(th.device("cuda"))


@pytest.mark.parametrize("values", [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan)])
def test_a_gpu_skips_a_non_finite_step_without_waiting(values):
    loss, gradient = values
    weight = th.nn.Parameter(th.ones(3))
    optimizer = th.optim.Adam([weight], fused=True)
    guard = FusedOnTheDevice()

    def step(loss, gradient, is_handled=False):
        weight.grad = th.full((3,), gradient)
        update = NetworkUpdate("critic", 7, {"critic_mlp": [weight]}, {"loss": th.tensor(loss)})
        guard.step(optimizer, update, 99, is_handled)

    step(1.0, 1.0)
    guard.raise_if_skipped()
    before = weight.detach().clone()
    assert not th.equal(before, th.ones(3))
    step(loss, gradient)
    step(1.0, 1.0)
    assert th.isfinite(weight).all()
    with pytest.raises(ValueError, match="at update 7, environment step 99"):
        guard.raise_if_skipped()
    guard.raise_if_skipped()
    step(loss, gradient, is_handled=True)
    guard.raise_if_skipped()
    assert th.isfinite(weight).all()
    assert not hasattr(optimizer, "found_inf")
    assert optimizer.state[weight]["step"] == 2


def test_a_non_finite_gradient_raises_at_once_for_an_optimizer_without_found_inf_support():
    weight = th.nn.Parameter(th.ones(3))
    weight.grad = th.full((3,), math.nan)
    update = NetworkUpdate("actor", 1, {"actor_mlp": [weight]}, {"loss": th.tensor(0.0)})
    with pytest.raises(ValueError, match="the actor's loss is 0 but its gradient is not finite"):
        FusedOnTheDevice().step(th.optim.RMSprop([weight]), update, 5, False)
    assert th.equal(weight, th.ones(3))


def test_each_group_is_checked_even_if_only_the_other_group_has_biases():
    matrix, bias = th.nn.Parameter(th.ones(2, 3)), th.nn.Parameter(th.ones(3))
    matrix.grad, bias.grad = th.full((2, 3), math.nan), th.zeros(3)
    groups = {"critic_cnn": [matrix], "critic_mlp": [bias]}
    update = NetworkUpdate("critic", 1, groups, {"loss": th.tensor(0.0)})
    with pytest.raises(ValueError, match="the critic's loss is 0 but its gradient is not finite"):
        StepGuard(th.device("cpu")).step(th.optim.SGD([matrix, bias], lr=1.0), update, 5, False)
    assert th.equal(matrix, th.ones(2, 3))


def test_a_large_but_finite_gradient_is_applied():
    weight = th.nn.Parameter(th.ones(3))
    weight.grad = th.full((3,), 1e30)
    update = NetworkUpdate("critic", 1, {"critic_mlp": [weight]}, {"loss": th.tensor(1.0)})
    StepGuard(th.device("cpu")).step(th.optim.SGD([weight], lr=1.0), update, 5, False)
    assert not th.equal(weight, th.ones(3))
