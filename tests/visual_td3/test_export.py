"""The actor without its model: traced, exported, saved, and as one module from observations to actions."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.visual_td3.export import exportable_actor
from tests.image_env import ImageEnv, VectorImageEnv

IMAGES = th.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 4, 36, 36), dtype=np.uint8))
STATES = th.linspace(-1, 1, 9).reshape(3, 3)


class WideEnv(ImageEnv):
    action_space = gym.spaces.Box(np.array([-2, 0], np.float32), np.array([2, 10], np.float32))


@pytest.mark.parametrize("encoder", ["shared", "separate"])
def test_the_actor_can_be_traced_and_its_state_dict_includes_the_encoder(make_model, tmp_path, encoder):
    model = make_model(policy_kwargs={"encoder": encoder}).learn(24)
    traced = th.jit.trace(model.policy.actor, IMAGES)
    th.jit.save(traced, tmp_path / "actor.pt")
    assert th.equal(th.jit.load(tmp_path / "actor.pt")(IMAGES), model.actor(IMAGES))
    extractor = model.actor.features_extractor.state_dict()
    state = model.actor.state_dict()
    assert all(th.equal(state[f"features_extractor.{name}"], weight) for name, weight in extractor.items())
    exported = th.export.export(model.policy.actor.eval(), (IMAGES,))
    assert th.equal(exported.module()(IMAGES), model.actor(IMAGES))


def test_a_shared_encoder_is_in_one_optimizer_and_moves_its_target_once(make_model):
    model = make_model(tau=0.25)
    encoder = list(model.critic.features_extractor.parameters())
    assert model.actor.features_extractor is model.critic.features_extractor
    assert model.actor_target.features_extractor is model.critic_target.features_extractor
    held = [p for network in (model.actor, model.critic) for g in network.optimizer.param_groups for p in g["params"]]
    assert sorted(map(id, held)) == sorted({id(p) for p in held})
    assert {id(p) for p in encoder} <= {id(p) for p in held}
    assert not {id(p) for p in encoder} & {id(p) for p in model.actor.parameters()}
    with th.no_grad():
        for parameter in encoder:
            parameter.add_(1.0)
    before = [p.clone() for p in model.critic_target.features_extractor.parameters()]
    model.soft_update()
    for old, new in zip(before, model.critic_target.features_extractor.parameters(), strict=True):
        assert th.allclose(new, old + 0.25)


def test_the_policys_state_dict_has_the_shared_encoder_once_and_can_be_loaded(make_model):
    model = make_model()
    state = model.policy.state_dict()
    assert not any(name.startswith(("actor.features_extractor", "actor_target.features_extractor")) for name in state)
    other = make_model(seed=1)
    missing = other.policy.load_state_dict(state)
    assert (missing.missing_keys, missing.unexpected_keys) == ([], [])
    assert th.equal(other.actor(IMAGES), model.actor(IMAGES))
    with pytest.raises(RuntimeError, match="Missing key"):
        other.policy.load_state_dict(dict(list(state.items())[:-1]))


def test_an_actor_is_saved_and_loaded_alone(make_model, tmp_path):
    model = make_model().learn(24)
    model.actor.save(tmp_path / "actor.pth")
    assert th.equal(type(model.actor).load(tmp_path / "actor.pth", device="cpu")(IMAGES), model.actor(IMAGES))


@pytest.mark.parametrize("preset", ["visual", "td3"])
def test_the_exported_actor_does_what_predict_does(make_model, preset):
    model = make_model(env=WideEnv(), preset=preset).learn(24)
    actor = exportable_actor(model)
    actions = actor(IMAGES)
    np.testing.assert_allclose(actions.numpy(), model.predict(IMAGES.numpy())[0], rtol=1e-5, atol=1e-5)
    assert actor.input_names == ["observation"]
    assert not actions.requires_grad
    assert not actor.training
    model.learn(24)  # the copy stays as it is, and the model trains on
    assert th.equal(actor(IMAGES), actions)


def test_a_dict_policy_is_exported_with_named_inputs_and_vecnormalize(make_model):
    venv = VecNormalize(DummyVecEnv([VectorImageEnv]), norm_obs_keys=["state"])
    model = make_model("MultiInputPolicy", venv).learn(24)
    actor = exportable_actor(model)
    assert actor.input_names == ["camera", "state"]
    seen = venv.normalize_obs({"camera": IMAGES.numpy(), "state": STATES.numpy()})
    np.testing.assert_allclose(actor(IMAGES, STATES).numpy(), model.predict(seen)[0], rtol=1e-4, atol=1e-5)
    traced = th.jit.trace(actor, (IMAGES, STATES))
    assert th.equal(traced(IMAGES[:1], STATES[:1]), actor(IMAGES[:1], STATES[:1]))
    venv.training = True


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.filterwarnings("ignore:.*ONNX:DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_the_onnx_model_computes_the_actors_actions_for_any_batch_size(make_model, tmp_path, raw):
    onnx = pytest.importorskip("onnx", reason="the extra dev has it")
    runtime = pytest.importorskip("onnxruntime", reason="the extra dev has it")
    model = make_model().learn(24)
    module = model.policy.actor.eval() if raw else exportable_actor(model)
    names, path = {"observation": {0: "batch"}, "action": {0: "batch"}}, tmp_path / "actor.onnx"
    arguments = {"input_names": ["observation"], "output_names": ["action"], "dynamic_axes": names}
    th.onnx.export(module, (IMAGES,), str(path), dynamo=False, **arguments)
    onnx.checker.check_model(onnx.load(path))
    session = runtime.InferenceSession(path)
    for images in (IMAGES, IMAGES[:1]):
        (actions,) = session.run(None, {"observation": images.numpy()})
        np.testing.assert_allclose(actions, module(images).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_stock_td3_can_be_exported_and_sac_is_refused():
    model = TD3("MlpPolicy", "Pendulum-v1", device="cpu", buffer_size=10)
    states = th.zeros(2, 3)
    np.testing.assert_allclose(exportable_actor(model)(states).numpy(), model.predict(states.numpy())[0], rtol=1e-5)
    with pytest.raises(ValueError, match="SAC has no deterministic actor"):
        exportable_actor(SAC("MlpPolicy", "Pendulum-v1", device="cpu", buffer_size=10))
    assert issubclass(VisualTD3, TD3)
