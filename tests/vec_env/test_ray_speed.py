"""Simulators of 20 steps per second are kept busy."""

import pytest

pytestmark = pytest.mark.ray


def test_eight_actors_give_nine_tenths_of_what_eight_simulators_can():
    ray_speed = pytest.importorskip("ray_speed")
    from sb3_visual_td3.vec_env import RayVecEnv

    env, rates = RayVecEnv([ray_speed.make_env] * 8), [0.0]
    try:
        while max(rates) < 0.9 * 8 * 20.0 and len(rates) <= 3:  # other work on this machine is not Ray's
            rates.append(ray_speed.measure(env, rate=20.0, n_steps=60)["paced_steps_per_s"])
    finally:
        env.close()
    assert max(rates) >= 0.9 * 8 * 20.0
    assert max(rates) <= 8 * 20.0
