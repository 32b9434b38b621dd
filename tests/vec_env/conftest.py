"""Fixtures: one Ray for all tests of a file, because it takes seconds to start."""

import pytest


@pytest.fixture(scope="module")
def ray_runs():
    """Start Ray as RayVecEnv starts it."""
    pytest.importorskip("ray")
    from sb3_visual_td3.vec_env.ray_session import RaySession

    session = RaySession()
    yield session
    session.close()


@pytest.fixture
def make_vec(ray_runs):
    """Make a RayVecEnv, which is closed afterwards."""
    from sb3_visual_td3.vec_env import RayVecEnv

    made = []

    def make(env_fns, **kwargs):
        made.append(RayVecEnv(env_fns, **kwargs))
        return made[-1]

    yield make
    for env in made:
        env.close()
