"""Training and evaluation that share one CARLA server."""

import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

from sb3_visual_td3 import DrivingEvalCallback, VisualTD3
from tests.envs.carla.conftest import EMULATOR

pytest.importorskip("carla", reason="carla's client is not installed")
pytestmark = pytest.mark.carla

ENV = "sb3_visual_td3:CarlaDriving-v0"


@pytest.mark.parametrize("vec_env_cls", [None, SubprocVecEnv])
def test_evaluation_shares_the_server_of_the_training(emulator, tmp_path, vec_env_cls):
    kwargs = {"port": emulator.port, "maps": ["train_0"], "timeout_s": 60.0}
    env = make_vec_env(ENV, 1, seed=0, env_kwargs=kwargs, vec_env_cls=vec_env_cls)
    env = VecNormalize(env, norm_obs=False)
    evaluation = DrivingEvalCallback(
        ENV,
        n_eval_episodes=2,
        eval_freq=40,
        log_path=tmp_path,
        eval_env_kwargs={"maps": ["held_out_0"], "idle_ending": "truncated", "timeout_s": 60.0, "port": 1},
        verbose=0,
    )
    model = VisualTD3("CnnPolicy", env, buffer_size=500, learning_starts=1_000, seed=0)
    model.learn(100, callback=evaluation)
    assert evaluation.eval_env.num_envs == 1
    assert np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == [40, 80, 100]
    # One step is invalid after the baselines, and one after each of the evaluations at 40 and 80.
    assert model.replay_buffer.size() == 97
    assert emulator.control.status()["map"] in {"train_0", "held_out_0"}
    env.close()
    assert emulator.control.status()["n_actors"] == 0


def test_evaluation_starts_its_own_server_when_the_shared_one_dies(tmp_path):
    kwargs = {"command": EMULATOR, "port": 2950, "maps": ["train_0"], "timeout_s": 5.0}
    env = make_vec_env(ENV, 1, seed=0, env_kwargs=kwargs)
    env.reset()
    other = make_vec_env(ENV, 1, seed=0, env_kwargs=kwargs)
    address = env.get_attr("server_address")[0]
    env.env_method("lend_server")
    other.env_method("share_server", *address)
    other.reset()
    assert other.get_attr("server_address") == [address]
    from sb3_visual_td3.envs.carla_emulator.process import EmulatorControl

    EmulatorControl(address[1]).fault("die")
    dones = [other.step(np.array([[0.0, 0.5]], np.float32))[2] for _ in range(3)]
    assert any(done[0] for done in dones)
    assert other.get_attr("server_address") != [address]
    assert not other.step(np.array([[0.0, 0.5]], np.float32))[2][0]
    env.reset()  # the training's own server comes back as well
    assert env.get_attr("server_address") == [address]
    env.close()
    other.close()
