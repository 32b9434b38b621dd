import pytest


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
