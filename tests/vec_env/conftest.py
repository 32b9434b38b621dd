"""Fixtures: one Ray for the tests of this folder, because it takes seconds to start."""

import pytest


@pytest.fixture(scope="package")
def kept_sessions():
    """Keep the open session of Ray, at most one, from test to test."""
    sessions = []
    yield sessions
    for session in sessions:
        session.close()


@pytest.fixture
def ray_runs(kept_sessions):
    """Start Ray as RayVecEnv starts it, unless it runs since an earlier test."""
    pytest.importorskip("ray")
    from sb3_visual_td3.vec_env.ray_session import RaySession

    if not kept_sessions:
        kept_sessions.append(RaySession())
    return kept_sessions[0]


@pytest.fixture
def no_ray(kept_sessions):
    """End the Ray of earlier tests."""
    while kept_sessions:
        kept_sessions.pop().close()


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
