"""The averaged policy: its weights, the methods that use it, and the training, which does not depend on it."""

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import SubprocVecEnv

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.visual_td3.averaging import averaged_copy, completed_state, update_average
from sb3_visual_td3.visual_td3.export import exportable_actor
from tests.image_env import ImageEnv

PIXELS = ImageEnv.observation_space.sample()[None]


def online_weights(model):
    """Return the weights of the learning networks and their targets by name."""
    return {
        name: weight.clone()
        for name, weight in model.policy.state_dict().items()
        if not name.startswith("averaged_actor.")
    }


def average_weights(model):
    return {name: weight.clone() for name, weight in model.policy.averaged_actor.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(th.equal(one[name], other[name]) for name in one)


def test_the_average_weighs_the_policies_as_its_formula_says():
    actor = th.nn.Linear(1, 1, bias=False)
    with th.no_grad():
        actor.weight.fill_(100.0)  # the initial weights do not count
    average, decay, values = averaged_copy(actor), 0.9, [1.0, 5.0, -2.0]
    for n_updates, value in enumerate(values, start=1):
        with th.no_grad():
            actor.weight.fill_(value)
        update_average(average, actor, decay, n_updates)
    by_hand = 0.1 * (0.81 * 1.0 + 0.9 * 5.0 - 2.0) / (1 - 0.9**3)
    assert float(average.weight) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("shares", ["the module", "its weight"])
def test_weights_that_appear_twice_are_averaged_once(shares):
    actor = th.nn.Sequential(th.nn.Linear(1, 1, bias=False), th.nn.Linear(1, 1, bias=False))
    if shares == "the module":
        actor[1] = actor[0]
    else:
        actor[1].weight = actor[0].weight
    average, decay, values = averaged_copy(actor), 0.9, [1.0, 5.0, -2.0]
    for n_updates, value in enumerate(values, start=1):
        with th.no_grad():
            actor[0].weight.fill_(value)
        update_average(average, actor, decay, n_updates)
    by_hand = 0.1 * (0.81 * 1.0 + 0.9 * 5.0 - 2.0) / (1 - 0.9**3)
    assert [float(layer.weight) for layer in average] == pytest.approx([by_hand, by_hand], rel=1e-5)
    assert average.state_dict().keys() == actor.state_dict().keys()


def test_batch_norm_statistics_are_averaged_and_its_counter_copied():
    actor = th.nn.BatchNorm1d(2)
    average = averaged_copy(actor)
    actor.running_mean.fill_(4.0)
    actor.num_batches_tracked.fill_(7)
    update_average(average, actor, 0.5, 1)
    assert average.running_mean.tolist() == [4.0, 4.0]
    assert int(average.num_batches_tracked) == 7
    assert average.num_batches_tracked.dtype == actor.num_batches_tracked.dtype


@pytest.mark.parametrize("encoder", ["shared", "separate"])
def test_training_is_the_same_with_an_average_and_without(make_model, encoder):
    settings = {"preset": "visual", "policy_kwargs": {"encoder": encoder}}
    with_average = make_model(policy_average=0.9, **settings).learn(40)
    without = make_model(policy_average=0, **settings).learn(40)
    assert without.policy.averaged_actor is None
    assert equal(online_weights(with_average), online_weights(without))
    assert not np.array_equal(with_average.predict(PIXELS)[0], without.predict(PIXELS)[0])


def test_overlapped_training_is_the_same_with_an_average_and_without(make_model):
    trained = []
    for decay in (0.9, 0.0):
        env = SubprocVecEnv([ImageEnv])
        trained.append(make_model(env=env, preset="visual", policy_average=decay, overlap=True).learn(40))
        env.close()
    assert equal(online_weights(trained[0]), online_weights(trained[1]))


def test_predict_uses_the_average_and_exploration_the_actor(make_model):
    model = make_model(preset="visual", policy_average=0.9, learning_starts=0)
    with th.no_grad():
        for weight in model.policy.averaged_actor.mu.buffers():
            weight.zero_()
    assert model.predict(PIXELS)[0].tolist() == [[0.0, 0.0]]  # tanh(0)
    model._setup_learn(1)
    explored, _ = model._sample_action(learning_starts=0)
    assert np.abs(explored).min() > 0.0
    assert model.predict(PIXELS)[0].tolist() == [[0.0, 0.0]]


def test_the_average_is_not_trained_and_has_an_encoder_of_its_own(make_model):
    model = make_model(preset="visual", policy_average=0.9)
    names = [name for name, _ in model.policy.named_parameters()]
    assert not any(name.startswith("averaged_actor.") for name in names)
    encoder = model.policy.averaged_actor.features_extractor
    assert encoder is not model.critic.features_extractor
    average, online = (next(iter(each.state_dict().values())) for each in (encoder, model.critic.features_extractor))
    assert average.data_ptr() != online.data_ptr()


def test_a_saved_model_keeps_its_average_and_continues_it(make_model, tmp_path):
    model = make_model(preset="visual", policy_average=0.9).learn(30)
    model.save(tmp_path / "model")
    loaded = VisualTD3.load(tmp_path / "model", env=model.get_env())
    assert equal(average_weights(loaded), average_weights(model))
    assert np.array_equal(loaded.predict(PIXELS)[0], model.predict(PIXELS)[0])
    assert loaded.describe()["policy_average"] == (0.9, "argument")


def test_a_model_saved_without_an_average_starts_one_from_its_actor(make_model, tmp_path):
    model = make_model(preset="visual", policy_average=0).learn(30)
    model.save(tmp_path / "model")
    loaded = VisualTD3.load(tmp_path / "model", policy_average=0.9)
    assert np.array_equal(loaded.predict(PIXELS)[0], model.predict(PIXELS)[0])


def test_an_average_can_be_dropped_when_a_model_is_loaded(make_model, tmp_path):
    model = make_model(preset="visual", policy_average=0.9).learn(30)
    model.save(tmp_path / "model")
    loaded = VisualTD3.load(tmp_path / "model", policy_average=0)
    with model.policy.without_average():
        assert np.array_equal(loaded.predict(PIXELS)[0], model.predict(PIXELS)[0])
    assert loaded.policy.averaged_actor is None


def test_a_policy_saved_on_its_own_deploys_the_average(make_model, tmp_path):
    model = make_model(preset="visual", policy_average=0.9).learn(30)
    model.policy.save(tmp_path / "policy.pth")
    alone = type(model.policy).load(tmp_path / "policy.pth")
    assert np.array_equal(alone.predict(PIXELS)[0], model.policy.predict(PIXELS)[0])


def test_the_exported_actor_is_the_average(make_model):
    model = make_model(preset="visual", policy_average=0.9).learn(30)
    exported = exportable_actor(model)(th.as_tensor(PIXELS)).numpy()
    assert np.allclose(exported, model.predict(PIXELS)[0], atol=1e-5)
    with model.policy.without_average():
        assert not np.allclose(exported, model.predict(PIXELS)[0], atol=1e-5)


def test_the_presets_average_is_on_for_pixels_and_off_for_td3(make_model):
    assert make_model(preset="visual").describe()["policy_average"] == (0.999, "visual")
    assert make_model(preset="td3").policy.averaged_actor is None


@pytest.mark.parametrize("decay", [1.0, -0.1, 1.5, float("nan"), True, "often"])
def test_a_decay_that_is_out_of_range_is_refused(make_model, decay):
    with pytest.raises(ValueError, match=r"policy_average=.*a decay >= 0"):
        make_model(policy_average=decay)


def test_a_state_with_an_average_fits_a_policy_without_one_and_the_other_way_round():
    saved = {"actor.mu": 1, "critic.features_extractor.w": 2, "critic.qf0": 3}
    completed = completed_state(saved, has_average=True, encoder_is_shared=True)
    assert completed == {**saved, "averaged_actor.mu": 1, "averaged_actor.features_extractor.w": 2}
    assert completed_state(completed, has_average=False, encoder_is_shared=True) == saved
    assert completed_state(completed, has_average=True, encoder_is_shared=True) == completed
