"""An actor and critics that read different parts of the observation: ``actor_keys`` and ``critic_keys``."""

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.callbacks.gradient_norm import GradientNormCallback
from sb3_visual_td3.common import tags
from sb3_visual_td3.health.network_probe import NetworkProbe
from sb3_visual_td3.visual_td3.export import exportable_actor
from tests.image_env import VectorImageEnv

PICTURES = np.random.default_rng(0).integers(0, 256, (3, 4, 36, 36), dtype=np.uint8)
STATES = np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3)
SEPARATE = {"encoder": "separate"}
ASYMMETRIC = {"encoder": "separate", "actor_keys": ["camera"], "critic_keys": ["state"]}


def observations(state=STATES):
    return {"camera": PICTURES, "state": state}


@pytest.fixture
def model(make_model):
    return make_model("MultiInputPolicy", VectorImageEnv(), policy_kwargs=ASYMMETRIC)


def test_the_actor_does_not_read_the_state_and_the_critics_do_not_read_the_picture(model):
    model.learn(40)
    actions, _ = model.predict(observations(), deterministic=True)
    np.testing.assert_array_equal(actions, model.predict(observations(-STATES), deterministic=True)[0])
    dark, _ = model.predict({"camera": PICTURES * 0, "state": STATES}, deterministic=True)
    assert not np.array_equal(actions, dark)

    with th.no_grad():
        seen = {key: th.as_tensor(value) for key, value in observations().items()}
        q_values = model.critic(seen, th.as_tensor(actions))[0]
        assert th.equal(q_values, model.critic({**seen, "camera": 0 * seen["camera"]}, th.as_tensor(actions))[0])
        assert not th.equal(q_values, model.critic({**seen, "state": -seen["state"]}, th.as_tensor(actions))[0])


def test_a_deployed_policy_needs_the_actors_keys_only(model):
    actions, _ = model.predict(observations(), deterministic=True)
    np.testing.assert_array_equal(actions, model.predict({"camera": PICTURES}, deterministic=True)[0])
    exported = exportable_actor(model)
    assert exported.input_names == ["camera"]
    np.testing.assert_allclose(exported(th.as_tensor(PICTURES)).numpy(), actions, rtol=1e-5, atol=1e-5)


def test_the_actors_loss_trains_its_own_encoder_and_the_critics_have_none(model):
    assert not any(isinstance(module, nn.Conv2d) for module in model.critic.modules())
    assert isinstance(model.critic.trunk, nn.Identity)  # the trunk is for pictures
    before = [weight.clone() for weight in model.actor.features_extractor.parameters()]
    assert before
    model.learn(40)
    after = list(model.actor.features_extractor.parameters())
    assert not any(th.equal(old, new) for old, new in zip(before, after, strict=True))


def test_vectors_skip_trunk_only_affects_the_actor_if_the_critics_read_no_image(make_model):
    kwargs = {"encoder": "separate", "critic_keys": ["state"], "vectors_skip_trunk": True, "trunk_dim": 7}
    model = make_model("MultiInputPolicy", VectorImageEnv(), policy_kwargs=kwargs)
    assert model.actor.mu[0].in_features == 7 + STATES.shape[1]
    assert model.critic.qf0[0].in_features == STATES.shape[1] + model.action_space.shape[0]


def test_a_model_with_both_keys_is_saved_and_trains_on_as_before(model, tmp_path):
    model.learn(40)
    model.save(tmp_path / "model")
    loaded = VisualTD3.load(tmp_path / "model", env=VectorImageEnv())
    assert loaded.policy.actor_keys == ["camera"]
    assert loaded.policy.critic_keys == ["state"]
    np.testing.assert_array_equal(loaded.predict(observations())[0], model.predict(observations())[0])
    loaded.learn(24)


@pytest.mark.parametrize("preset", ["visual", "td3"])
def test_all_keys_for_both_networks_are_the_default(make_model, preset):
    everything = {"actor_keys": ["camera", "state"], "critic_keys": ["camera", "state"]}
    weights = []
    for keys in ({}, everything):
        venv = VecNormalize(DummyVecEnv([VectorImageEnv]), norm_obs=False)
        kwargs = {"encoder": "separate", **keys}
        model = make_model("MultiInputPolicy", venv, preset=preset, policy_kwargs=kwargs).learn(40)
        weights.append(model.policy.state_dict())
    assert weights[0].keys() == weights[1].keys()
    assert all(th.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_actors_encoder_is_watched_where_the_critics_have_none(model):
    model.learn(40, callback=GradientNormCallback(sample_freq=1, log_freq=4))
    replayed = {key: th.as_tensor(value) for key, value in observations().items()}
    assert tags.ENCODER_DORMANT_FRACTION in NetworkProbe(model).dormancy(replayed)


@pytest.mark.parametrize(
    ("policy_kwargs", "message"),
    [
        (
            {**SEPARATE, "actor_keys": ["lidar"]},
            r"actor_keys=\['lidar'\]: expected a list of one or more of \['camera', 'state'\]",
        ),
        ({**SEPARATE, "critic_keys": []}, r"critic_keys=\[\]: expected a list of one or more of \['camera', 'state'\]"),
        ({**SEPARATE, "critic_keys": "state"}, r"critic_keys='state': expected a list of one or more of"),
        ({"critic_keys": ["state"], "encoder": "shared"}, "set encoder='separate' in policy_kwargs"),
        ({"critic_keys": ["state"]}, "set encoder='separate' in policy_kwargs"),  # the preset shares the encoder
        (
            {**SEPARATE, "critic_keys": ["state"], "share_features_extractor": True},
            "Drop critic_keys or share_features_extractor",
        ),
        (
            {**SEPARATE, "actor_keys": ["camera"], "share_features_extractor": True},
            "Drop actor_keys or share_features_extractor",
        ),
    ],
)
def test_keys_that_do_not_fit_are_refused(make_model, policy_kwargs, message):
    with pytest.raises(ValueError, match=message):
        make_model("MultiInputPolicy", VectorImageEnv(), policy_kwargs=policy_kwargs)


def test_keys_need_a_dict_of_observations(make_model):
    with pytest.raises(ValueError, match=r"actor_keys=\['camera'\] needs a Dict observation space, got Box"):
        make_model(policy_kwargs={"encoder": "separate", "actor_keys": ["camera"]})
