"""Test that the commands that the report suggests can be run and supply what was missing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from torch.utils.tensorboard import SummaryWriter

from sb3_visual_td3.cli import main
from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import load_criteria
from sb3_visual_td3.diagnosis.verdict import Verdict
from sb3_visual_td3.report.analysis import Analysis, analyse
from sb3_visual_td3.report.event_reader import RunData
from sb3_visual_td3.report.next_step import Snippet, next_step
from sb3_visual_td3.report.overview import best_policy
from sb3_visual_td3.report.run_settings import Layer, RunSettings
from sb3_visual_td3.report.wording import answers_line, length_in_words, near_misses
from sb3_visual_td3.runs.manifest import RunEnd, RunManifest

from .synthetic_runs import Values, as_series, healthy, leaking, write_events

ZOO = Layer(
    "rl-zoo's args.yml",
    {"algo": "visual_td3", "env_id": "My-v0", "conf_file": "mine.yml", "gym_packages": ["mycam"]},
)


def analysed(run: Values, *layers: Layer, require: Any = "thin", finished: bool = False, axis: str = "") -> Analysis:
    data = RunData(Path("run"), as_series(run), (), 1, axis=axis or "environment steps")
    manifest = None
    if layers:
        manifest = RunManifest("VisualTD3", "My-v0", end="finished", finished="2026-01-01") if finished else None
    settings = RunSettings(tuple(layers))
    return analyse(data, load_criteria(), name="run", manifest=manifest, settings=settings, require_evidence=require)


def only(snippets: tuple[Snippet, ...], language: str) -> str:
    (found,) = (snippet.text for snippet in snippets if snippet.language == language)
    return found


def plain_sac(n_points: int = 100) -> Values:
    """Return a run of SB3's SAC that learns and has no evaluations."""
    rng = np.random.default_rng(0)
    steps = np.arange(1, n_points + 1) * 1000
    x = np.linspace(0, 1, n_points)
    return {
        "rollout/ep_rew_mean": (steps, 20 + 400 * np.minimum(2 * x, 1) + rng.normal(0, 2, n_points)),
        "rollout/ep_len_mean": (steps, np.full(n_points, 200.0)),
        "train/actor_loss": (steps, -50 * x),
        "train/critic_loss": (steps, 5 - 3 * x),
        "train/ent_coef": (steps, 0.1 - 0.05 * x),
        "train/learning_rate": (steps, np.full(n_points, 3e-4)),
        "train/n_updates": (steps, steps.astype(float)),
        "time/fps": (steps, np.full(n_points, 100.0)),
    }


# ---- after a GO


def test_after_a_go_the_suggested_command_has_more_steps_and_a_larger_buffer() -> None:
    config = Layer("rl-zoo's config.yml", {"n_timesteps": 5000, "buffer_size": 20000, "learning_rate": "lin_2e-4"})
    step = next_step(analysed(healthy(), ZOO, config))
    assert only(step.snippets, "console") == (
        "visual-td3 train --algo visual_td3 --env My-v0 --conf-file mine.yml --gym-packages mycam "
        "--hyperparams buffer_size:100000 -n 100000"
    )
    assert "100,000 steps for example" in step.text
    assert "The command sets buffer_size to 100,000: the replay buffer then holds all these steps." in step.text
    assert "lin_2e-4 falls to 0 over the 100,000 steps" in step.text


def test_the_suggested_command_keeps_command_line_changes_unless_they_are_unsafe_in_a_shell() -> None:
    changed = {
        "--env-kwargs": {"town": "Town 02"},
        "--hyperparams": {"noise_type": "normal", "normalize": {"norm_reward": True}},
    }
    config = Layer("rl-zoo's config.yml", {"n_timesteps": 5000, "buffer_size": 20000, "learning_rate": 1e-4})
    step = next_step(analysed(healthy(), replace(ZOO, key_values=changed), config))
    assert only(step.snippets, "console") == (
        "visual-td3 train --algo visual_td3 --env My-v0 --conf-file mine.yml --gym-packages mycam "
        """--env-kwargs "town:'Town 02'" --hyperparams noise_type:normal "normalize:{'norm_reward': True}" """
        "buffer_size:100000 -n 100000"
    )
    evil = {"--hyperparams": {"noise_type": "$(reboot)"}}
    step = next_step(analysed(healthy(), replace(ZOO, key_values=evil), config))
    assert not step.snippets
    assert "With buffer_size 100,000, the replay buffer holds all these steps." in step.text


def test_a_longer_run_stated_in_the_hyperparameter_file_is_suggested_unchanged() -> None:
    config = Layer("rl-zoo's config.yml", {"n_timesteps": 5e5, "buffer_size": 200_000, "learning_rate": 1e-4})
    step = next_step(analysed(healthy(), ZOO, config))
    assert only(step.snippets, "console").endswith("--gym-packages mycam")
    assert "500,000 steps as the hyperparameter file states" in step.text
    assert "holds the last 200,000 steps (buffer_size 200,000, as in this run)" in step.text
    assert "stays at 0.0001" in step.text


@pytest.mark.parametrize("name", ["algo", "env_id", "conf_file"])
def test_names_that_are_unsafe_in_a_shell_are_not_put_into_a_command(name: str) -> None:
    evil = Layer("rl-zoo's args.yml", {**ZOO.values, name: "<b>; rm -rf /"})
    step = next_step(analysed(healthy(), evil))
    assert "rm -rf" not in step.text
    assert not step.snippets


@pytest.mark.parametrize("name", ["algo", "env_id", "conf_file", "gym_packages"])
@pytest.mark.parametrize("text", ["td3\nbash x.sh\n:", "td3 --track", "--track", "td3\n"])
def test_names_never_add_lines_or_flags_to_a_command(name: str, text: str) -> None:
    value = [text] if name == "gym_packages" else text
    assert not next_step(analysed(healthy(), Layer("rl-zoo's args.yml", {**ZOO.values, name: value}))).snippets


@pytest.mark.parametrize("pair", [{"--track": 1}, {"--track": "a b"}, {"gamma\n": "a b"}])
def test_a_changed_hyperparameter_never_adds_lines_or_flags_to_a_command(pair: dict[str, Any]) -> None:
    assert not next_step(analysed(healthy(), replace(ZOO, key_values={"--hyperparams": pair}))).snippets


@pytest.mark.parametrize("name", ["algo", "env_id"])
def test_without_algorithm_or_environment_no_command_is_suggested(name: str) -> None:
    known = {key: value for key, value in ZOO.values.items() if key != name}
    step = next_step(analysed(healthy(), Layer("rl-zoo's args.yml", known)))
    assert step.text.startswith("Start the long run")
    assert not step.snippets


# ---- too early


def test_the_advice_for_a_run_without_updates_mentions_learning_starts() -> None:
    steps = np.arange(100, 601, 100)
    run = {tags.TOTAL_ITERATIONS: (steps, np.zeros(6)), tags.BUFFER_UTILIZATION: (steps, steps / 2000)}
    config = Layer("rl-zoo's config.yml", {"learning_starts": 1000, "n_timesteps": 5000})
    analysis = analysed(run, ZOO, config, finished=True)
    assert analysis.verdict is Verdict.INSUFFICIENT
    step = next_step(analysis)
    assert step.text.startswith("The run has 600 steps. No update is made in the first 1,000 steps (learning_starts).")
    assert "Log what is missing" not in step.text
    assert "-n 5000" in only(step.snippets, "console")


def test_a_long_run_is_not_refused_at_the_end_of_its_warm_up() -> None:
    steps = np.arange(1, 22) * 500
    run: Values = {
        "rollout/ep_rew_mean": (steps, np.linspace(5.0, -2.0, 21)),
        "rollout/ep_len_mean": (steps, np.full(21, 20.0)),
        "train/actor_loss": (steps[20:], np.ones(1)),
        "train/critic_loss": (steps[20:], np.ones(1)),
    }
    plan = {"learning_starts": 10_000, "n_timesteps": 1_000_000}
    analysis = analysed(run, ZOO, Layer("rl-zoo's config.yml", plan))
    assert analysis.verdict is Verdict.INSUFFICIENT
    assert next_step(analysis).text.startswith("Let the run continue to at least 20,000 environment steps")
    # In a run of 10,500 steps, this warm-up is too long.
    analysis = analysed(run, ZOO, Layer("rl-zoo's config.yml", {**plan, "n_timesteps": 10_500}))
    assert analysis.verdict is Verdict.NO_GO
    assert analysis.cause is not None
    assert analysis.cause.id == "too_few_updates"


def ended_early(folder: Path, n_timesteps: int, end: RunEnd | None = "interrupted", snapshot: bool = True) -> Path:
    """Write a run of 400 steps with a run.json and, if ``snapshot`` is set, a snapshot."""
    write_events({"rollout/ep_rew_mean": (np.arange(1, 5) * 100, np.ones(4))}, folder / "tb" / "VisualTD3_1")
    command = ("visual-td3", "train", "--env", "My-v0", "--gym-packages", "mycam", "other", "--seed", "1")
    manifest = RunManifest("VisualTD3", "My-v0", n_timesteps=n_timesteps, command=command, event_dir="tb/VisualTD3_1")
    replace(manifest, end=end).write(folder / "run.json")
    if snapshot:
        (folder / "snapshots" / "step_000000400").mkdir(parents=True)
        (folder / "snapshots" / "step_000000400" / "snapshot.json").write_text("{}")
    return folder


def reported(folder: Path) -> dict[str, Any]:
    main(["report", str(folder), "--format", "json", "--output", "out"])
    step: dict[str, Any] = json.loads(Path("out/report.json").read_text())["next_step"]
    return step


def test_the_advice_for_an_interrupted_run_has_the_command_that_continues_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    step = reported(ended_early(Path("logs/My-v0_1"), 50_000))
    assert step["text"].startswith("The run has ended early: continue it to at least 2,000 environment steps")
    (snippet,) = step["snippets"]
    assert snippet["text"] == "visual-td3 resume logs/My-v0_1 --allow mycam other"
    # A run that may still train, a plan that is too short, no snapshot, and a path that is unsafe in a shell.
    assert reported(ended_early(Path("a"), 50_000, end=None))["text"].startswith("Let the run continue to")
    for folder in (ended_early(Path("b"), 1_000), ended_early(Path("c"), 50_000, snapshot=False)):
        step = reported(folder)
        assert step["text"].startswith("The run is over: start a new run of at least 2,000")
        assert not step["snippets"]
    step = reported(ended_early(Path("d; e"), 50_000))
    assert "continue it" in step["text"]
    assert not step["snippets"]


# ---- what is missing


def test_the_suggested_yaml_lists_only_callbacks_that_fit_the_run() -> None:
    analysis = analysed(plain_sac(), ZOO, require="full")
    step = next_step(analysis)
    content = yaml.safe_load(only(step.snippets, "yaml"))
    assert [path.rpartition(".")[2] for path in content["callback"]] == [
        "GradientNormCallback",
        "ExplosionAlertCallback",
    ]
    assert "Driving" not in str(step)
    assert "--eval-freq 10000" in only(step.snippets, "console")


@pytest.mark.slow
def test_the_suggested_python_code_runs_and_supplies_the_missing_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env = Layer("run.json", {"algo": "SAC", "env_id": "Pendulum-v1"})
    code = only(next_step(analysed(plain_sac(), env, require="full")).snippets, "python")
    assert "100_000" in code
    model = SAC("MlpPolicy", make_vec_env("Pendulum-v1"), learning_starts=200, batch_size=8, tensorboard_log="tb")
    names: dict[str, Any] = {"model": model}
    exec(code.replace("100_000", "450").replace("10_000", "100"), names)
    assert all(isinstance(each, BaseCallback) for each in names["callbacks"])
    assert main(["report", "tb", "--format", "json", "--require-evidence", "full"]) == 3
    criteria = (tmp_path / "report.json").read_text()
    assert '"needs_callback"' not in criteria
    assert tags.EVAL_RANDOM_REWARD in criteria
    assert tags.GRADIENT_NORM["critic_mlp"] in criteria


def test_the_suggested_logging_code_makes_a_run_without_sb3_a_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    steps = np.arange(1, 101) * 1000
    bare = {"my/loss_a": (steps, rng.random(100)), "my/loss_b": (steps, rng.random(100))}
    step = next_step(analysed(bare))
    assert "GradientNormCallback" not in str(step)
    assert "--write-tags" in only(step.snippets, "console")
    code = only(step.snippets, "python")
    assert len(code.splitlines()) == 5
    with SummaryWriter("own") as writer:
        for global_step in steps.tolist():
            level = 100 * min(2 * global_step / 100_000, 1.0)
            names = {
                "writer": writer,
                "global_step": global_step,
                "episode_return": level + rng.normal(),
                "mean_return": level + rng.normal(),
                "actor_loss": -level / 10,
                "critic_loss": 1.0 + 0.1 * rng.random(),
                "q1": np.array([level / 10]),
            }
            exec(code, names)
    assert main(["report", "own", "--format", "json"]) == 0
    assert "GO" in capsys.readouterr().out


def test_a_long_run_of_an_on_policy_algorithm_needs_no_larger_buffer() -> None:
    steps = np.arange(2048, 100_001, 2048)
    x, noise = steps / 100_000, np.random.default_rng(0).normal(0, 1, steps.size)
    run = {"rollout/ep_rew_mean": (steps, 200 * x + 3 * noise), "train/std": (steps, 1 - 0.3 * x)}
    run |= {"train/approx_kl": (steps, 0.01 + 0.001 * noise), "train/value_loss": (steps, 20 - 10 * x)}
    run |= {"train/explained_variance": (steps, np.minimum(0.9, 2 * x)), "train/loss": (steps, 10 - 5 * x)}
    analysis = analysed(run)
    assert analysis.verdict is Verdict.GO
    assert "buffer" not in next_step(analysis).text


# ---- the unit of the axis, and near misses


def test_the_run_length_is_given_in_episodes_if_returns_are_logged_per_episode() -> None:
    episodes, updates = np.arange(400), np.arange(0, 40_000, 10)
    rng = np.random.default_rng(0)
    run = {
        "Episode/Reward": (episodes, np.minimum(episodes, 250.0) + rng.normal(0, 3, 400)),
        "Loss/Q1": (updates, 1 + rng.random(4000)),
    }
    analysis = analysed(run, axis="episodes")
    assert length_in_words(analysis) == "400 episodes, other tags up to step 39,990"
    assert "step" not in next_step(analysis).text.replace("steps", "")


def test_the_number_of_episodes_is_not_a_number_of_steps() -> None:
    lengths = {tags.EPISODE_LENGTH: (np.arange(100), np.full(100, 200.0))}
    assert length_in_words(analysed(lengths, axis="episodes")) == "100 episodes, 20,000 environment steps"
    three_returns = {**lengths, tags.EPISODE_REWARD: (np.arange(3), np.arange(3.0))}
    assert length_in_words(analysed(three_returns, axis="episodes")) == "100 episodes, 20,000 environment steps"
    for first in (0, 1):
        returns = {"Episode/Return": (np.arange(first, 300 + first), np.arange(300.0))}
        assert length_in_words(analysed(returns, axis="episodes")) == "300 episodes"
    assert length_in_words(analysed({"loss": (np.arange(1, 10), np.ones(9))}, axis="episodes")) == "9 episodes"


@pytest.mark.parametrize(
    ("axis", "best"),
    [
        ("epochs", "best near epoch 1,9"),
        ("updates", "best near update 1,9"),
        ("iterations", "best near iteration 1,9"),
        ("environment steps", "best near step 1,9"),
        ("episodes", "best near episode 1,9"),
        ("steps", "best near episode 1,9"),
    ],
)
def test_the_best_policy_has_the_unit_of_the_axis(axis: str, best: str) -> None:
    steps = np.arange(10, 2000, 10)
    returns = steps + np.random.default_rng(0).normal(0, 3, steps.size)
    analysis = analysed({"mean_return": (steps, returns)}, axis=axis)
    assert best in answers_line(analysis)
    found = best_policy(analysis)
    assert found is not None
    assert best.removeprefix("best near ").removeprefix("step ") in found.when()


def test_a_go_lists_a_partial_loss_of_returns_as_a_near_miss() -> None:
    run = healthy(last_step=10_000)
    run[tags.EVAL_DISTANCE] = (
        np.arange(1000, 10_001, 1000),
        np.array([10, 100, 400, 395, 405, 400, 402, 310, 312, 310]),
    )
    analysis = analysed(run)
    assert analysis.verdict is Verdict.GO
    (near,) = (told for told in near_misses(analysis) if "(learning)" in told)
    assert re.search(
        r"24% of the return gained up to the best point is lost again; a loss of 30% counts as a fall", near
    )


# ---- a whole run

CONF = """
Pendulum-v1:
  policy: MlpPolicy
  n_timesteps: 60
  learning_starts: 70
  buffer_size: 100
  callback:
    - sb3_visual_td3.callbacks.run_recorder.RunRecorderCallback
"""


def test_the_suggested_command_repeats_the_settings_of_the_run_and_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yml").write_text(CONF)
    assert main(["train", "--algo", "sac", "--env", "Pendulum-v1", "--conf-file", "mine.yml", "--verbose", "0"]) == 0
    assert main(["report", "logs/sac/Pendulum-v1_1", "--format", "json"]) == 3
    step = json.loads((tmp_path / "logs/sac/Pendulum-v1_1/report.json").read_text())["next_step"]
    assert step["text"].startswith("The run has 60 steps. No update is made in the first 70 steps (learning_starts).")
    (snippet,) = step["snippets"]
    command = snippet["text"]
    assert command == ("visual-td3 train --algo sac --env Pendulum-v1 --conf-file mine.yml -n 2000 --eval-freq 200")
    assert main(command.replace("-n 2000 --eval-freq 200", "-n 80 --eval-freq 40").split()[1:]) == 0


def test_a_validation_that_was_too_short_is_followed_by_a_longer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yml").write_text(CONF)
    monkeypatch.setattr(sys, "orig_argv", ["python", "visual-td3", "validate", "--algo", "sac"])
    command = ["validate", "--algo", "sac", "--env", "Pendulum-v1", "--conf-file", "mine.yml", "-n", "50"]
    assert main([*command, "--hyperparams", "gamma:0.9"]) == 3
    step = json.loads((tmp_path / "logs/sac/Pendulum-v1_1/report.json").read_text())["next_step"]
    (snippet,) = step["snippets"]
    assert snippet["text"] == (
        "visual-td3 validate --algo sac --env Pendulum-v1 --conf-file mine.yml --hyperparams gamma:0.9 -n 2000"
    )


# ---- at the command line


def test_the_error_for_a_file_that_is_not_a_log_names_the_expected_formats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a log\n")
    assert main(["report", str(path)]) == 2
    told = capsys.readouterr().err
    assert "notes.txt is not an event file" in told
    assert "expected an event file, progress.csv" in told
    assert "nothing to judge in 1 event file" not in told


def test_a_folder_with_progress_csv_alone_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = np.arange(1, 60) * 1000
    rows = "".join(f"{step},{step / 500:.1f}\n" for step in steps.tolist())
    (tmp_path / "progress.csv").write_text(f"time/total_timesteps,rollout/ep_rew_mean\n{rows}")
    assert main(["report", str(tmp_path), "--output", str(tmp_path)]) in {0, 3}
    assert "59,000 environment steps" in capsys.readouterr().out


def test_a_pipe_that_closes_early_causes_no_error(tmp_path: Path) -> None:
    write_events(healthy(), tmp_path / "run")
    command = f"'{sys.executable}' -m sb3_visual_td3 report run --format json | head -n 1"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


def test_each_suggested_criteria_file_relaxes_one_more_criterion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_events(leaking(), tmp_path / "run")
    relaxed = 0
    criteria: dict[str, Any] = {}
    for _ in range(20):
        main(["report", "run", "--format", "json", *(["--criteria", "mine.yml"] if criteria else [])])
        found = re.search(r"give --criteria a file with: (\{.*\})", capsys.readouterr().out)
        if found is None:
            break
        told = yaml.safe_load(found[1])
        criteria |= told["criteria"]
        (tmp_path / "mine.yml").write_text(yaml.safe_dump({"format_version": 1, "criteria": criteria}))
        relaxed += 1
    assert relaxed >= 1
    assert relaxed == len(criteria), "each line relaxes another criterion"
