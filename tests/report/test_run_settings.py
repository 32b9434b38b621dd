from __future__ import annotations

import inspect
import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from stable_baselines3 import TD3

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.report.discovery import find_zoo_folder
from sb3_visual_td3.report.hyperparam_comparison import implausible
from sb3_visual_td3.report.run_settings import (
    Layer,
    RunSettings,
    _known_defaults,
    own_arguments,
    read_given_settings,
    run_settings,
)
from sb3_visual_td3.runs.manifest import RunManifest
from sb3_visual_td3.visual_td3.presets import PRESETS

from .synthetic_runs import healthy, write_events

Report = Callable[..., int]


def zoo_run(folder: Path, config: dict[str, Any], **arguments: Any) -> Path:
    """Write what rl-zoo writes: RUN_DIR/ENV/config.yml and args.yml, and event files in RUN_DIR/tb/TD3_1."""
    settings = folder / "Pendulum-v1_1" / "Pendulum-v1"
    settings.mkdir(parents=True)
    known = {"algo": "td3", "env": "Pendulum-v1", "seed": 3, "n_timesteps": -1, "env_kwargs": None, **arguments}
    (settings / "config.yml").write_text(yaml.dump(OrderedDict(sorted(config.items()))))
    (settings / "args.yml").write_text(yaml.dump(OrderedDict(sorted(known.items()))))
    write_events(healthy(), folder / "Pendulum-v1_1" / "tb" / "TD3_1")
    return folder / "Pendulum-v1_1"


def told(settings: RunSettings) -> dict[str, tuple[Any, str]]:
    return {name: (found.value, found.source) for name, found in settings.given_settings()}


def written(tmp_path: Path) -> dict[str, Any]:
    run: dict[str, Any] = json.loads((tmp_path / "out" / "report.json").read_text())["run"]
    return run


CONFIG = {
    "batch_size": 100,
    "callback": [{"some.Callback": {"log_freq": 1}}],
    "gamma": 0.98,
    "learning_rate": "lin_1e-3",
    "n_timesteps": 20_000,
    "normalize": "{'norm_obs': False, 'norm_reward': True}",
    "policy": "MlpPolicy",
    "policy_kwargs": "dict(net_arch=[400, 300])",
    "train_freq": (4, "step"),
}


def test_settings_from_files_of_rl_zoo_name_their_source(report: Report, tmp_path: Path) -> None:
    run_dir = zoo_run(tmp_path, CONFIG, n_timesteps=300)
    report(run_dir)
    found = {name: (s["value"], s["source"]) for name, s in written(tmp_path)["hyperparams"].items()}
    config, arguments = "rl-zoo's config.yml", "rl-zoo's args.yml"
    assert found == {
        "algo": ("td3", arguments),
        "env_id": ("Pendulum-v1", arguments),
        "seed": (3, arguments),
        "n_timesteps": (300, arguments),  # -n on the command line goes before the file
        "batch_size": (100, config),
        "gamma": (0.98, config),
        "learning_rate": ("lin_1e-3", config),
        "normalize.norm_obs": (False, config),
        "normalize.norm_reward": (True, config),
        "policy": ("MlpPolicy", config),
        "policy_kwargs.net_arch": ([400, 300], config),
        "train_freq": ([4, "step"], config),
    }


def test_without_n_on_the_command_line_n_timesteps_comes_from_config_yml(report: Report, tmp_path: Path) -> None:
    report(zoo_run(tmp_path, CONFIG, n_timesteps=-1))
    assert written(tmp_path)["hyperparams"]["n_timesteps"] == {"value": 20_000, "source": "rl-zoo's config.yml"}


@pytest.mark.parametrize("start", ["", "tb", "tb/TD3_1"])
def test_the_folder_of_rl_zoo_is_found_from_any_folder_of_the_run(start: str, tmp_path: Path) -> None:
    run_dir = zoo_run(tmp_path, CONFIG)
    assert find_zoo_folder(run_dir / start) == (run_dir / "Pendulum-v1", None)


def test_a_config_yml_without_args_yml_is_ignored(tmp_path: Path) -> None:
    run_dir = zoo_run(tmp_path, CONFIG)
    (run_dir / "Pendulum-v1" / "args.yml").unlink()
    assert find_zoo_folder(run_dir) == (None, None)


def test_a_folder_of_rl_zoo_beside_the_run_is_ignored(tmp_path: Path) -> None:
    zoo_run(tmp_path, CONFIG)
    (tmp_path / "Pendulum-v1_1" / "Pendulum-v1").rename(tmp_path / "Pendulum-v1")
    write_events(healthy(), tmp_path / "mine")
    assert find_zoo_folder(tmp_path / "mine") == (None, None)


def test_a_run_dir_under_another_name_is_known_by_its_monitor(tmp_path: Path) -> None:
    run_dir = zoo_run(tmp_path, CONFIG).rename(tmp_path / "best")
    assert find_zoo_folder(run_dir) == (None, None)
    (run_dir / "0.monitor.csv").touch()
    assert find_zoo_folder(run_dir / "tb") == (run_dir / "Pendulum-v1", None)


def test_settings_in_two_environment_folders_are_ignored_with_a_note(report: Report, tmp_path: Path) -> None:
    run_dir = zoo_run(tmp_path, CONFIG)
    (run_dir / "0.monitor.csv").touch()
    for name in ("config.yml", "args.yml"):
        (run_dir / "Other-v0").mkdir(exist_ok=True)
        (run_dir / "Other-v0" / name).write_text("a: 1")
    report(run_dir)
    assert written(tmp_path)["hyperparams"] == {}
    assert "holds the settings of several environments (Other-v0, Pendulum-v1)" in str(written(tmp_path)["notes"])


def test_a_config_that_would_run_code_is_ignored_with_a_note(report: Report, tmp_path: Path) -> None:
    run_dir = zoo_run(tmp_path, CONFIG)
    (run_dir / "Pendulum-v1" / "config.yml").write_text(
        f"!!python/object/apply:os.system ['touch {tmp_path / 'pwned'}']"
    )
    assert report(run_dir) == 0
    assert not (tmp_path / "pwned").exists()
    assert "the settings in rl-zoo's config.yml were ignored" in "\n".join(written(tmp_path)["notes"])
    assert written(tmp_path)["hyperparams"]["algo"]["source"] == "rl-zoo's args.yml"


def test_hyperparams_file_overrides_run_json_which_overrides_rl_zoo_files(report: Report, tmp_path: Path) -> None:
    run_dir = zoo_run(tmp_path, CONFIG)
    RunManifest("TD3", "Pendulum-v1", 3, 300, {"gamma": 0.97, "batch_size": 101}, event_dir="tb/TD3_1").write(
        run_dir / "run.json"
    )
    (tmp_path / "mine.json").write_text('{"gamma": 0.9}')
    report(run_dir, "--hyperparams", tmp_path / "mine.json")
    found = {name: (s["value"], s["source"]) for name, s in written(tmp_path)["hyperparams"].items()}
    assert found["gamma"] == (0.9, "mine.json")
    assert found["batch_size"] == (101, "run.json")
    assert found["learning_rate"] == ("lin_1e-3", "rl-zoo's config.yml")


def test_a_run_json_can_be_given_for_a_run_without_one(tmp_path: Path) -> None:
    manifest = RunManifest("VisualTD3", "e", hyperparams={"tau": 0.01}, encoder="shared", reward_is_normalized=True)
    manifest.write(tmp_path / "other.json")
    layer = read_given_settings(tmp_path / "other.json")
    assert (layer.source, layer.values["tau"], layer.values["encoder"]) == ("other.json", 0.01, "shared")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("h.yml", "LiteDriving-v0: {tau: 1}\n", "give a file with a single block"),
        ("h.yml", "{}", "expected names and values"),
        ("h.yml", "just text", "expected a mapping"),
        ("h.json", "{", "not valid JSON"),
        ("h.yml", "a: !!python/name:os.system ", "refused"),
        ("h.json", '{"format_version": 9, "algo": "x"}', "format_version is 9"),
    ],
)
def test_an_invalid_hyperparams_file_gives_one_line_and_exit_code_2_before_any_work(
    report: Report, tmp_path: Path, name: str, text: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "run")
    (tmp_path / name).write_text(text)
    assert report(tmp_path / "run", "--hyperparams", tmp_path / name) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert name in line
    assert reason in line
    assert not (tmp_path / "out").exists()


def test_a_run_json_that_is_too_deep_or_too_large_is_ignored() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"a": deep}
    for hyperparams, why in (
        ({"tau": 0.005, "deep": deep}, "run.json: 'deep': nested deeper than 16"),
        ({"many": list(range(20_000))}, "run.json: 'many': more than 10,000 values"),
    ):
        found, (note,) = run_settings(None, RunManifest("TD3", "e", hyperparams=hyperparams), None)
        assert found.given == ()
        assert note.startswith(f"the settings in run.json were ignored: {why}")


def test_a_missing_file_gives_exit_code_2(report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_events(healthy(), tmp_path / "run")
    assert report(tmp_path / "run", "--hyperparams", tmp_path / "absent.json") == 2
    assert "absent.json: No such file" in capsys.readouterr().err


def test_the_known_defaults_are_those_of_the_signatures() -> None:
    known = _known_defaults()
    for algorithm in (TD3, VisualTD3):
        signature = inspect.signature(algorithm).parameters
        assert known["td3"] == {name: signature[name].default for name in known["td3"]}
    left_out = {"policy", "env", "action_noise", "replay_buffer_class", "replay_buffer_kwargs", "optimize_memory_usage"}
    left_out |= {"stats_window_size", "tensorboard_log", "policy_kwargs", "verbose", "seed", "device"}
    assert set(inspect.signature(TD3).parameters) - left_out - {"_init_setup_model"} == set(known["td3"])


@pytest.mark.parametrize("preset", PRESETS)
def test_the_known_presets_equal_those_of_visual_td3(preset: str) -> None:
    known = _known_defaults()["presets"][preset]
    settings = PRESETS[preset]  # type: ignore[index]
    of_policy = {"encoder": "separate", "trunk_dim": None, "layer_norm": False, **settings.policy_kwargs}
    for name, value in known.items():
        key = name.removeprefix("policy_kwargs.")
        assert value == (of_policy[key] if key != name else getattr(settings, name)), name
    assert {name.removeprefix("policy_kwargs.") for name in known} == {
        *of_policy,
        *(name for name in vars(settings) if name != "policy_kwargs"),
    }


def test_own_arguments_are_those_of_visual_td3_that_td3_lacks() -> None:
    ours, theirs = (set(inspect.signature(algorithm).parameters) for algorithm in (VisualTD3, TD3))
    own = {name for name in own_arguments() if not name.startswith("policy_kwargs.")}
    assert own == ours - theirs - {"preset", "overlap"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"normalize": True}, True),
        ({"normalize": False}, False),
        ({"normalize": {"norm_obs": False, "norm_reward": True}}, True),
        ({"normalize": {"norm_obs": True, "norm_reward": False}}, False),
        ({"normalize": {"norm_obs": False}}, True),  # VecNormalize scales rewards unless it is told not to
        ({"normalize": "dict(norm_obs=False)"}, True),
        ({"reward_is_normalized": True, "normalize": False}, True),
        ({"tau": 1}, None),
    ],
)
def test_whether_rewards_are_normalised_is_understood(content: dict[str, Any], expected: bool | None) -> None:
    found = run_settings(Layer.of("h.yml", content), None, None)[0].reward_is_normalized
    assert (None if found is None else found.value) is expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"encoder": "shared"}, True),
        ({"encoder": "separate"}, False),
        ({"policy_kwargs": {"encoder": "shared"}}, True),
        ({"encoder_is_shared": True}, True),
        ({"algo": "visual_td3", "policy": "CnnPolicy"}, True),  # the preset's
        ({"algo": "visual_td3", "policy": "CnnPolicy", "policy_kwargs": {"encoder": "separate"}}, False),
        ({"algo": "visual_td3", "policy": "MlpPolicy"}, False),
        ({"algo": "td3", "policy": "CnnPolicy"}, None),
        ({"encoder": ["shared"]}, None),
    ],
)
def test_whether_the_encoder_is_shared_is_understood(content: dict[str, Any], expected: bool | None) -> None:
    found = run_settings(Layer.of("h.yml", content), None, None)[0].encoder_is_shared
    assert (None if found is None else found.value) is expected


def test_an_unknown_preset_or_algorithm_has_no_defaults_of_ours() -> None:
    strange = run_settings(Layer.of("h.yml", {"algo": "visual_td3", "preset": ["x"]}), None, None)[0]
    assert strange.value("pre_tanh_penalty") is None
    assert strange.value("tau") == 0.005
    assert run_settings(Layer.of("h.yml", {"algo": "sac"}), None, None)[0].value("tau") is None


def test_a_misspelled_setting_is_noted_with_the_nearest_name(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "run")
    (tmp_path / "h.yml").write_text("gama: 0.99\ntau: 0.005\npolyak: 0.995\nexp_name: a\npolicy_kwargs: {n: 1}\n")
    report(tmp_path / "run", "--hyperparams", tmp_path / "h.yml")
    notes = [line for line in capsys.readouterr().out.splitlines() if "Note" in line]
    assert notes == ["  Note: h.yml: 'gama' is not a setting that the report uses; did you mean 'gamma'?"]


@pytest.mark.parametrize(
    ("content", "notes"),
    [
        ({"algo": "tdd3"}, ["h.yml: algo is 'tdd3'; expected the name of an algorithm; did you mean 'td3'?"]),
        ({"tau": "fast"}, ["h.yml: tau is 'fast'; expected a number from 0 to 1"]),
        ({"polyak": 1.5}, ["h.yml: polyak is 1.5; expected a number from 0 to 1"]),
        ({"batch_size": 1.5}, ["h.yml: batch_size is 1.5; expected an integer >= 0"]),
        ({"lr": -1}, ["h.yml: lr is -1; expected a number >= 0, or a schedule"]),
        ({"algo": "VisualTD3", "learning_rate": "lin_3e-4_1e-5", "buffer_size": "1e6", "gamma": 1}, []),
        ({"algo": "ddqn", "action_noise": "NormalActionNoise", "max_grad_norm": None, "learning_starts": 0}, []),
    ],
)
def test_a_value_that_its_setting_cannot_have_is_told(content: dict[str, Any], notes: list[str]) -> None:
    assert list(implausible(Layer.of("h.yml", content))) == notes
