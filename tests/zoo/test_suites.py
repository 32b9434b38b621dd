"""Suites: the same routes for every driver, and messages for missing maps."""

import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import gymnasium as gym
import pytest

from sb3_visual_td3.cli import main
from sb3_visual_td3.zoo import evaluate, suites
from sb3_visual_td3.zoo.saved_run import SavedRun, read_run
from sb3_visual_td3.zoo.suites import SUITES, suite_parts
from tests.towns import TOWNS


def test_the_lite_routes_suite_has_50_routes_on_each_held_out_map():
    parts = suite_parts("lite-routes")
    assert [part.label for part in parts] == ["streets_held_out_0", "streets_held_out_1"]
    assert [part.n_routes for part in parts] == [50, 50]
    assert [part.n_routes for part in suite_parts("lite-routes", n_routes=3)] == [3, 3]


@pytest.mark.parametrize(("suite", "town"), [("town01-train", "Town01"), ("town02-test", "Town02")])
def test_a_town_suite_has_three_tasks(suite, town):
    parts = suite_parts(suite, [f"maps/{town}.xodr"])
    assert [part.label for part in parts] == [f"{town}, straight", f"{town}, one turn", f"{town}, navigation"]
    assert [part.env_kwargs["route_turns"] for part in parts] == [(0, 0), (1, 1), (2, 20)]
    assert {part.n_routes for part in parts} == {25}


@pytest.mark.parametrize(
    ("suite", "maps", "words"),
    [
        ("town01-train", None, "needs the map Town01, but --maps is missing"),
        ("town01-train", ["Town02.xodr"], "needs the map Town01, but --maps is Town02.xodr"),
        ("lite-routes", ["streets_0"], "drop --maps"),
        ("town03", None, "expected one of town01-train, town02-test, lite-routes, or the path"),
        ("missing.xml", None, "no such file"),
    ],
)
def test_mistakes_are_named(suite, maps, words):
    with pytest.raises(ValueError, match=words):
        suite_parts(suite, maps)


def test_a_route_file_is_split_into_one_suite_part_for_each_map(tmp_path):
    file = tmp_path / "routes.xml"
    places = '<waypoints><position x="1" y="2" z="0"/><position x="3" y="4" z="0"/></waypoints>'
    towns = ("Town01", "Town02", "Town01")
    routes = "".join(f'<route id="{number}" town="{town}">{places}</route>' for number, town in enumerate(towns))
    file.write_text(f"<routes>{routes}</routes>")
    parts = suite_parts(str(file), ["a/Town01.xodr", "a/Town02.xodr"])
    assert [(part.label, part.n_routes) for part in parts] == [("Town01", 2), ("Town02", 1)]
    assert suite_parts(str(file), ["a/Town01.xodr"], n_routes=1)[0].n_routes == 1
    with pytest.raises(ValueError, match="give the maps of Town01, Town02"):
        suite_parts(str(file))
    with pytest.raises(ValueError, match=r"no route on the map b/Town07\.xodr: remove this map from --maps"):
        suite_parts(str(file), ["b/Town07.xodr"])


@pytest.mark.skipif(not TOWNS.is_dir(), reason="CARLA's towns are not part of the package")
@pytest.mark.skipif(find_spec("carla") is None, reason="requires CARLA's client")
@pytest.mark.parametrize("suite", [name for name in SUITES if name.startswith("town")])
def test_every_route_of_a_town_suite_has_a_length_within_the_suites_range(suite):
    town = suite.split("-", maxsplit=1)[0].capitalize()
    for part in suite_parts(suite, [str(TOWNS / f"{town}.xodr")]):
        env = gym.make("LiteDriving-v0", observation="camera+command", **part.env_kwargs)
        least, greatest = part.env_kwargs["route_length_m"]
        for number in range(part.n_routes):
            _, info = env.reset(seed=0, options={"route": number})
            assert least <= info["route_length_m"] <= greatest
        env.close()


@pytest.mark.parametrize("suite", ["lite-routes", "town01-train", "file"])
def test_a_suite_replaces_the_routes_and_the_starts_of_the_training(suite, tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    args = run_dir / "CarlaDriving-v0" / "args.yml"
    args.parent.mkdir(parents=True)
    (args.parent / "config.yml").write_text("!!python/object/apply:collections.OrderedDict\n- []\n")
    (run_dir / "CarlaDriving-v0.zip").touch()
    trained_on = {"route": "file", "route_file": "training.xml", "spawn": 7, "n_cars": 2}
    args.write_text(json.dumps({"algo": "visual_td3", "env": "CarlaDriving-v0", "env_kwargs": trained_on}))
    maps = {"lite-routes": None, "town01-train": ["Town01"], "file": ["Town01"]}[suite]
    if suite == "file":
        suite = str(tmp_path / "test.xml")
        places = '<waypoints><position x="1" y="2" z="0"/><position x="3" y="4" z="0"/></waypoints>'
        Path(suite).write_text(f'<routes><route id="0" town="Town01">{places}</route></routes>')
    made = []

    class EnvMadeError(Exception):
        pass

    def make_envs(self, n_envs, seed, env_kwargs):
        made.append(env_kwargs)
        raise EnvMadeError

    monkeypatch.setattr(SavedRun, "make_envs", make_envs)
    monkeypatch.setattr(evaluate, "_models_of", lambda *_: {})
    saved = read_run(run_dir)
    settings = SimpleNamespace(suite=suite, seeds=[0])
    with pytest.raises(EnvMadeError):
        evaluate._drive_all(saved, suite_parts(suite, maps), 1, settings)
    (kwargs,) = made
    assert "spawn" not in kwargs
    assert kwargs["n_cars"] == 2
    expected = ("file", suite) if suite.endswith(".xml") else ("random", None)
    assert (kwargs["route"], kwargs["route_file"]) == expected


def test_evaluate_scores_a_suite(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(suites, "_N_LITE_ROUTES", 2)
    flags = ["--env", "LiteRoutes-v0", "-n", "40", "-f", str(tmp_path), "--seed", "1", "--verbose", "0"]
    flags += ["--num-threads", "1", "--no-doctor", "-params", "learning_starts:20", "batch_size:4", "callback:[]"]
    assert main(["train", "--algo", "visual_td3", *flags]) == 0
    output = tmp_path / "scores.json"
    run_dir = str(tmp_path / "visual_td3" / "LiteRoutes-v0_1")
    assert main(["evaluate", run_dir, "--suite", "lite-routes", "--json", str(output)]) == 0
    results = json.loads(output.read_text())
    assert results["suite"] == "lite-routes"
    assert results["n_episodes"] == 2
    assert results["maps"] == ["streets_held_out_0", "streets_held_out_1"]
    by_map = results["episodes"]["policy"]
    routes = [route for name in results["maps"] for route in by_map[name]]
    assert len(routes) == 4
    mean = sum(route["driving_score"] for route in routes) / 4
    assert results["results"]["policy"]["all"]["driving_score"]["mean"] == pytest.approx(mean)
    lengths = [
        [route["route_length_m"] for route in results["episodes"][name][results["maps"][0]]]
        for name in ("policy", "random", "full brake")
    ]
    assert lengths[0] == lengths[1] == lengths[2], "all drivers drive the same routes"
    assert min(lengths[0]) >= 200.0, "the suite's range, not that of the training"
    printed = capsys.readouterr().out
    assert "4 routes of lite-routes" in printed
    assert "routes of the policy" in printed
    assert "leaderboard 2.1" in " ".join(printed.split())
