"""Test that ``doctor`` lists a deliberate fault first, raises no false alarm, and does not change the training."""

import copy
import json

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import ARS, QRDQN, TQC, CrossQ
from stable_baselines3 import DDPG, DQN, SAC, TD3, HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from sb3_visual_td3 import VisualTD3, doctor
from sb3_visual_td3.preflight import environment_checks, settings_checks
from sb3_visual_td3.preflight.doctor import print_examination, quick_doctor, write_page
from sb3_visual_td3.preflight.findings import CATALOGUE, Examination
from sb3_visual_td3.preflight.probes import (
    PROBES,
    ActionGivenPicture,
    ActionReward,
    Answer,
    ConstantReward,
    DelayedReward,
    PictureReward,
    check_id,
    probe_model,
    run_probes,
)
from sb3_visual_td3.preflight.rollouts import Rollout
from sb3_visual_td3.preflight.settings_checks import check_settings
from sb3_visual_td3.training_state.random_state import random_states_kept
from tests.image_env import ImageEnv
from tests.preflight import pixel_envs as envs

STEPS = 300


def noise(sigma=0.1, n=envs.N_DIMENSIONS):
    return NormalActionNoise(np.zeros(n), np.full(n, sigma))


def model_on(env, algorithm=VisualTD3, policy="CnnPolicy", **settings):
    given = {"buffer_size": 2_000, "seed": 0, "device": "cpu", **settings}
    if algorithm in (TD3, DDPG):
        given.setdefault("action_noise", noise())
    return algorithm(policy, env, **given)


def examine(model, n_timesteps=10_000):
    return doctor(model, n_timesteps=n_timesteps, n_steps=STEPS)


def ids(examination):
    return [finding.id for finding in examination.findings]


ENVIRONMENT_FAULTS = {
    "black": (envs.Black, "dead_camera"),
    "overexposed": (envs.White, "dead_camera"),
    "frozen": (envs.Frozen, "frozen_camera"),
    "scaled to 0 and 1": (envs.Scaled, "scaled_pixels"),
    "floats in a space of bytes": (envs.Floats, "space_mismatch"),
    "stacked newest first": (envs.StackedNewestFirst, "stack_order"),
    "second action ignored": (envs.WithoutSecondAction, "action_without_effect"),
    "all actions ignored": (envs.WithoutActions, "action_without_effect"),
    "seed ignored": (envs.SeedIgnored, "seed_ignored"),
    "one start": (envs.OneStart, "identical_resets"),
    "time limit terminates": (envs.TimeLimitTerminates, "time_limit_terminates"),
    "endless": (envs.Endless, "endless_episodes"),
    "ends at once": (envs.EndsAtOnce, "short_episodes"),
    "constant reward": (lambda env: envs.Rewarded(env, lambda reward: 1.0), "constant_reward"),
    "no reward": (lambda env: envs.Rewarded(env, lambda reward: 0.0), "constant_reward"),
    "reward a million times too large": (lambda env: envs.Rewarded(env, lambda reward: 1e6 * reward), "reward_scale"),
    "reward a million times too small": (lambda env: envs.Rewarded(env, lambda reward: 1e-6 * reward), "reward_scale"),
    "reward not finite": (lambda env: envs.Rewarded(env, lambda reward: np.nan), "non_finite_reward"),
    "sparse reward": (envs.Sparse, "sparse_reward"),
    "simulator fails": (envs.FailingSimulator, "invalid_steps"),
}


@pytest.mark.parametrize("fault", ENVIRONMENT_FAULTS)
def test_a_fault_of_the_environment_is_named_first(fault):
    wrapper, expected = ENVIRONMENT_FAULTS[fault]
    examination = examine(model_on(wrapper(envs.Dot())))
    assert ids(examination)[0] == expected


def test_a_reward_scale_that_the_model_corrects_is_a_warning():
    env = envs.Rewarded(envs.Dot(), lambda reward: 1e6 * reward)
    for scale_rewards, severity in ((True, "warning"), (False, "problem")):
        found = examine(model_on(env, scale_rewards=scale_rewards)).findings
        assert [finding.severity for finding in found if finding.id == "reward_scale"] == [severity]


def test_an_observation_that_is_not_finite_is_named_first():
    # CnnPolicy refuses float images, but MlpPolicy accepts them.
    model = model_on(envs.NotFinite(envs.Dot()), TD3, "MlpPolicy")
    assert ids(examine(model))[0] == "non_finite_observation"


def checked(space, observations):
    """Return the examination of observations that each have a leading axis for one environment."""
    n_steps = len(observations) - 1
    rewards, dones = [np.ones(1)] * n_steps, [np.zeros(1, bool)] * n_steps
    rollout = Rollout(observations, observations[1:], [np.zeros((1, 1))] * n_steps, rewards, dones, [[{}]] * n_steps)
    examination = Examination()
    environment_checks.check_observations(rollout, space, examination)
    return examination


@pytest.mark.parametrize("keys", ["ab", "ba"])
@pytest.mark.parametrize(("other", "expected"), [("moving", []), ("frozen", ["frozen_camera"])])
def test_a_dead_camera_is_a_failed_check_whatever_another_camera_shows(keys, other, expected):
    dead_key, other_key = keys
    noise_of = np.random.default_rng(0).integers(0, 256, (31, 1, 1, 16, 16), np.uint8)
    if other == "frozen":
        noise_of[:] = noise_of[0]
    pictures = {dead_key: np.zeros_like(noise_of), other_key: noise_of}
    camera = spaces.Box(0, 255, (1, 16, 16), np.uint8)
    observations = [{key: pictures[key][step] for key in "ab"} for step in range(31)]
    examination = checked(spaces.Dict({"a": camera, "b": camera}), observations)
    assert ids(examination) == ["dead_camera", *expected]
    assert [check.id for check in examination.checks.values() if check.status == "fail"] == ids(examination)


def test_feature_maps_without_bounds_are_not_scaled_pixels():
    maps = np.random.default_rng(0).random((31, 1, 3, 8, 8), np.float32)
    space = spaces.Box(-np.inf, np.inf, (3, 8, 8), np.float32)
    assert ids(checked(space, list(maps))) == []
    assert ids(checked(spaces.Box(0, 255, (3, 8, 8), np.float32), list(maps))) == ["scaled_pixels"]


@pytest.mark.slow
def test_a_slow_environment_is_named(monkeypatch):
    monkeypatch.setattr("sb3_visual_td3.preflight.environment_checks.LONG_ROLLOUT_S", 1.0)
    monkeypatch.setattr("sb3_visual_td3.preflight.environment_checks.PAIRED_S", 0.5)
    examination = examine(model_on(envs.Slow(envs.Dot())), n_timesteps=1_000_000)
    assert ids(examination) == ["slow_environment"]


SETTINGS_FAULTS = {
    "learning starts after the end": ({"learning_starts": 20_000}, "warmup_beyond_run"),
    "learning starts late": ({"learning_starts": 6_000}, "warmup_beyond_run"),
    "learning rate 1": ({"learning_rate": 1.0}, "learning_rate"),
    "learning rate 0": ({"learning_rate": 0.0}, "learning_rate"),
    "learning rate 1e-8": ({"learning_rate": 1e-8}, "learning_rate"),
    "gamma 1": ({"gamma": 1.0}, "gamma"),
    "gamma 0.1": ({"gamma": 0.1}, "gamma"),
    "gamma 0.99999": ({"gamma": 0.99999}, "gamma"),
    "batch beyond buffer": ({"batch_size": 4_000}, "batch_beyond_buffer"),
    "n-step beyond the episode": ({"n_steps": 50}, "n_steps_beyond_episode"),
    "no exploration": ({"noise_schedule": 0.0}, "exploration_noise"),
    "noise beyond the actions": ({"noise_schedule": 5.0}, "exploration_noise"),
    "targets frozen": ({"tau": 0.0}, "target_frozen"),
    "targets at once": ({"tau": 1.0}, "tau"),
    "targets cut off": ({"target_q_clamp": 0.01}, "target_clamp"),
}


@pytest.mark.parametrize("fault", SETTINGS_FAULTS)
def test_a_fault_of_the_settings_is_named_first(fault):
    settings, expected = SETTINGS_FAULTS[fault]
    assert ids(examine(model_on(envs.Dot(), **settings)))[0] == expected


@pytest.mark.parametrize(
    ("algorithm", "env_id"),
    [(ARS, "Pendulum-v1"), (CrossQ, "Pendulum-v1"), (DQN, "CartPole-v1"), (QRDQN, "CartPole-v1")],
)
def test_the_default_settings_of_other_algorithms_raise_no_alarm(algorithm, env_id):
    model = algorithm("LinearPolicy" if algorithm is ARS else "MlpPolicy", env_id, device="cpu")
    assert quick_doctor(model, 1_000_000).findings == []


def test_a_high_tau_of_sac_is_a_problem_unless_its_targets_are_updated_rarely():
    for interval, found in ((1, ["tau"]), (1_000, [])):
        model = SAC("MlpPolicy", "Pendulum-v1", device="cpu", tau=1.0, target_update_interval=interval)
        assert ids(quick_doctor(model, 1_000_000)) == found


def test_pictures_that_are_normalized_are_named_first():
    env = VecNormalize(DummyVecEnv([envs.Dot]))
    assert ids(examine(model_on(env, TD3, "MlpPolicy")))[0] == "normalized_pictures"


class Pictures(gym.Env):
    """A camera and a vector, whose observations are never read."""

    action_space = spaces.Box(-1, 1, (2,))

    def __init__(self, camera):
        self.observation_space = spaces.Dict({"camera": camera, "speed": spaces.Box(-1, 1, (3,))})


class WithoutSpeed(Pictures):
    """An environment whose observations lack one of the entries."""

    def reset(self, seed=None, options=None):
        return {"camera": self.observation_space["camera"].sample()}, {}

    def step(self, action):
        return self.reset()[0], 0.0, False, True, {}


def spaces_checked(env):
    examination = Examination()
    environment_checks._check_spaces(DummyVecEnv([lambda: Monitor(env)]), examination)
    return ids(examination)


@pytest.mark.parametrize(("env", "wrapper"), [(envs.FloatDot, envs.Rounded), (envs.OldDot, envs.Translated)])
def test_an_environment_is_checked_as_its_wrappers_correct_it(env, wrapper):
    assert spaces_checked(wrapper(env())) == []
    assert spaces_checked(gym.wrappers.TimeLimit(wrapper(env()), 20)) == []


class NumPyScalars(gym.Wrapper):
    """Return the reward and the end of an episode as NumPy scalars."""

    def __init__(self, env, as_reward):
        super().__init__(env)
        self.as_reward = as_reward

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, self.as_reward(reward), np.bool_(terminated), np.bool_(truncated), info


@pytest.mark.parametrize("as_reward", [np.float32, np.asarray])
def test_numpy_scalars_are_no_fault_because_vec_envs_cast_them(as_reward):
    assert spaces_checked(NumPyScalars(envs.Dot(), as_reward)) == []


def test_an_environment_with_goals_and_a_wrapper_fits_its_spaces():
    """Stable-Baselines3's checker calls ``compute_reward``, which wrappers do not have."""
    goals = BitFlippingEnv(n_bits=4, continuous=True, max_steps=20)
    assert spaces_checked(gym.wrappers.TransformReward(goals, lambda reward: reward)) == []


def test_the_learner_is_not_checked_if_no_episode_ended_and_the_buffer_needs_one():
    env = BitFlippingEnv(n_bits=16, continuous=True, max_steps=5_000)
    model = model_on(env, SAC, "MultiInputPolicy", replay_buffer_class=HerReplayBuffer)
    examination = doctor(model, n_timesteps=10_000, n_steps=60)
    assert examination.checks["cannot_fit_batch"].status == "skipped"
    assert examination.checks["seed_ignored"].status == "pass"


def test_an_observation_without_one_of_its_entries_does_not_fit_the_space():
    examination = Examination()
    environment_checks._check_spaces(
        DummyVecEnv([lambda: WithoutSpeed(spaces.Box(0, 255, (36, 36, 3), np.uint8))]), examination
    )
    (found,) = examination.findings
    assert (found.id, found.evidence) == ("space_mismatch", "the observation lacks speed, which observation_space has")


def test_a_reset_without_options_is_no_finding():
    class ResetWithSeed(gym.Wrapper):
        def reset(self, seed=None):
            return self.env.reset(seed=seed)

    assert "space_mismatch" not in ids(examine(model_on(ResetWithSeed(envs.Dot()))))


@pytest.mark.parametrize(
    ("camera", "kwargs", "is_found"),
    [
        (spaces.Box(0, 1, (36, 36, 1), np.float32), {}, True),
        (spaces.Box(0, 1, (3, 36, 48), np.uint8), {}, True),
        (spaces.Box(0, 1, (3, 36, 36), np.float32), {"normalize_images": False}, False),
        (spaces.Box(0, 255, (36, 36, 3), np.uint8), {}, False),
        (spaces.Box(0, 1, (8, 8, 2), np.float32), {}, False),
    ],
    ids=["float", "uint8 up to 1", "scaled", "uint8", "a small grid"],
)
def test_a_camera_that_the_networks_get_as_a_vector_is_a_warning(camera, kwargs, is_found):
    model = model_on(Pictures(camera), policy="MultiInputPolicy", policy_kwargs=kwargs, buffer_size=10)
    examination = Examination()
    check_settings(model, examination, 10_000)
    found = [each for each in examination.findings if each.id == "picture_as_vector"]
    assert [each.severity for each in found] == ["warning"] * is_found


@pytest.mark.parametrize("algorithm", [VisualTD3, SAC])
def test_mlp_policy_on_images_is_the_first_finding(algorithm):
    model = model_on(ImageEnv(), algorithm, "MlpPolicy", buffer_size=10)
    examination = Examination()
    check_settings(model, examination, 10_000)
    first = examination.findings[0]
    assert (first.id, first.severity, first.remedy) == ("picture_as_vector", "problem", "Use CnnPolicy.")
    assert first.evidence.startswith("the observations are images (observation of shape (")
    for env, policy in ((ImageEnv(), "CnnPolicy"), ("Pendulum-v1", "MlpPolicy")):
        examination = Examination()
        check_settings(model_on(env, algorithm, policy, buffer_size=10), examination, 10_000)
        assert "picture_as_vector" not in ids(examination)


LITE_FAULTS = {
    "black": (envs.Black, "dead_camera"),
    "frozen": (envs.Frozen, "frozen_camera"),
    "no steering wheel": (envs.WithoutSecondAction, "action_without_effect"),
    "rewards times 1,000": (lambda env: envs.Rewarded(env, lambda reward: 1e3 * reward), "reward_scale"),
    "time limit": (envs.TimeLimitTerminates, "time_limit_terminates"),
    "one start": (envs.OneStart, "identical_resets"),
}


@pytest.mark.parametrize("fault", LITE_FAULTS)
@pytest.mark.parametrize("algorithm", [VisualTD3, pytest.param(SAC, marks=pytest.mark.slow)])
def test_a_fault_is_named_first_in_a_real_task(fault, algorithm):
    wrapper, expected = LITE_FAULTS[fault]
    model = model_on(wrapper(gym.make("LiteDriving-v0")), algorithm)
    assert ids(doctor(model, n_timesteps=10_000))[0] == expected


def test_stock_td3_without_noise_does_not_explore():
    assert ids(examine(model_on(envs.Dot(), TD3, action_noise=None)))[0] == "exploration_noise"


def test_a_replay_buffer_larger_than_the_memory_is_reported(monkeypatch):
    monkeypatch.setattr("sb3_visual_td3.preflight.settings_checks.available_bytes", lambda: 1_000_000)
    examination = examine(model_on(envs.Dot(), TD3))
    assert ids(examination) == ["buffer_memory"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_size_of_a_replay_buffer_is_that_of_its_arrays(dtype):
    env = envs.Dot()
    env.action_space = spaces.Box(-1, 1, (7,), dtype)
    model = model_on(env, TD3, action_noise=None, buffer_size=100)
    arrays = [value for value in vars(model.replay_buffer).values() if isinstance(value, np.ndarray)]
    assert len(arrays) == 6
    assert settings_checks.buffer_bytes(model) == sum(array.nbytes for array in arrays)


class Leaky(VisualTD3):
    """Pass the features of the actor's encoder to the critic in the actor update."""

    def update_actor(self, batch):
        with self._arithmetic.autocast():
            features = self.actor.encode(batch.observations)
            loss = -self.critic.score(features, self.actor.act(features))[0].mean()
        self._optimize("actor", loss, {"loss": loss})
        return loss.detach()


class WithoutPolyak(VisualTD3):
    """Never update the target networks."""

    def soft_update(self):
        pass


def frozen_encoder(model):
    for weight in model.critic.features_extractor.parameters():
        weight.requires_grad_(False)


def dead_units(model):
    with th.no_grad():
        for layer in model.critic.modules():
            if isinstance(layer, th.nn.Linear):
                layer.weight.mul_(0.0)
                layer.bias.fill_(-1.0)


def saturated(model):
    with th.no_grad():
        for weight in model.actor.mu.parameters():
            weight.mul_(1e4)


def test_passing_the_actors_features_to_the_critic_is_reported_first():
    model = model_on(envs.Dot(), Leaky, policy_kwargs={"encoder": "separate"})
    assert ids(examine(model))[0] == "leaking_features"


def test_targets_that_are_not_updated_are_named_first():
    assert ids(examine(model_on(envs.Dot(), WithoutPolyak)))[0] == "target_frozen"


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (frozen_encoder, "group_without_gradient"),
        (saturated, "saturated_at_start"),
        (dead_units, "group_without_gradient"),
    ],
)
@pytest.mark.parametrize("algorithm", [VisualTD3, TD3])
def test_a_fault_of_the_networks_is_named_first(plant, expected, algorithm):
    model = model_on(envs.Dot(), algorithm)
    plant(model)
    found = ids(examine(model))
    assert found[0] == expected
    assert ("cannot_fit_batch" in found) == (plant is dead_units)


HEALTHY = {
    "dot": lambda: model_on(envs.Dot()),
    "colour": lambda: model_on(envs.RoadInColour()),
    "dict": lambda: model_on(envs.CameraAndState(), policy="MultiInputPolicy"),
    "own stack": lambda: model_on(envs.Stacked(envs.Dot())),
    "VecFrameStack": lambda: model_on(VecFrameStack(DummyVecEnv([envs.Dot]), 4)),
    "two environments, normalized": lambda: model_on(
        VecNormalize(DummyVecEnv([envs.Dot, envs.Dot]), norm_obs=False), n_steps=3
    ),
    "stock TD3": lambda: model_on(envs.Dot(), TD3),
    "stock DDPG": lambda: model_on(envs.Dot(), DDPG),
    "stock SAC": lambda: model_on(envs.Dot(), SAC),
    "TQC": lambda: model_on(envs.Dot(), TQC),
    "Pendulum": lambda: model_on("Pendulum-v1", TD3, "MlpPolicy", action_noise=noise(n=1)),
    "Pendulum, n-step returns": lambda: model_on("Pendulum-v1", TD3, "MlpPolicy", action_noise=noise(n=1), n_steps=3),
    "Pendulum, policy_delay=5": lambda: model_on(
        "Pendulum-v1", TD3, "MlpPolicy", action_noise=noise(n=1), policy_delay=5
    ),
    "LiteDriving": lambda: model_on("LiteDriving-v0"),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_training_raises_no_alarm(name):
    examination = examine(HEALTHY[name]())
    assert ids(examination) == []
    assert len(examination.checks) > 25


def test_examining_a_model_changes_neither_its_weights_nor_its_later_training():
    weights = []
    for is_examined in (False, True):
        model = model_on(envs.Dot(), learning_starts=20, batch_size=8)
        before = copy.deepcopy(model.get_parameters())
        if is_examined:
            examine(model)
            quick_doctor(model, 100)
        for name, after in model.get_parameters()["policy"].items():
            assert th.equal(after, before["policy"][name])
        model.learn(60)
        weights.append(model.get_parameters()["policy"])
    assert all(th.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_trainings_without_a_seed_begin_differently_after_an_examination():
    starts = []
    for _ in range(2):
        model = model_on("Pendulum-v1", SAC, "MlpPolicy", seed=None)
        np.random.seed(0)  # as the probes do
        doctor(model, n_steps=20)
        starts.append(model.get_env().reset())
    assert not np.array_equal(*starts)


def test_random_states_are_restored():
    th.manual_seed(1)
    np.random.seed(1)
    with random_states_kept():
        th.rand(5)
        np.random.rand(5)
    drawn = th.rand(1), np.random.rand()
    th.manual_seed(1)
    np.random.seed(1)
    assert (th.rand(1), np.random.rand()) == drawn


def test_the_json_holds_findings_checks_and_seconds():
    examination = examine(model_on(envs.Black(envs.Dot()), gamma=1.0))
    written = json.loads(json.dumps(examination.as_json(), default=str))
    assert written["format_version"] == 1
    assert written["seconds"] > 0
    assert set(written["findings"][0]) == {"id", "severity", "title", "evidence", "remedy", "source"}
    assert {check["status"] for check in written["checks"]} <= {"pass", "fail", "skipped"}
    assert [finding["id"] for finding in written["findings"]][:2] == ["dead_camera", "gamma"]


def test_problems_are_listed_before_warnings_and_causes_before_effects():
    examination = Examination()
    for name in reversed(CATALOGUE):
        examination.found(name, "evidence")
    severities = [finding.severity for finding in examination.findings]
    assert severities == sorted(severities, key=["problem", "warning"].index)
    assert ids(examination)[:3] == ["environment_error", "non_finite_observation", "space_mismatch"]


def test_the_page_and_the_console_show_every_finding(tmp_path, capsys):
    examination = examine(model_on(envs.Black(envs.Dot())))
    print_examination(examination)
    shown = capsys.readouterr().out
    path = tmp_path / "doctor.html"
    write_page(examination, path, lambda file, text: file.write_bytes(text))
    page = path.read_text()
    assert "<script" not in page
    for finding in examination.findings:
        assert finding.title in page
        assert finding.title in shown


def test_a_model_without_environment_or_with_a_bad_argument_is_refused():
    model = model_on(envs.Dot())
    with pytest.raises(ValueError, match="n_steps=5: expected an integer >= 20"):
        doctor(model, n_steps=5)
    model.env = None
    with pytest.raises(ValueError, match="set_env"):
        doctor(model)


def test_each_probe_terminates_with_a_bounded_return_and_is_in_the_catalogue():
    for probe in PROBES:
        env = gym.wrappers.TimeLimit(probe(), 5)
        env.reset(seed=0)
        total, is_over = 0.0, False
        while not is_over:
            _, reward, terminated, truncated, _ = env.step(np.array([0.5], np.float32))
            total, is_over = total + reward, terminated or truncated
        assert not truncated
        assert -1.0 <= total <= 1.0
        assert check_id(probe) in CATALOGUE


CAMERA_AND_STATE = {"env": envs.CameraAndState, "policy": "MultiInputPolicy"}
ASYMMETRIC = {
    **CAMERA_AND_STATE,
    "policy_kwargs": {
        "encoder": "separate",
        "trunk_dim": 50,
        "vectors_skip_trunk": True,
        "actor_keys": ["camera", "place"],
        "critic_keys": ["place"],
    },
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "probes"),
    # These two probes need the actor, its encoder and the targets. They cover what the three simpler probes test.
    [
        ({"env": envs.Dot}, PROBES),
        ({"env": envs.Dot, "algorithm": DDPG}, (ActionGivenPicture, DelayedReward)),
        (ASYMMETRIC, (ActionGivenPicture,)),
    ],
)
def test_a_healthy_learner_passes_its_probes(settings, probes):
    examination = Examination()
    model = model_on(**{**settings, "env": settings["env"]()})
    run_probes(model, examination, lambda part: None, probes)
    assert ids(examination) == []
    assert len(examination.checks) == len(probes)


class WrongSign(VisualTD3):
    """The actor minimises Q."""

    def update_actor(self, batch):
        with self._arithmetic.autocast():
            features = self.critic.encode(batch.observations).detach()
            loss = self.critic.score(features, self.actor.act(features))[0].mean()
        self._optimize("actor", loss, {"loss": loss})
        return loss.detach()


class BlindCritic(VisualTD3):
    """The critic's encoder returns zeros."""

    blind = "critic"

    def _setup_model(self):
        super()._setup_model()
        encoder = getattr(self, self.blind).features_extractor
        encoder.register_forward_hook(lambda module, inputs, output: output * 0.0)


class BlindActor(BlindCritic):
    """The actor's encoder returns zeros."""

    blind = "actor"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "settings", "right", "wrong"),
    [
        (WrongSign, {}, ConstantReward, ActionReward),
        (VisualTD3, {"tau": 0.0}, ConstantReward, DelayedReward),
        (BlindCritic, {}, ConstantReward, PictureReward),
        (BlindActor, {"policy_kwargs": {"encoder": "separate"}}, PictureReward, ActionGivenPicture),
    ],
)
def test_a_broken_learner_fails_the_right_probe(algorithm, settings, right, wrong):
    examination = Examination()
    run_probes(model_on(envs.Dot(), algorithm, **settings), examination, lambda part: None, (right, wrong))
    assert ids(examination) == [check_id(wrong)]


@pytest.mark.parametrize(
    "settings",
    [
        {"env": envs.Dot},
        {"env": envs.Dot, "algorithm": DDPG},
        {**CAMERA_AND_STATE, "algorithm": SAC},
        CAMERA_AND_STATE,
        ASYMMETRIC,
    ],
)
def test_a_probe_models_action_is_in_range_and_its_q_value_is_finite(settings):
    model = model_on(**{**settings, "env": settings["env"]()})
    answer = Answer(probe_model(model, PROBES[0]))
    assert -1 <= answer.action(0) <= 1
    assert np.isfinite(answer.value(255))


def test_neither_monitor_nor_normalizer_sees_the_roll_outs(tmp_path):
    log = tmp_path / "monitor.csv"
    normalizer = VecNormalize(DummyVecEnv([lambda: Monitor(envs.Dot(), str(tmp_path))]), norm_obs=False)
    model = model_on(normalizer)
    before = log.read_text(), copy.deepcopy(normalizer.ret_rms.__dict__)
    assert ids(examine(model)) == []
    assert (log.read_text(), normalizer.ret_rms.__dict__) == before
    assert normalizer.training
    assert normalizer.norm_reward
    assert normalizer.venv.envs[0].get_episode_lengths() == []
    model.learn(50)
    assert normalizer.venv.envs[0].get_episode_lengths() == [40]


def test_a_monitor_that_forbids_early_resets_is_no_fault_of_the_environment():
    env = Monitor(envs.Dot(), allow_early_resets=False)
    assert ids(examine(model_on(DummyVecEnv([lambda: env])))) == []
    assert env.allow_early_resets is False


class Dies(gym.Wrapper):
    """Raise an exception after some steps."""

    n_steps = 0

    def step(self, action):
        self.n_steps += 1
        if self.n_steps > 40:
            raise RuntimeError("the simulator\ndied")
        return super().step(action)


@pytest.mark.parametrize("at_once", [False, True])
def test_an_exception_of_the_environment_is_a_problem_with_its_file_and_line(at_once, monkeypatch):
    if at_once:
        monkeypatch.setattr(Dies, "n_steps", 1_000)
    examination = examine(model_on(Dies(gym.make("Pendulum-v1")), TD3, "MlpPolicy", action_noise=noise(n=1)))
    (finding,) = [each for each in examination.findings if each.id == "environment_error"]
    assert ids(examination)[0] == "environment_error"
    assert finding.severity == "problem"
    assert finding.evidence.startswith("RuntimeError: the simulator died (")
    assert "test_doctor.py, line " in finding.evidence
    assert finding.evidence.endswith(", in step)")
    assert "buffer_memory" in examination.checks, "the settings are checked all the same"
