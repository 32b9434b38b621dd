"""Test the size limits of road maps."""

import importlib.util

import gymnasium as gym
import numpy as np
import pytest

from sb3_visual_td3.envs.drivers import PurePursuitDriver
from sb3_visual_td3.envs.road.graph_cache import CACHE_VARIABLE
from sb3_visual_td3.envs.road.route_maps import check_size

LONG_ROAD = """<?xml version="1.0"?>
<OpenDRIVE><header revMajor="1" revMinor="4" name="long"/>
<road name="" length="2600" id="1" junction="-1"><link/>
<planView><geometry s="0" x="0" y="0" hdg="0" length="2600"><line/></geometry></planView>
<lanes><laneSection s="0">
<left><lane id="1" type="driving" level="false"><width sOffset="0" a="3.5" b="0" c="0" d="0"/>
<roadMark sOffset="0" type="solid" color="white" width="0.2"/></lane></left>
<center><lane id="0" type="none" level="false">
<roadMark sOffset="0" type="broken" color="white" width="0.2"/></lane></center>
<right><lane id="-1" type="driving" level="false"><width sOffset="0" a="3.5" b="0" c="0" d="0"/>
<roadMark sOffset="0" type="solid" color="white" width="0.2"/></lane></right>
</laneSection></lanes></road></OpenDRIVE>"""


@pytest.mark.parametrize("size_m", [(3000.0, 1300.0), (2000.0, 2000.0), (10.0, 10.0)])
def test_maps_up_to_four_square_kilometres_are_painted(size_m):
    check_size(np.array(size_m), "a map")


@pytest.mark.parametrize(
    ("size_m", "words"), [((3001.0, 10.0), "3001 m x 10 m"), ((2010.0, 2000.0), "2010 m x 2000 m")]
)
def test_larger_maps_are_refused_with_their_size(size_m, words):
    with pytest.raises(ValueError, match=f"a map: got a map of {words}, expected at most 3000 m per side"):
        check_size(np.array(size_m), "a map")


@pytest.mark.carla
@pytest.mark.skipif(importlib.util.find_spec("carla") is None, reason="carla's client is not installed")
def test_a_road_of_2600_m_is_driven_and_seen_to_its_far_end(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    path = tmp_path / "long.xodr"
    path.write_text(LONG_ROAD)
    env = gym.make("LiteDriving-v0", maps=[str(path)], route=[((2450.0, -1.75), (2590.0, -1.75))])
    env.reset(seed=0)
    world, driver, frames = env.unwrapped, PurePursuitDriver(), []
    is_over = False
    while not is_over:
        observation, _, terminated, truncated, info = env.step(driver.act(world))
        frames.append(observation[-1])
        is_over = terminated or truncated
    assert info["termination"] == "goal"
    # A raster that OpenCV cannot read would leave the ground blank: the marks are brighter than the road.
    assert all(np.ptp(frame[60:]) > 60 for frame in frames)
    env.close()
