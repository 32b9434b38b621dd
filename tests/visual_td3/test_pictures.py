"""Test that all parts of the package treat the same arrays of an observation space as pictures."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize, VecTransposeImage
from stable_baselines3.td3.policies import CnnPolicy

from sb3_visual_td3 import FrameReplayBuffer, GradientNormCallback, VisualTD3
from sb3_visual_td3.common.pictures import channels_are_last, is_picture, pictures_in
from sb3_visual_td3.visual_td3.encoders import CombinedEncoder

Box = spaces.Box
SETTINGS = {"buffer_size": 60, "learning_starts": 8, "batch_size": 8, "device": "cpu", "seed": 0}
CAMERA = Box(0, 255, (3, 36, 40), np.uint8)
CAMERA_LAST = Box(0, 255, (36, 40, 3), np.uint8)
LIDAR = Box(-1, 1, (4, 5, 3), np.float32)
MASK = Box(0, 1, (36, 40, 1), np.uint8)


class SpaceEnv(gym.Env):
    """Return random observations of a given space."""

    action_space = Box(-1, 1, (2,), np.float32)

    def __init__(self, observation_space):
        self.observation_space = observation_space

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.n_steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.n_steps += 1
        return self.observation_space.sample(), 0.0, self.n_steps % 8 == 0, False, {}


def beside(**parts):
    """Return a new Dict space with copies of ``parts``, because VecNormalize modifies its environment's space."""
    return spaces.Dict({key: Box(part.low, part.high, part.shape, part.dtype) for key, part in parts.items()})


@pytest.mark.parametrize("space", [Box(0, 255, (36, 40), np.uint8), Box(0, 1, (36, 40, 3), np.float32)])
def test_a_space_without_pictures_is_refused_by_cnn_policy_with_the_form_of_pictures(space):
    with pytest.raises(ValueError, match=r"uint8 from 0 to 255, of the shape \(height, width, channels\)"):
        VisualTD3("CnnPolicy", SpaceEnv(space), **SETTINGS)


@pytest.mark.parametrize(
    "space",
    [
        CAMERA,
        CAMERA_LAST,
        LIDAR,
        MASK,
        Box(0, 1, (3, 36, 36), np.float32),
        Box(0, 255, (3, 36, 36), np.float32),
        Box(1, 255, (3, 36, 36), np.uint8),
        Box(0, 255, (36, 36), np.uint8),
        Box(0, 255, (4, 3, 36, 36), np.uint8),
        spaces.Discrete(3),
        spaces.MultiBinary((3, 36, 36)),
    ],
)
def test_a_picture_is_what_stable_baselines3_calls_an_image(space):
    for is_scaled in (False, True):
        assert is_picture(space, is_scaled) is is_image_space(space, normalized_image=is_scaled)


def test_pictures_are_found_by_key_and_the_layout_by_the_smallest_axis():
    assert list(pictures_in(beside(cam=CAMERA, lidar=LIDAR, mask=MASK))) == ["cam"]
    assert list(pictures_in(CAMERA)) == ["observation"]
    assert not channels_are_last(CAMERA)
    assert channels_are_last(CAMERA_LAST)


@pytest.mark.parametrize("other", [LIDAR, MASK, Box(-9, 9, (2, 36, 40), np.float64), Box(0, 9, (3, 36, 40), np.uint8)])
def test_random_shift_moves_the_camera_and_no_other_part(other):
    model = VisualTD3("MultiInputPolicy", SpaceEnv(beside(cam=CAMERA_LAST, other=other)), **SETTINGS)
    model.learn(12)
    batch = model._sample(32)
    seen, replayed = batch.observations.observations, batch.replayed
    assert th.equal(seen["other"], replayed["other"].float())
    shifted = model._sample(32).replayed
    assert shifted["cam"].shape == (32, 3, 36, 40)
    unshifted = model._prepare(replayed).observations["cam"]
    assert not th.equal(seen["cam"], unshifted)


@pytest.mark.parametrize("mask", [MASK, Box(0, 1, (4, 36, 40), np.uint8)])
def test_a_frame_buffer_stores_a_mask_next_to_a_camera_unchanged(mask):
    model = VisualTD3("MultiInputPolicy", SpaceEnv(beside(cam=CAMERA, mask=mask)), **SETTINGS)
    assert isinstance(model.replay_buffer, FrameReplayBuffer)
    model.learn(12)
    assert model.replay_buffer.observations["mask"].shape == (60, 1, *mask.shape)


def test_a_mask_that_an_earlier_version_stored_as_frames_is_restored():
    space, actions = beside(cam=CAMERA, mask=Box(0, 1, (2, 4, 4), np.uint8)), Box(-1, 1, (2,), np.float32)
    earlier = FrameReplayBuffer(10, beside(cam=CAMERA, mask=Box(0, 255, (2, 4, 4), np.uint8)), actions, device="cpu")
    buffer = FrameReplayBuffer(10, space, actions, device="cpu")
    for number in range(5):
        step = {key: np.full((1, *part.shape), (number + len(key)) % 2, np.uint8) for key, part in space.items()}
        earlier.add(step, step, np.zeros((1, 2)), np.zeros(1), np.zeros(1), [{}])
    buffer.set_state(earlier.get_state())
    for key in space:
        assert np.array_equal(buffer.observations[key][:5], earlier.observations[key][:5])


def scaled(*shape, high=1.0):
    return Box(0, high, shape, np.float32)


SCALED = {
    "channels first": scaled(3, 40, 44),
    "channels last": scaled(40, 44, 3),
    "beside a vector": beside(cam=scaled(3, 40, 44), v=Box(-9, 9, (5,))),
    "beside a vector, channels last": beside(cam=scaled(40, 44, 3), v=Box(-9, 9, (5,))),
}


@pytest.mark.parametrize("space", SCALED.values(), ids=SCALED)
@pytest.mark.parametrize(
    ("preset", "policy_kwargs"),
    [
        (None, {}),
        ("visual", {}),
        (None, {"encoder_arch": "drq"}),
        ("visual", {"encoder_arch": "drq", "trunk_dim": None}),
        (None, {"encoder_arch": "nature", "trunk_dim": 16}),
        ("td3", {"features_extractor_class": NatureCNN}),
    ],
)
def test_scaled_pictures_train_in_either_layout(space, preset, policy_kwargs, tmp_path):
    is_dict = isinstance(space, spaces.Dict)
    if is_dict and "features_extractor_class" in policy_kwargs:
        policy_kwargs = {}
    kwargs = {"policy_kwargs": {"normalize_images": False, "net_arch": [16], **policy_kwargs}, "preset": preset}
    policy = "MultiInputPolicy" if is_dict else "CnnPolicy"
    model = VisualTD3(policy, SpaceEnv(space), **kwargs, **SETTINGS)
    model.learn(12)
    assert model._n_updates == 4
    assert "critic_cnn" in model.groups, "through an encoder"
    model.save(tmp_path / "model")
    loaded = VisualTD3.load(tmp_path / "model", device="cpu")
    observation = space.sample()
    np.testing.assert_array_equal(model.predict(observation, True)[0], loaded.predict(observation, True)[0])


def test_both_layouts_of_a_scaled_picture_have_the_same_features():
    for arch in ("nature", "drq"):
        for trunk_dim in (None, 16):
            features = []
            for space in (SCALED["channels first"], SCALED["channels last"]):
                kwargs = {"normalize_images": False, "encoder_arch": arch, "trunk_dim": trunk_dim}
                model = VisualTD3("CnnPolicy", SpaceEnv(space), preset="visual", policy_kwargs=kwargs, **SETTINGS)
                image = th.rand(3, 40, 44, generator=th.Generator().manual_seed(0))
                image = (image if space.shape[0] == 3 else image.permute(1, 2, 0))[None]
                with th.no_grad(), model._arithmetic.autocast():
                    features.append(model.critic.encode(model._prepare(image)).float())
                    plain = model.critic.encode(image).float()
                assert (features[-1] - plain).norm() <= 0.02 * plain.norm()
            assert (features[0] - features[1]).norm() <= 0.02 * features[0].norm()


def test_a_scaled_picture_is_shifted_in_its_own_layout():
    kwargs = {"normalize_images": False}
    model = VisualTD3("CnnPolicy", SpaceEnv(scaled(40, 44, 3)), preset="visual", policy_kwargs=kwargs, **SETTINGS)
    model.learn(10)
    batch = model._sample(4)
    assert batch.replayed.shape == (4, 40, 44, 3)
    assert batch.observations.observations.shape == (4, 3, 40, 44)
    # The three channels of a pixel must be shifted together.
    pixels = {tuple(pixel) for pixel in batch.replayed[0].reshape(-1, 3).to(th.bfloat16).float().tolist()}
    found = batch.observations.observations[0].permute(1, 2, 0).reshape(-1, 3).to(th.bfloat16).float().tolist()
    assert all(tuple(pixel) in pixels for pixel in found)


class OwnCnnPolicy(CnnPolicy):
    """A policy of the user, who extends Stable-Baselines3's."""


def test_random_shift_moves_the_scaled_pictures_of_a_users_policy():
    kwargs = {"policy_kwargs": {"normalize_images": False, "net_arch": [16]}, "random_shift": 4}
    model = VisualTD3(OwnCnnPolicy, SpaceEnv(scaled(3, 40, 44)), preset="td3", **kwargs, **SETTINGS)
    model.learn(10)
    batch = model._sample(4)
    assert batch.observations.shape == batch.replayed.shape
    assert not th.equal(batch.observations, batch.replayed)


def test_an_mlp_policy_does_not_treat_a_float_grid_as_a_picture():
    for kwargs, expected in (({"normalize_images": False}, set()), ({}, set())):
        model = VisualTD3("MlpPolicy", SpaceEnv(LIDAR), policy_kwargs=kwargs, **SETTINGS)
        assert set(model.policy.pictures) == expected


@pytest.mark.parametrize("policy_kwargs", [{}, {"encoder_arch": "drq"}, {"trunk_dim": None}])
@pytest.mark.parametrize("preset", [None, "td3"])
@pytest.mark.parametrize("policy", ["CnnPolicy", "MultiInputPolicy"])
def test_pictures_too_small_for_the_encoder_are_refused_with_their_size(policy, preset, policy_kwargs):
    small = Box(0, 255, (3, 12, 14), np.uint8)
    space = small if policy == "CnnPolicy" else beside(cam=small, v=Box(-1, 1, (5,)))
    with pytest.raises(ValueError, match="too small") as caught:
        VisualTD3(policy, SpaceEnv(space), preset=preset, policy_kwargs=policy_kwargs, **SETTINGS)
    assert "12 x 14" in str(caught.value) or "(3, 12, 14)" in str(caught.value)
    assert policy == "CnnPolicy" or "cam" in str(caught.value)


# VecNormalize modifies the Dict space in which the check looks for pictures.


@pytest.mark.parametrize(
    ("vec_env", "camera", "preset"),
    [
        (DummyVecEnv, CAMERA, None),
        (DummyVecEnv, CAMERA_LAST, None),
        (DummyVecEnv, CAMERA_LAST, "td3"),
        (SubprocVecEnv, CAMERA_LAST, None),
    ],
)
def test_a_camera_in_a_dict_that_vecnormalize_scales_is_refused(camera, vec_env, preset):
    venv = vec_env([lambda: SpaceEnv(beside(cam=camera, v=Box(-9, 9, (5,))))])
    try:
        with pytest.raises(ValueError, match=r"VecNormalize scales the pixels of cam.*norm_obs_keys"):
            VisualTD3("MultiInputPolicy", VecNormalize(venv), preset=preset, **SETTINGS)
    finally:
        venv.close()


def test_a_camera_that_is_transposed_first_and_then_scaled_is_refused():
    venv = VecTransposeImage(DummyVecEnv([lambda: SpaceEnv(beside(cam=CAMERA_LAST, v=Box(-9, 9, (5,))))]))
    with pytest.raises(ValueError, match="VecNormalize scales the pixels of cam"):
        VisualTD3("MultiInputPolicy", VecNormalize(venv, norm_obs_keys=["cam"]), **SETTINGS)


@pytest.mark.parametrize("bound", [1.0, 10.0])
def test_vecnormalize_may_scale_a_lidar_grid_even_if_its_bounds_equal_clip_obs(bound):
    lidar = Box(-bound, bound, (4, 5, 3), np.float32)
    venv = DummyVecEnv([lambda: SpaceEnv(beside(cam=CAMERA, lidar=lidar))])
    model = VisualTD3("MultiInputPolicy", VecNormalize(venv, norm_obs_keys=["lidar"]), **SETTINGS)
    model.learn(12)
    assert model._n_updates == 4
    assert "critic_cnn" in model.groups


def test_normalised_vectors_and_a_camera_transposed_outside_are_refused_with_the_fix():
    def venv():
        return DummyVecEnv([lambda: SpaceEnv(beside(cam=CAMERA_LAST, v=Box(-9, 9, (5,))))])

    with pytest.raises(ValueError, match="VecTransposeImage around VecNormalize") as caught:
        VisualTD3("MultiInputPolicy", VecNormalize(venv(), norm_obs_keys=["v"]), **SETTINGS)
    assert "norm_obs_keys=['v']" in str(caught.value)
    assert "VecFrameStack" not in str(caught.value)
    fixed = VecNormalize(VecTransposeImage(venv()), norm_obs_keys=["v"])
    model = VisualTD3("MultiInputPolicy", fixed, **SETTINGS)
    model.learn(12)
    assert isinstance(model.policy.critic.features_extractor.extractors["cam"], th.nn.Module)
    assert model.replay_buffer.observations["cam"].shape == (60, 1, 3, 36, 40)
    with pytest.raises(ValueError, match="VecTransposeImage around VecNormalize"):
        model.set_env(VecNormalize(venv(), norm_obs_keys=["v"]))


def test_a_saved_vecnormalize_that_scales_a_camera_is_refused(tmp_path):
    def venv():
        return DummyVecEnv([lambda: SpaceEnv(beside(cam=CAMERA, v=Box(-9, 9, (5,))))])

    VecNormalize(venv()).save(tmp_path / "normalize.pkl")
    with pytest.raises(ValueError, match="VecNormalize scales the pixels of cam"):
        VisualTD3("MultiInputPolicy", VecNormalize.load(tmp_path / "normalize.pkl", venv()), **SETTINGS)


def test_the_camera_is_measured_and_a_lidar_grid_is_not(monkeypatch):
    class StuckGrid(SpaceEnv):
        def reset(self, **kwargs):
            observation, info = super().reset(**kwargs)
            return {**observation, "grid": np.zeros((3, 36, 40), np.uint8)}, info

        def step(self, action):
            observation, *rest = super().step(action)
            return {**observation, "grid": np.zeros((3, 36, 40), np.uint8)}, *rest

    grid = Box(0, 9, (3, 36, 40), np.uint8)
    model = VisualTD3("MultiInputPolicy", StuckGrid(beside(cam=CAMERA, grid=grid)), **SETTINGS)
    written = {}
    callback = GradientNormCallback(sample_freq=1, log_freq=5)
    monkeypatch.setattr(
        "sb3_visual_td3.callbacks.gradient_norm.EventWriter.write", lambda self, points, step: written.update(points)
    )
    model.learn(15, callback=callback)
    assert written["agent/frame_std"] > 50
    assert written["agent/frame_change"] > 50


@pytest.mark.parametrize("space", [scaled(3, 40, 44), scaled(40, 44, 3), Box(-1, 1, (3, 40, 44), np.float32)])
def test_the_measures_of_a_scaled_picture_are_in_grey_levels(space, monkeypatch):
    kwargs = {"normalize_images": False, "net_arch": [16]}
    model = VisualTD3("CnnPolicy", SpaceEnv(space), policy_kwargs=kwargs, **SETTINGS)
    written = {}
    monkeypatch.setattr(
        "sb3_visual_td3.callbacks.gradient_norm.EventWriter.write", lambda self, points, step: written.update(points)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.learn(15, callback=GradientNormCallback(sample_freq=1, log_freq=5))
    # Uniform noise has the standard deviation 255 / sqrt(12) and the mean absolute difference 255 / 3.
    assert written["agent/frame_std"] == pytest.approx(255 / 12**0.5, rel=0.05)
    assert written["agent/frame_change"] == pytest.approx(255 / 3, rel=0.05)


def test_a_combined_encoder_reads_each_picture_in_its_own_layout():
    space = beside(first=scaled(3, 40, 44), last=scaled(40, 44, 3))
    encoder = CombinedEncoder(space, NatureCNN, normalized_image=True)
    features = encoder({key: th.rand(2, *part.shape) for key, part in space.items()})
    assert features.shape == (2, 1024)
