"""Test the statistics and tables of ``visual-td3 evaluate``."""

import json
import math

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import PendulumEnv

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.callbacks.drives import Drive, Episode
from sb3_visual_td3.cli import main
from sb3_visual_td3.zoo.evaluate import ALL_MAPS, DRIVERS, show, summarise, summarise_episodes


def drive(reward=0.0, distance_m=500.0, collisions=0.0, lane_invasions=0.0, success_rate=0.0):
    return Drive(reward, 100.0, distance_m, 5.0, collisions, lane_invasions, success_rate, 0.5)


def test_rates_count_over_all_metres_and_means_over_episodes():
    near = drive(reward=1.0, distance_m=100.0, lane_invasions=2, collisions=1)
    far = drive(reward=5.0, distance_m=900.0, lane_invasions=1, success_rate=1.0)
    found = summarise({"policy": {"a": [near], "b": [far]}})["policy"]
    assert found["a"]["lane_invasions_per_km"]["mean"] == pytest.approx(20.0)
    assert found[ALL_MAPS]["lane_invasions_per_km"]["mean"] == pytest.approx(3.0), "not the mean of the rates"
    assert found[ALL_MAPS]["collisions_per_km"]["mean"] == pytest.approx(1.0)
    assert found[ALL_MAPS]["success_rate"]["mean"] == 0.5
    assert found[ALL_MAPS]["return"]["mean"] == 3.0
    assert found[ALL_MAPS]["route_completion"]["mean"] == 0.5


def test_an_episode_without_is_success_failed_if_another_one_has_the_key():
    reached, missed = Episode(1.0, 5, 1.0), Episode(0.0, 9)
    found = summarise_episodes({"policy": {ALL_MAPS: [reached, missed]}, "random": {ALL_MAPS: [missed, missed]}})
    assert found["policy"][ALL_MAPS]["success_rate"]["mean"] == 0.5
    assert found["random"][ALL_MAPS]["success_rate"]["mean"] == 0.0
    assert "success_rate" not in summarise_episodes({"policy": {ALL_MAPS: [missed]}})["policy"][ALL_MAPS]


def test_the_bootstrap_interval_approximates_the_gaussian_interval_for_many_episodes():
    """For many episodes, the bootstrap interval is close to the mean plus or minus 1.96 standard errors."""
    rewards = np.random.default_rng(1).normal(10.0, 3.0, 400)
    found = summarise({"policy": {"a": [drive(reward=float(reward)) for reward in rewards]}})["policy"]["a"]["return"]
    half = 1.96 * rewards.std() / math.sqrt(400)
    assert found["low"] == pytest.approx(rewards.mean() - half, abs=0.1 * half)
    assert found["high"] == pytest.approx(rewards.mean() + half, abs=0.1 * half)


def test_one_episode_leaves_no_interval():
    found = summarise({"policy": {"a": [drive(reward=2.0)]}})["policy"]["a"]["return"]
    assert found == {"mean": 2.0, "low": 2.0, "high": 2.0}


def test_without_distance_there_is_no_rate(capsys):
    table = summarise({"full brake": {"a": [drive(distance_m=0.0)]}})
    assert "collisions_per_km" not in table["full brake"]["a"]
    assert table["full brake"]["a"]["distance_m"]["mean"] == 0.0
    show(table, "brakes")
    assert "-" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 120, 220])
def test_the_table_fits_the_terminal(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    drives = [drive(reward=1234.5, success_rate=1.0), drive(reward=200.5)]
    table = summarise({driver: {"held_out_1": drives, "held_out_2": drives} for driver in DRIVERS})
    show(table, "run.zip, 2 episodes on each map")
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines()) <= columns
    assert "717.5 [200.5," in printed
    assert all(word in printed for word in (*DRIVERS, "held_out_1", "held_out_2", "success", "invasions/km"))
    # A narrow terminal shows one table for each map, and one for all maps.
    assert printed.count("invasions/km") == (1 if columns == 220 else 3)
    assert "success: the episode ended without collision" in " ".join(printed.split())


def test_a_single_map_is_shown_once(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    show(summarise({driver: {"held_out_1": [drive()]} for driver in DRIVERS}), "run.zip")
    printed = capsys.readouterr().out
    assert "map held_out_1" in printed
    assert "all maps" not in printed


def trained(folder, env):
    flags = ["--env", env, "-n", "60", "-f", str(folder), "--seed", "1", "--verbose", "0", "--num-threads", "1"]
    flags += ["--eval-freq", "30", "--eval-episodes", "1", "-params", "learning_starts:20", "batch_size:4"]
    flags += ["callback:[]"] if env == "LiteDriving-v0" else ["callback:[]", "policy_average:0.5", "policy:'MlpPolicy'"]
    assert main(["train", "--algo", "visual_td3", *flags]) == 0
    return folder / "visual_td3" / f"{env}_1"


@pytest.mark.parametrize(
    ("env", "others", "maps"),
    [("LiteDriving-v0", ["random", "full brake"], ["--maps", "held_out_0"]), ("Pendulum-v1", ["random"], [])],
)
def test_compare_shows_the_policies_of_a_run_side_by_side(env, others, maps, tmp_path, capsys):
    run_dir = trained(tmp_path, env)
    results = {}
    for flag in ([], ["--compare"]):
        output = tmp_path / "results.json"
        assert main(["evaluate", str(run_dir), "-n", "2", *maps, *flag, "--output", str(output)]) == 0
        results[bool(flag)] = json.loads(output.read_text())["episodes"]
    assert list(results[False]) == ["policy", *others]
    assert list(results[True]) == ["policy", "last actor", "best", *others]
    # With --compare, the policy plays the same episodes as without. The compared policies differ.
    assert results[True]["policy"] == results[False]["policy"]
    assert results[True]["policy"] != results[True]["last actor"]
    assert "last actor" in capsys.readouterr().out


class PendulumWithMaps(PendulumEnv):
    maps = ("a", "b")


def test_an_attribute_maps_of_another_environment_does_not_make_it_a_driving_environment(tmp_path, monkeypatch):
    spec = gym.envs.registration.EnvSpec("WithMaps-v0", PendulumWithMaps, max_episode_steps=20)
    monkeypatch.setitem(gym.registry, "WithMaps-v0", spec)
    run_dir = trained(tmp_path, "WithMaps-v0")
    output = tmp_path / "results.json"
    assert main(["evaluate", str(run_dir), "-n", "1", "--output", str(output)]) == 0
    assert list(json.loads(output.read_text())["episodes"]) == ["policy", "random"]


def test_compare_says_so_if_there_is_nothing_to_compare(tmp_path, capsys):
    run_dir = trained(tmp_path, "Pendulum-v1")
    (run_dir / "best_model.zip").unlink()
    VisualTD3("MlpPolicy", "Pendulum-v1").save(run_dir / "Pendulum-v1.zip")
    assert main(["evaluate", str(run_dir), "-n", "1", "--compare"]) == 0
    assert "has no best_model.zip and no averaged policy to compare with" in capsys.readouterr().err


@pytest.mark.parametrize(("output", "words"), [("nowhere/scores.json", "there is no folder"), (".", "no file can be")])
def test_an_output_that_cannot_be_written_is_refused_before_the_evaluation(
    output, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "no_run", "--output", output]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
