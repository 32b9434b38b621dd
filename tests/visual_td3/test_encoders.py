import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import NatureCNN

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.visual_td3.encoders import DrqConvolutions, NatureConvolutions, features_extractor_for
from tests.image_env import ImageEnv, VectorImageEnv

CAMERA = spaces.Box(0, 255, (4, 84, 84), np.uint8)


def test_nature_convolutions_equal_those_of_sb3s_nature_cnn():
    ours, theirs = NatureConvolutions(CAMERA), NatureCNN(CAMERA)
    ours.cnn.load_state_dict(theirs.cnn.state_dict())
    images = th.rand(3, 4, 84, 84)
    assert ours.features_dim == 3136
    th.testing.assert_close(ours(images), theirs.cnn(images))


def test_drq_convolutions_subtract_0_5_from_the_pixels():
    encoder = DrqConvolutions(CAMERA)
    assert encoder.features_dim == 32 * 35 * 35
    images = th.rand(2, 4, 84, 84)
    th.testing.assert_close(encoder(images), encoder.cnn(images - 0.5))


def test_a_name_or_a_class_finds_an_encoder():
    assert features_extractor_for("nature", None) is NatureCNN
    assert features_extractor_for("nature", 50) is NatureConvolutions
    assert features_extractor_for("drq", 50) is DrqConvolutions
    assert features_extractor_for(NatureCNN, 50) is NatureCNN


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (
            spaces.Box(0, 255, (4, 30, 30), np.uint8),
            "30 x 30 .* too small for NatureConvolutions: expected at least 36 x 36",
        ),
        (spaces.Box(-1, 1, (4,), np.float32), "channel-first"),
        (spaces.Discrete(3), "channel-first"),
    ],
)
def test_spaces_without_images_or_with_too_small_ones_are_refused(space, words):
    with pytest.raises(ValueError, match=words):
        NatureConvolutions(space)


@pytest.mark.parametrize("encoder", ["separate", "shared"])
@pytest.mark.parametrize("arch", ["nature", "drq"])
def test_training_changes_every_parameter_of_the_critics_encoder(make_model, encoder, arch):
    model = make_model(policy_kwargs={"encoder": encoder, "encoder_arch": arch, "trunk_dim": 16, "layer_norm": True})
    before = [p.detach().clone() for p in model.groups["critic_cnn"]]
    model.learn(24)
    assert all(not th.equal(p, q) for p, q in zip(before, model.groups["critic_cnn"], strict=True))


@pytest.mark.parametrize("encoder", ["separate", "shared"])
def test_camera_and_vector_learn_together(make_model, encoder):
    model = make_model("MultiInputPolicy", VectorImageEnv(), policy_kwargs={"encoder": encoder})
    assert ("actor_cnn" in model.groups) == (encoder == "separate")
    model.learn(30)
    assert model._n_updates == 10


@pytest.mark.parametrize("encoder", ["separate", "shared"])
@pytest.mark.parametrize(
    ("encoder_arch", "trunk_dim", "expected"),
    [("drq", None, DrqConvolutions), ("drq", 16, DrqConvolutions), ("nature", 16, NatureConvolutions)],
)
def test_the_camera_of_dict_observations_goes_through_the_requested_encoder(
    make_model, tmp_path, encoder, encoder_arch, trunk_dim, expected
):
    kwargs = {"encoder": encoder, "encoder_arch": encoder_arch, "trunk_dim": trunk_dim, "net_arch": [8]}
    model = make_model("MultiInputPolicy", VectorImageEnv(), policy_kwargs=kwargs, precision="fp32")
    extractor = model.critic.features_extractor
    camera = extractor.extractors["camera"]
    assert type(camera) is expected
    assert {id(p) for p in model.groups["critic_cnn"]} == {id(p) for p in camera.parameters()}
    model.learn(25)
    (scaled,) = model._sample(4).observations
    features = extractor(scaled)
    assert features.shape == (4, extractor.features_dim)
    assert th.equal(features, th.cat([camera(scaled["camera"]), scaled["state"]], dim=1))
    model.save(tmp_path / "model")
    loaded = VisualTD3.load(tmp_path / "model", device="cpu")
    observation = VectorImageEnv.observation_space.sample()
    assert (loaded.predict(observation)[0] == model.predict(observation)[0]).all()


@pytest.mark.parametrize("encoder_arch", [None, "nature"])
@pytest.mark.parametrize("encoder", ["separate", "shared"])
def test_vectors_skip_trunk_appends_the_vectors_to_the_output_of_the_trunk(make_model, tmp_path, encoder, encoder_arch):
    kwargs = {"encoder": encoder, "encoder_arch": encoder_arch, "trunk_dim": 16, "vectors_skip_trunk": True}
    model = make_model("MultiInputPolicy", VectorImageEnv(), policy_kwargs=kwargs, precision="fp32")
    model.learn(25)
    (scaled,) = model._sample(4).observations
    for network in (model.actor, model.critic):
        features = network.features_extractor(scaled)
        pictures = features[:, :-3]
        passed = network.trunk(features)
        assert passed.shape == (4, 16 + 3)
        assert th.equal(passed[:, 16:], scaled["state"])
        assert th.equal(passed[:, :16], network.trunk.trunk(pictures))
        assert features.shape[1] == pictures.shape[1] + 3
    model.save(tmp_path / "model")
    loaded = VisualTD3.load(tmp_path / "model", device="cpu")
    observation = VectorImageEnv.observation_space.sample()
    assert (loaded.predict(observation)[0] == model.predict(observation)[0]).all()


@pytest.mark.parametrize(
    ("policy", "env", "trunk_dim", "words"),
    [
        ("MultiInputPolicy", VectorImageEnv, None, "vectors_skip_trunk=True, trunk_dim=None: expected a trunk"),
        ("CnnPolicy", ImageEnv, 16, "expected a Dict observation with at least one picture and one vector"),
    ],
)
def test_vectors_skip_trunk_without_a_trunk_or_vectors_raises_an_error(make_model, policy, env, trunk_dim, words):
    with pytest.raises(ValueError, match=words):
        make_model(policy, env(), policy_kwargs={"trunk_dim": trunk_dim, "vectors_skip_trunk": True})
