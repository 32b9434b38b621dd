"""``visual-td3 sweep``: what it refuses, what it leaves behind, and two small sweeps on Ray."""

import json
import sys

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from sb3_visual_td3.cli import main
from sb3_visual_td3.zoo import sweep
from sb3_visual_td3.zoo.studies import SEEDS, open_storage, open_study
from sb3_visual_td3.zoo.sweep import keep_seeds, write_search
from tests.zoo import ending_callbacks

CALM = {
    "policy": "CnnPolicy",
    "n_timesteps": 120,
    "buffer_size": 200,
    "learning_starts": 40,
    "batch_size": 4,
    "callback": [
        "sb3_visual_td3.callbacks.run_recorder.RunRecorderCallback",
        {"sb3_visual_td3.callbacks.gradient_norm.GradientNormCallback": {"log_freq": 20, "sample_freq": 1}},
        "sb3_visual_td3.callbacks.explosion_alert.ExplosionAlertCallback",
    ],
}
ALARMED = {"sb3_visual_td3.callbacks.explosion_alert.ExplosionAlertCallback": {"warning": 1e-9, "critical": 1e-8}}


def write_conf(folder, block):
    path = folder / "conf.yml"
    path.write_text(yaml.safe_dump({"LiteDriving-v0": block}))
    return str(path)


def trials_of(storage, name):
    return optuna.load_study(study_name=name, storage=open_storage(str(storage), must_exist=True)).trials


@pytest.mark.ray
def test_seeds_are_trained_judged_and_stored(tmp_path, monkeypatch, capsys, no_ray):
    monkeypatch.chdir(tmp_path)
    conf = write_conf(tmp_path, CALM)
    assert main(["sweep", "--seeds", "3", "1", "--conf-file", conf, "--eval-freq", "-1"]) == 3  # too short to judge
    report = json.loads((tmp_path / "logs" / "report.json").read_text())
    assert [run["run"]["manifest"]["seed"] for run in report["runs"]] == [3, 1]
    trials = trials_of(tmp_path / "logs" / "sweep.log", "sweep")
    assert [trial.params["seed"] for trial in trials] == [3, 1]
    assert [trial.user_attrs["verdict"] for trial in trials] == ["INSUFFICIENT"] * 2
    assert (tmp_path / "logs" / "seed_1" / "visual_td3" / "LiteDriving-v0_1" / "LiteDriving-v0.zip").is_file()
    output = capsys.readouterr()
    lines = [line for line in output.out.splitlines() if line.startswith("INSUFFICIENT")]
    assert len(lines) == 4  # the report and a row of the table for each run
    assert output.err == ""


def test_a_training_that_crashes_is_no_usage_error(tmp_path, monkeypatch):
    conf = write_conf(tmp_path, {**CALM, "callback": "tests.zoo.ending_callbacks.EndsAt"})
    monkeypatch.setattr(ending_callbacks.EndsAt, "action", ending_callbacks.crash)
    monkeypatch.setattr(ending_callbacks.EndsAt, "step", 5)
    folder = tmp_path / "one"
    flags = ["--algo", "visual_td3", "--conf-file", conf, "-f", str(tmp_path / "logs"), "--no-doctor"]
    done = sweep.train_one([*flags, "--eval-freq", "-1"], str(folder))
    assert (done.code, done.problem) == (1, "the simulator is gone")
    assert done.run_dir is not None
    assert sweep.train_one([*flags, "--env", "NoSuchEnv-v0"], str(folder)).code == 2


@pytest.mark.ray
def test_a_critical_run_is_stopped_and_a_mistake_is_printed_once_for_each_seed(tmp_path, monkeypatch, capsys, ray_runs):
    monkeypatch.chdir(tmp_path)
    conf = write_conf(tmp_path, {**CALM, "n_timesteps": 2_000, "callback": [*CALM["callback"][:2], ALARMED]})
    main(["sweep", "--seeds", "0", "--conf-file", conf, "--eval-freq", "-1"])
    report = json.loads((tmp_path / "logs" / "report.json").read_text())
    assert report["run"]["n_steps"] < 200
    assert report["alerts"]["critical"] > 0
    assert main(["sweep", "--seeds", "0", "1", "-f", "other", "-params", "tau:many"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("visual-td3 sweep: seed ")]
    assert len(lines) == 2
    assert all("tau is the text 'many'" in line for line in lines)


def test_a_missing_environment_is_reported_once_before_ray_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "run_tasks", None)
    assert main(["sweep", "--seeds", "0", "1", "--env", "NoSuchEnv-v0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("visual-td3 sweep: --env NoSuchEnv-v0: no environment of this name")


@pytest.mark.ray
def test_workers_search_on_one_storage(tmp_path, monkeypatch, capsys, ray_runs):
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    flags = ["--n-trials", "2", "--workers", "2", "--study-name", "mine", "--n-evaluations", "1"]
    flags += ["--eval-episodes", "1", "--no-optim-plots", "-params", "batch_size:4"]
    assert main(["sweep", "-optimize", *flags, "--conf-file", write_conf(tmp_path, CALM), "-n", "60"]) in {0, 1}
    trials = trials_of(tmp_path / "logs" / "sweep.log", "mine")
    finished = [trial for trial in trials if trial.state in {TrialState.COMPLETE, TrialState.PRUNED}]
    assert len(finished) == 2
    table = (tmp_path / "logs" / "mine.md").read_text()
    assert table.count("| complete |") + table.count("| pruned |") == 2
    assert "Report: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "0", "--seed", "1"], "--seed is set by the sweep"),
        (["--seeds", "0", "--trial-id=1"], "--trial-id=1 is set by the sweep"),
        (["--seeds", "0", "0"], "--seeds 0 0: expected integers >= 0, each only once"),
        (["-optimize", "--n-trials", "0"], "--n-trials 0: expected an integer >= 1"),
        (["-optimize", "--workers", "0"], "--workers 0: expected an integer >= 1"),
        (["--seeds", "0", "--num-gpus", "-1"], "--num-gpus -1: expected a number >= 0"),
    ],
)
def test_a_usage_error_gives_a_one_line_message_and_leaves_no_files(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not list(tmp_path.iterdir())


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["sweep", "--seeds", "0"]) == 2
    assert "pip install 'ray>=2.40'" in capsys.readouterr().err


def judged(path, verdict, diagnoses=(), **metrics):
    return {
        "verdict": verdict,
        "diagnoses": [{"id": each} for each in diagnoses],
        "metrics": {tag.replace("__", "/"): {"last": value} for tag, value in metrics.items()},
        "run": {"path": str(path / "tb")},
    }


@pytest.mark.parametrize(
    ("study_name", "words"),
    [("of a search", "created for a hyperparameter search, not for runs"), ("of seeds", "flags -n 5, this search")],
)
def test_a_study_that_does_not_fit_is_refused_before_the_training(study_name, words, tmp_path, monkeypatch, capsys):
    storage = str(tmp_path / "sweep.log")
    open_study(open_storage(storage), "of a search", {"algo": "visual_td3"})
    open_study(open_storage(storage), "of seeds", {**SEEDS, "flags": "-n 5"})
    monkeypatch.setattr(sweep, "run_tasks", None)
    assert main(["sweep", "--seeds", "0", "-f", str(tmp_path), "--study-name", study_name, "-n", "6"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_an_sqlite_storage_may_be_in_a_log_folder_that_does_not_exist_yet(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(sweep, "run_tasks", lambda _, tasks, **__: calls.extend(tasks) or [])
    logs = tmp_path / "new" / "logs"
    main(["sweep", "--seeds", "0", "-f", str(logs), "--storage", f"sqlite:///{logs}/study.db"])
    assert len(calls) == 1


def test_the_report_of_an_earlier_sweep_is_not_taken_for_one_of_runs_without_logs(tmp_path, monkeypatch, capsys):
    run_dirs = [tmp_path / "seed_0" / f"run_{number}" for number in (1, 2)]
    for run_dir in run_dirs:
        run_dir.mkdir(parents=True)
    (tmp_path / "report.json").write_text(json.dumps(judged(run_dirs[0], "GO")))
    monkeypatch.setattr(sweep, "run", lambda settings, flags: sweep.Sweep({0: run_dirs[1]}, 0))
    assert main(["sweep", "--seeds", "0", "-f", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("visual-td3 report: ")
    assert not (tmp_path / "sweep.log").exists()


def test_a_no_go_seed_is_stored_as_pruned_with_its_cause(tmp_path):
    run_dirs = {seed: tmp_path / f"seed_{seed}" / "run" for seed in (4, 5, 6)}
    runs = [
        judged(run_dirs[6], "GO", eval__mean_reward=7.5, train__episode_reward=1.0),
        judged(run_dirs[4], "NO-GO", ["feature_leak", "short_warmup"], eval__mean_reward=9.0),
        judged(run_dirs[5], "GO", train__episode_reward=2.0),
    ]
    (tmp_path / "report.json").write_text(json.dumps({"runs": runs}))
    storage = tmp_path / "sweep.log"
    keep_seeds(str(storage), "mine", run_dirs, tmp_path / "report.json", ["-n", "5"])
    trials = trials_of(storage, "mine")
    assert [trial.params["seed"] for trial in trials] == [6, 4, 5]
    assert [trial.value for trial in trials] == [7.5, None, 2.0]
    assert trials[1].state is TrialState.PRUNED
    assert trials[1].user_attrs["diagnosis"] == "feature_leak"
    assert trials[1].user_attrs["run_dir"] == str(run_dirs[4])
    with pytest.raises(ValueError, match="their trials are not comparable"):
        keep_seeds(str(storage), "mine", run_dirs, tmp_path / "report.json", ["-n", "6"])


def test_the_table_of_a_search_has_the_best_trial_first_and_the_causes(tmp_path, capsys):
    storage = str(tmp_path / "sweep.log")
    study = optuna.create_study(storage=open_storage(storage), study_name="mine", direction="maximize")
    for value in (1.0, 3.0):
        study.tell(study.ask(), value)
    pruned = study.ask()
    pruned.set_user_attr("verdict", "NO-GO")
    pruned.set_user_attr("diagnosis", "feature_leak")
    study.tell(pruned, state=TrialState.PRUNED)
    assert write_search(storage, "mine", tmp_path) == 0
    rows = [line.split(" | ")[:5] for line in (tmp_path / "mine.md").read_text().splitlines()[4:]]
    assert rows == [
        ["| 1", "complete", "3", "nothing critical", "-"],
        ["| 0", "complete", "1", "nothing critical", "-"],
        ["| 2", "pruned", "-", "NO-GO", "feature_leak"],
    ]
    assert "3 trials: 2 complete, 1 NO-GO" in capsys.readouterr().out


def test_the_hyperparameter_file_of_the_best_trial_is_named_with_the_command(tmp_path, capsys):
    storage = str(tmp_path / "sweep.log")
    study = optuna.create_study(storage=open_storage(storage), study_name="mine", direction="maximize")
    for value in (1.0, 3.0):
        study.tell(study.ask(), value)
    (tmp_path / "visual_td3").mkdir()
    for name, trial in (("report_a", 0), ("report_b", 1), ("report_c", 11)):
        text = f"# trial {trial} of the study mine, 3.0 at 60 steps\nReach-v0:\n  gamma: 0.9\n"
        (tmp_path / "visual_td3" / f"{name}.yml").write_text(text)
    assert write_search(storage, "mine", tmp_path, ["reach"]) == 0
    best = tmp_path / "visual_td3" / "report_b.yml"
    assert (tmp_path / "mine.md").read_text().endswith(f"\nHyperparameter file of the best trial: `{best}`\n")
    expected = f"Train with it: visual-td3 train --env Reach-v0 --conf-file {best} --gym-packages reach"
    assert expected in capsys.readouterr().out.splitlines()


def test_a_search_whose_trials_are_all_no_go_is_no_go(tmp_path):
    storage = str(tmp_path / "sweep.log")
    study = optuna.create_study(storage=open_storage(storage), study_name="mine", direction="maximize")
    pruned = study.ask()
    pruned.set_user_attr("verdict", "NO-GO")
    study.tell(pruned, state=TrialState.PRUNED)
    assert write_search(storage, "mine", tmp_path) == 1
