"""RayVecEnv keeps simulators of 20 steps per second busy."""

import pytest
from stable_baselines3.common.vec_env import SubprocVecEnv

pytestmark = pytest.mark.ray
N_ENVS, RATE, N_TRIES = 8, 20.0, 3


def test_eight_actors_give_nine_tenths_of_what_eight_simulators_can(ray_runs):
    ray_speed = pytest.importorskip("ray_speed")
    from sb3_visual_td3.vec_env import RayVecEnv

    envs = [kind([ray_speed.make_env] * N_ENVS) for kind in (SubprocVecEnv, RayVecEnv)]
    rates = []
    try:
        while len(rates) < N_TRIES:
            rates.append([ray_speed.measure(env, RATE, 60)["paced_steps_per_s"] for env in envs])
            stock, ours = rates[-1]
            # on a machine that is busy with other things SubprocVecEnv does not get there either
            if min(0.9 * N_ENVS * RATE, 0.95 * stock) <= ours <= N_ENVS * RATE:
                return
    finally:
        for env in envs:
            env.close()
    pytest.fail(f"SubprocVecEnv and RayVecEnv, steps/s: {rates}")
