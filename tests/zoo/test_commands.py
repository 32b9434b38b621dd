"""Test rl-zoo's commands with VisualTD3, end to end on short runs."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import rl_zoo3
import yaml
from rl_zoo3.utils import ALGOS
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import load_results
from stable_baselines3.common.vec_env import VecNormalize

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.cli import COMMANDS
from sb3_visual_td3.cli import main as visual_td3
from sb3_visual_td3.common.installation import install_command
from sb3_visual_td3.zoo import commands
from sb3_visual_td3.zoo.plugin import RunResult, register
from sb3_visual_td3.zoo.train import train

ROOT = Path(__file__).resolve().parents[2]
ENV = "LiteDriving-v0"
N_STEPS = 20
"""Maximum number of steps in an episode."""

CONF = """
LiteDriving-v0:
  policy: CnnPolicy
  n_timesteps: 120
  env_kwargs: {max_episode_steps: 20, image_size: 64}
  normalize: {norm_obs: false, norm_reward: true}
  buffer_size: 1000000
  learning_starts: 100
  batch_size: 4
  callback:
    - sb3_visual_td3.callbacks.driving_eval.DrivingEvalCallback: {eval_freq: 1000, n_eval_episodes: 2}
"""


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Train two runs of 120 steps, and return their log folder."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "short.yml").write_text(CONF)
    for seed in (1, 2):
        arguments = ["-conf", folder / "short.yml", "-f", folder / "logs", "--seed", seed, "--verbose", 0]
        arguments += ["--eval-freq", 60, "--save-freq", 60, "--save-replay-buffer"]
        train([str(argument) for argument in arguments])
    return folder / "logs"


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def model_of(logs, number=2):
    return VisualTD3.load(logs / "visual_td3" / f"{ENV}_{number}" / f"{ENV}.zip", device="cpu", buffer_size=1)


@pytest.mark.parametrize("command", [*commands.ZOO_COMMANDS, "train", "evaluate"])
def test_the_help_of_a_command_begins_with_its_name(command, capsys):
    with pytest.raises(SystemExit) as end:
        visual_td3([command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: visual-td3 {command} ")
    assert command in COMMANDS


def test_one_entry_in_zoo_commands_adds_a_command(monkeypatch, capsys):
    seen = []
    entry = commands.ZooCommand("say what was asked", "group", lambda: seen.append(sys.argv[1:]), ("--env", ENV))
    monkeypatch.setitem(commands.ZOO_COMMANDS, "say", entry)
    assert commands.run_zoo_command("say", ["--env", "mine"]) == 0
    assert seen == [["--env", ENV, "--env", "mine"]], "the user's flags come last, so that they win"


def test_train_returns_the_run_dir_and_how_the_run_ended(in_folder):
    (in_folder / "short.yml").write_text(CONF)
    arguments = ["-conf", "short.yml", "-n", "2", "--eval-freq", "-1", "--verbose", "0"]
    results = [train([*arguments, "-f", folder]) for folder in ("a", "b")]
    assert [each.run_dir for each in results] == [Path(f"{folder}/visual_td3/{ENV}_1") for folder in ("a", "b")]
    assert [(each.has_started, each.end) for each in results] == [(True, "finished")] * 2
    refused = RunResult()
    with pytest.raises(ValueError, match="random_shift"):
        train([*arguments, "-f", "c", "-params", "random_shift:-4"], result=refused)
    assert (refused.has_started, refused.end) == (False, None)


def test_the_flags_of_rl_zoo_win_over_the_hyperparameter_file(logs):
    run_dir = logs / "visual_td3" / f"{ENV}_1"
    evaluations = np.load(run_dir / "evaluations.npz")
    assert evaluations["timesteps"].tolist() == [60, 120]
    assert evaluations["results"].shape == evaluations["ep_lengths"].shape == evaluations["successes"].shape == (2, 2)
    assert {path.name for path in run_dir.glob("rl_model_*")} == {
        f"rl_model_{kind}{step}_steps.{suffix}"
        for step in (60, 120)
        for kind, suffix in (("", "zip"), ("replay_buffer_", "pkl"), ("vecnormalize_", "pkl"))
    }


def test_the_evaluation_sees_what_training_sees(logs):
    """rl-zoo's own evaluation would ignore the ``env_kwargs`` of the hyperparameter file."""
    lengths = np.load(logs / "visual_td3" / f"{ENV}_1" / "evaluations.npz")["ep_lengths"]
    assert lengths.max() == N_STEPS


def test_enjoy_shows_what_evaluate_policy_finds(logs, capsys):
    model = model_of(logs)
    env = make_vec_env(ENV, 1, seed=5, env_kwargs={"max_episode_steps": N_STEPS, "image_size": 64})
    rewards, lengths = evaluate_policy(model, env, n_eval_episodes=10, return_episode_rewards=True)
    n_seen = int((np.cumsum(lengths) <= 3 * N_STEPS).sum())
    arguments = ["--seed", "5", "-n", str(3 * N_STEPS), "--no-render", "--exp-id", "2", "--device", "cpu"]
    assert visual_td3(["enjoy", "-f", str(logs), *arguments]) == 0
    text = capsys.readouterr().out
    (mean,) = re.findall(r"Mean reward: (\S+)", text)
    assert f"{n_seen} Episodes" in text
    assert float(mean) == pytest.approx(np.mean(rewards[:n_seen]), abs=0.006)


@pytest.mark.parametrize(
    ("flags", "file"),
    [
        (["--load-last-checkpoint"], "rl_model_120_steps.zip"),
        (["--load-checkpoint", "60"], "rl_model_60_steps.zip"),
        (["--load-best", "-P"], "best_model.zip"),
    ],
)
def test_enjoy_loads_the_requested_model(logs, flags, file, capsys):
    assert visual_td3(["enjoy", "-f", str(logs), "--no-render", "-n", "2", *flags]) == 0
    assert f"Loading {logs}/visual_td3/{ENV}_2/{file}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "n_steps"), [(["--load-checkpoint", "120"], 120), (["--load-last-checkpoint"], 120), ([], 60)]
)
@pytest.mark.parametrize("command", ["enjoy", "record-video", "evaluate"])
def test_a_checkpoint_is_shown_with_the_vecnormalize_of_its_step(logs, command, flags, n_steps, tmp_path, monkeypatch):
    if command == "record-video":
        pytest.importorskip("moviepy")
    run_dir = tmp_path / "visual_td3" / f"{ENV}_1"
    shutil.copytree(logs / "visual_td3" / f"{ENV}_1", run_dir)
    # The run ended at step 120, so its final VecNormalize is that of step 120. Another one shows which file is loaded.
    shutil.copy(run_dir / "rl_model_vecnormalize_60_steps.pkl", run_dir / ENV / "vecnormalize.pkl")
    counts = []
    load = VecNormalize.load

    def spy(path, env):
        normalizer = load(path, env)
        counts.append(round(normalizer.ret_rms.count))
        return normalizer

    monkeypatch.setattr(VecNormalize, "load", spy)
    of_command = {
        "enjoy": ["--no-render"],
        "record-video": ["-o", str(tmp_path)],
        "evaluate": ["--maps", "held_out_0"],
    }
    assert visual_td3([command, "-f", str(tmp_path), "-n", "1", *of_command[command], *flags]) == 0
    assert counts == [n_steps]


def test_enjoy_opens_a_window_without_a_screen(logs, monkeypatch):
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    assert visual_td3(["enjoy", "-f", str(logs), "-n", "3"]) == 0


@pytest.mark.parametrize("preset", ["td3", "visual"])
def test_a_model_that_is_only_watched_allocates_no_replay_buffer(tmp_path, preset):
    kwargs = {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "preset": preset}
    model = VisualTD3("CnnPolicy", ENV, buffer_size=10, **kwargs)
    model.buffer_size = 10_000_000  # as in a long run; Stable-Baselines3's buffer would need 565 GB
    model.save(tmp_path / "a.zip")
    register()
    from rl_zoo3.enjoy import ALGOS as OF_ENJOY

    loaded = OF_ENJOY["visual_td3"].load(tmp_path / "a.zip", device="cpu", custom_objects={"learning_rate": 0.0})
    assert type(loaded) is VisualTD3
    assert loaded.replay_buffer.buffer_size == 1
    assert ALGOS["visual_td3"] is VisualTD3
    assert set(OF_ENJOY) == set(ALGOS)


def test_record_video_films_frames_that_differ(logs, tmp_path):
    pytest.importorskip("moviepy")
    arguments = ["-n", "25", "-o", str(tmp_path), "--exp-id", "1"]
    assert visual_td3(["record-video", "-f", str(logs), *arguments]) == 0
    (video,) = tmp_path.glob("*.mp4")
    assert video.name == f"final-model-visual_td3-{ENV}-step-0-to-step-25.mp4"
    frames, film = [], cv2.VideoCapture(str(video))
    while (read := film.read())[0]:
        frames.append(read[1].astype(int))
    assert len(frames) == 26
    assert frames[0].shape == (480, 640, 3)
    assert np.abs(frames[0] - frames[15]).max() > 50
    assert rl_zoo3.ALGOS is rl_zoo3.utils.ALGOS is ALGOS, "the edits hold for this command alone"


def n_frames_in(video):
    film, n_frames = cv2.VideoCapture(str(video)), 0
    while film.read()[0]:
        n_frames += 1
    return n_frames


def test_record_training_joins_one_video_of_each_checkpoint_and_saved_model(logs, in_folder, monkeypatch):
    pytest.importorskip("moviepy")
    called = []

    def call(command):
        called.append(command)
        assert command[:4] == [sys.executable, "-m", "sb3_visual_td3", "record-video"]
        return visual_td3(command[3:])

    monkeypatch.setattr(subprocess, "call", call)
    assert visual_td3(["record-training", "-f", str(logs), "--exp-id", "1", "-n", "5", "-o", "film", "--gif"]) == 0
    assert len(called) == 4, "of a checkpoint there are three files"
    parts = sorted(path.name for path in Path("film").glob("*step-0-to-step-5.mp4"))
    assert [name.split(f"-visual_td3-{ENV}")[0] for name in parts] == [
        "best-model", "checkpoint-120", "checkpoint-60", "final-model",
    ]  # fmt: skip
    assert n_frames_in(Path("film/training.mp4")) == sum(n_frames_in(Path("film") / name) for name in parts) > 4 * 5
    assert Path("film/training.gif").stat().st_size > 5_000
    assert subprocess.call is call
    assert {path.suffix for path in Path("film").iterdir()} == {".mp4", ".gif"}


@pytest.mark.parametrize(
    ("flags", "words"),
    [(["-o", "mine"], "mine holds thesis.tex"), (["--exp-id", "-1", "-o", "film"], "training.mp4 was not made")],
)
def test_record_training_deletes_only_films_and_reports_if_it_made_none(
    logs, in_folder, flags, words, monkeypatch, capfd
):
    pytest.importorskip("moviepy")
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("all of it")
    assert visual_td3(["record-training", "-f", str(logs), "-n", "5", *flags]) == 2
    assert words in capfd.readouterr().err
    assert Path("mine/thesis.tex").read_text() == "all of it"


@pytest.fixture
def figures(monkeypatch):
    """Collect the number of curves of each figure that a plotting command shows."""
    pytest.importorskip("seaborn")
    from matplotlib import pyplot as plt

    plt.switch_backend("agg")
    shown = []
    close = plt.close

    def note(what=None):
        shown.extend(len(plt.figure(n).axes[0].get_lines()) for n in plt.get_fignums() if plt.figure(n).axes)
        close(what)

    monkeypatch.setattr(commands, "close_figures", lambda: note("all"))
    return shown


def test_plot_train_draws_a_curve_for_each_run(logs, figures, in_folder, capsys):
    assert visual_td3(["plot-train", "-f", str(logs), "-w", "3"]) == 0
    assert figures == [2]
    assert (in_folder / "plot-train-1.png").stat().st_size > 5_000
    assert str(in_folder / "plot-train-1.png") in capsys.readouterr().out


def test_plot_train_draws_runs_of_fewer_episodes_than_its_window(logs, figures, in_folder, capsys):
    assert visual_td3(["plot-train", "-f", str(logs)]) == 0
    assert figures == [2]
    assert "-w sets another number" in capsys.readouterr().out
    assert visual_td3(["plot-train", "-f", str(logs), "--episode-window", "100"]) == 2
    assert "nothing to plot" in capsys.readouterr().err


def test_enjoy_without_a_display_says_so_before_anything_is_loaded(monkeypatch, capsys):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(commands, "command_line", None)  # all code after the check would fail
    assert visual_td3(["enjoy", "-f", "nowhere"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "there is no display" in line
    assert "visual-td3 record-video" in line


def test_plot_from_file_shows_a_single_run(logs, figures, in_folder):
    run = f"visual_td3/{ENV}_1"
    shutil.copytree(logs / run, in_folder / "one" / run)
    assert visual_td3(["all-plots", "-f", "one", "-o", "results"]) == 0
    assert visual_td3(["plot-from-file", "-i", "results.pkl"]) == 0
    assert len(list(in_folder.glob("plot-from-file-*.png"))) == 2


def test_all_plots_and_plot_from_file_show_the_evaluations(logs, figures, in_folder, capsys):
    pytest.importorskip("rliable")
    assert visual_td3(["all-plots", "-f", str(logs), "--no-million", "-o", "results"]) == 0
    assert figures == [1]
    last = [np.load(logs / "visual_td3" / f"{ENV}_{n}" / "evaluations.npz")["results"][-1].mean() for n in (1, 2)]
    assert f"|{np.mean(last):.0f} +/- " in capsys.readouterr().out
    with open("results.pkl", "rb") as file:
        (results,) = pickle.load(file)[ENV].values()
    assert sorted(results["last_evals"]) == pytest.approx(sorted(last))
    assert visual_td3(["plot-from-file", "-i", "results.pkl", "-l", "ours", "--boxplot"]) == 0
    assert len(figures) > 1
    assert sorted(path.name for path in in_folder.glob("plot-from-file-*.png"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plot-train", "-f", "nowhere"], "nowhere/visual_td3"),
        (["all-plots", "-f", "nowhere"], "nothing to plot"),
        (["plot-from-file", "-i", "nowhere.pkl"], "nowhere.pkl"),
        (["enjoy", "-f", "nowhere"], "there is no run of LiteDriving-v0 below nowhere/visual_td3"),
        (["enjoy", "--algo", "visual_td4"], "argument --algo: invalid choice: 'visual_td4'"),
        (["enjoy", "--env", "Pendulum-v1"], "there is no run of Pendulum-v1 below logs/visual_td3"),
        (["record-video", "-f", "nowhere"], "there is no run of LiteDriving-v0 below nowhere/visual_td3"),
        (["record-training", "-f", "nowhere"], "The nowhere/visual_td3 folder was not found"),
        (["push-to-hub", "-f", "nowhere", "-orga", "me"], "there is no run of LiteDriving-v0 below nowhere/visual_td3"),
        (["push-to-hub"], "-orga"),
        (["benchmark", "--no-hub", "--log-dir", "nowhere"], "nowhere"),
        (["evaluate", "-f", "nowhere"], "there is no run of LiteDriving-v0 below nowhere/visual_td3"),
        (["evaluate", "nowhere"], "nowhere is not the folder of one run"),
        (["load-from-hub"], "TRUST_REMOTE_CODE"),
        (["train", "--env", "CarlaDriving-v9"], "Did you mean CarlaDriving-v0?"),
        (["train", "-params", "learning_rate:lin_ten"], "lin_ten"),
        (["train", "-params", "learning_rate=1e-3"], "-params learning_rate=1e-3: expected KEY:VALUE"),
        (["train", "--eval-env-kwargs", "maps:"], "--eval-env-kwargs maps:: there is no value"),
        (["train", "-params", "policy_kwargs:1/0"], "'1/0' cannot be evaluated: division by zero"),
        (["train", "--algo", "visual_td4"], "argument --algo: invalid choice: 'visual_td4'"),
        (["train", "-params", "batch_sise:3"], "there is no hyperparameter 'batch_sise'; did you mean 'batch_size'?"),
        (["train", "-params", "seed:3"], "'seed' is set by a flag"),
        (["train", "-params", "batch_size:many"], "batch_size is the text 'many', expected a number"),
        (["train", "-params", "tau:'1e-3'"], "(YAML reads 1e-3 as text): write 1.0e-3"),
        (["train", "-params", "random_shift:-4"], "random_shift"),
        (["train", "-params", "noise_type:'foo'", "noise_std:0.1"], 'Unknown noise type "foo"'),
        (
            ["train", "-n", "9", "-params", "callback:'rl_zoo3.callbacks.ParallelTrainCallback'"],
            "ParallelTrainCallback works only with sac and tqc",
        ),
        (
            ["train", "--env", "Pendulum-v1", "-params", "normalize:True", "frame_stack:2"],
            "Make VecNormalize the outermost wrapper",
        ),
        (["train", "--env", "Pendulum-v1", "--track"], "pip install wandb"),
        (["train", "-conf", "nowhere.yml"], "nowhere.yml"),
        (["train", "-i", "nowhere.zip"], "--trained-agent nowhere.zip: there is no such file"),
        (["train", "--env-kwargs", "colour:1"], "colour"),
        (["train", "--seed", "4294967296"], "--seed 4294967296: expected an integer <= 4294967295"),
        (["enjoy", "--seed", "99999999999999999999"], "--seed 99999999999999999999"),
    ],
)
def test_a_usage_error_gives_a_one_line_message_and_leaves_no_files(arguments, words, in_folder, capsys, monkeypatch):
    monkeypatch.delenv("TRUST_REMOTE_CODE", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert visual_td3(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"visual-td3 {arguments[0]}: ")
    assert words in line
    assert list(in_folder.iterdir()) == []


def test_a_run_that_cannot_be_set_up_leaves_other_runs_alone(logs, capsys):
    before = sorted(path for path in logs.rglob("*"))
    assert visual_td3(["train", "-f", str(logs), "-params", "random_shift:-4"]) == 2
    assert sorted(path for path in logs.rglob("*")) == before
    assert "random_shift" in capsys.readouterr().err


def test_an_invalid_hyperparameter_file_gives_a_one_line_error(in_folder, capsys):
    Path("a.yml").write_text("LiteDriving-v0: {policy: [")
    assert visual_td3(["train", "-conf", "a.yml"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    Path("a.yml").write_text("LiteDriving-v0: {policy: CnnPolicy}")
    assert visual_td3(["train", "-conf", "a.yml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "n_timesteps is missing" in line


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [
        (["record-video"], "moviepy", "video"),
        (["record-training"], "moviepy", "video"),
        (["plot-train"], "seaborn", "plots"),
        (["all-plots"], "matplotlib", "plots"),
        (["plot-from-file", "-i", "a.pkl"], "rliable", "plots"),
        (["benchmark", "--no-hub"], "pandas", "plots"),
    ],
)
def test_a_missing_package_names_the_extra(command, module, extra, monkeypatch, capsys, in_folder):
    monkeypatch.setitem(sys.modules, module, None)
    assert visual_td3(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"needs {module}" in line
    assert f"the extra {extra}, {install_command(extra)}" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["load-from-hub"], "connection"),
        (["push-to-hub", "-orga", "me", "--no-render"], "offline"),
        (["benchmark"], "offline"),
    ],
)
def test_an_unreachable_hugging_face_hub_gives_a_one_line_error(arguments, words, logs, in_folder, monkeypatch, capsys):
    monkeypatch.setenv("TRUST_REMOTE_CODE", "True")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    where = {"load-from-hub": [], "push-to-hub": ["-f", str(logs)], "benchmark": ["--log-dir", str(logs)]}
    assert visual_td3([*arguments, *where[arguments[0]]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert list(in_folder.iterdir()) == []


class FakeHub:
    """Imitate the Hugging Face hub with a local folder."""

    def __init__(self, folder):
        self.folder = folder

    def create_repo(self, repo_id, **kwargs):
        (self.folder / repo_id).mkdir(parents=True)
        return f"https://hub/{repo_id}"

    def snapshot_download(self, repo_id, local_dir):
        Path(local_dir).mkdir(parents=True)

    def upload_folder(self, repo_id, folder_path, **kwargs):
        for path in Path(folder_path).iterdir():
            if path.is_file():
                (self.folder / repo_id / path.name).write_bytes(path.read_bytes())

    def fetch(self, repo_id, filename):
        from huggingface_hub.errors import EntryNotFoundError

        if not (self.folder / repo_id / filename).is_file():
            raise EntryNotFoundError(filename)
        return str(self.folder / repo_id / filename)


def test_an_agent_is_uploaded_to_the_hub_and_downloaded_again(logs, in_folder, monkeypatch, capsys):
    hub = FakeHub(in_folder / "hub_of_others")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    monkeypatch.setattr("huggingface_sb3.load_from_hub", hub.fetch)
    run_dir = logs / "visual_td3" / f"{ENV}_2"
    assert visual_td3(["report", str(run_dir), "--output", str(run_dir)]) == 3
    assert visual_td3(["push-to-hub", "-f", str(logs), "-orga", "me", "--no-render"]) == 0
    page = (hub.folder / "me" / f"visual_td3-{ENV}" / "README.md").read_text()
    assert "# **VisualTD3** Agent playing **LiteDriving-v0**" in page
    assert f"visual-td3 enjoy --algo visual_td3 --env {ENV}" in page
    assert "rl_zoo3." not in page
    assert "pip install sb3-visual-td3" not in page
    assert "Verdict of `visual-td3 report`: **INSUFFICIENT** ([report](report.md))" in page
    assert "Return of the last evaluation: " in page
    assert ", at step 120" in page
    assert (hub.folder / "me" / f"visual_td3-{ENV}" / "report.html").is_file()
    assert yaml.safe_load(page.split("---")[1])["model-index"][0]["name"] == "VisualTD3"
    assert visual_td3(["load-from-hub", "-orga", "me", "-f", "fetched"]) == 0
    run_dir = in_folder / "fetched" / "visual_td3" / f"{ENV}_1"
    assert len(load_results(run_dir)) == len(load_results(logs / "visual_td3" / f"{ENV}_2"))
    mine, theirs = model_of(logs), model_of(in_folder / "fetched", 1)
    for one, other in zip(mine.policy.parameters(), theirs.policy.parameters(), strict=True):
        assert np.array_equal(one.detach(), other.detach())
    # rl-zoo continues without a VecNormalize file, even if the package requests is not installed.
    (hub.folder / "me" / f"visual_td3-{ENV}" / "vec_normalize.pkl").unlink()
    capsys.readouterr()
    assert visual_td3(["load-from-hub", "-orga", "me", "-f", "fetched"]) == 0
    assert "No normalization file" in capsys.readouterr().out


def test_benchmark_shows_agents_with_our_command_from_any_folder(logs, in_folder, monkeypatch, capsys):
    called = []

    def call(command):
        called.append(command)
        assert command[:4] == [sys.executable, "-m", "sb3_visual_td3", "enjoy"]
        return visual_td3(command[3:])

    monkeypatch.setattr(subprocess, "call", call)
    arguments = ["-n", "60", "--no-hub", "--test-mode", "--num-threads", "1", "--benchmark-dir", "results"]
    assert visual_td3(["benchmark", "--log-dir", str(logs), *arguments]) == 0
    assert len(called) == 1
    table = (in_folder / "results" / "benchmark.md").read_text()
    (row,) = [line for line in table.splitlines() if "visual_td3" in line]
    rewards = load_results(in_folder / "results" / f"visual_td3-{ENV}").r
    assert len(rewards) >= 60 // N_STEPS
    assert f"{rewards.mean():.3f}"[:5] in row
    assert subprocess.call is call


def test_evaluate_finds_what_evaluate_policy_finds(logs, tmp_path, capsys):
    output = tmp_path / "evaluation.json"
    arguments = ["-n", "2", "--seeds", "7", "--maps", "held_out_1", "--output", str(output), "--device", "cpu"]
    assert visual_td3(["evaluate", str(logs / "visual_td3" / f"{ENV}_2"), *arguments]) == 0
    found = json.loads(output.read_text())
    kwargs = {"max_episode_steps": N_STEPS, "image_size": 64, "maps": ["held_out_1"]}
    rewards, lengths = evaluate_policy(
        model_of(logs), make_vec_env(ENV, 2, seed=7, env_kwargs=kwargs), 2, return_episode_rewards=True
    )
    mine = found["results"]["policy"]["held_out_1"]
    assert mine["return"]["mean"] == pytest.approx(np.mean(rewards), abs=1e-4)
    assert mine["length"]["mean"] == np.mean(lengths)
    each = sorted(drive["reward"] for drive in found["episodes"]["policy"]["held_out_1"])
    assert each == pytest.approx(sorted(rewards), abs=1e-4)
    assert set(found["results"]) == {"policy", "random", "full brake"}
    assert set(found["results"]["policy"]) == {"held_out_1", "all"}
    shown = capsys.readouterr().out
    assert f"{np.mean(rewards):.1f} [" in shown
    assert "collisions/km" in shown


def test_more_environments_at_once_drive_the_same_episodes(logs, tmp_path):
    found = []
    for n_envs in ("1", "2"):
        output = tmp_path / f"{n_envs}.json"
        arguments = ["-n", "2", "--n-envs", n_envs, "--maps", "held_out_0", "train_1", "--output", str(output)]
        assert visual_td3(["evaluate", "-f", str(logs), "--load-best", *arguments]) == 0
        found.append(json.loads(output.read_text()))
    assert found[0]["maps"] == ["held_out_0", "train_1"]
    for name in found[0]["maps"]:
        one, other = (each["episodes"]["full brake"][name] for each in found)
        assert one == other
        assert len({drive["distance_m"] for drive in one}) == 2


def test_evaluate_compares_with_a_random_policy_where_there_are_no_maps(in_folder, capsys):
    arguments = ["--env", "Pendulum-v1", "-n", "20", "--verbose", "0", "--eval-freq", "-1"]
    assert visual_td3(["train", *arguments, "-params", "callback:None"]) == 0
    assert visual_td3(["evaluate", "--env", "Pendulum-v1", "-n", "3", "--output", "found.json"]) == 0
    assert "std of the return" in capsys.readouterr().out
    found = json.loads((in_folder / "found.json").read_text())
    assert (found["maps"], found["seeds"]) == ([], [1_000_000])
    rewards = [episode["reward"] for episode in found["episodes"]["random"]["all"]]
    assert len(rewards) == len(set(rewards)) == 3
    interval = found["results"]["random"]["all"]
    assert interval["return"]["mean"] == pytest.approx(np.mean(rewards))
    assert interval["return_std"]["mean"] == pytest.approx(np.std(rewards))
    capsys.readouterr()
    assert visual_td3(["evaluate", "--env", "Pendulum-v1", "--maps", "train"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Pendulum-v1 has no maps" in line


def test_the_i_flag_continues_training_with_new_n_envs_gamma_and_n_steps(logs, tmp_path):
    run_dir = logs / "visual_td3" / f"{ENV}_2"
    arguments = ["-conf", logs.parent / "short.yml", "-f", tmp_path, "--seed", 3, "--verbose", 0, "-n", 30]
    asked = ["-params", "n_envs:2", "gamma:0.9", "n_steps:2", "--save-replay-buffer"]
    more = train([str(a) for a in [*arguments, "-i", run_dir / f"{ENV}.zip", "--eval-freq", -1, *asked]]).run_dir
    with open(more / "replay_buffer.pkl", "rb") as file:
        buffer = pickle.load(file)
    assert (buffer.n_envs, buffer.gamma, buffer.n_steps) == (2, 0.9, 2)
    assert buffer.size() * 2 >= 140
    model = model_of(tmp_path, 1)
    assert (model.n_envs, model.gamma, model.n_steps) == (2, 0.9, 2)


def test_the_i_flag_continues_training_with_the_saved_replay_buffer_and_vecnormalize(logs, tmp_path, capsys):
    run_dir = logs / "visual_td3" / f"{ENV}_2"
    arguments = ["-conf", logs.parent / "short.yml", "-f", tmp_path, "--seed", 3, "--verbose", 0, "-n", 30]
    more = train(
        [str(a) for a in [*arguments, "-i", run_dir / f"{ENV}.zip", "--eval-freq", -1, "--save-replay-buffer"]]
    ).run_dir
    assert "Continuing from step 120, with its replay buffer" in capsys.readouterr().out
    model = model_of(tmp_path, 1)
    assert model.num_timesteps == 150
    assert model._n_updates == 20 + 30
    with open(more / "replay_buffer.pkl", "rb") as file:
        buffer = pickle.load(file)
    assert buffer.size() >= 148  # 150 steps were made
    with open(more / ENV / "vecnormalize.pkl", "rb") as file:
        assert pickle.load(file).ret_rms.count == pytest.approx(150, abs=1)


@pytest.mark.parametrize("with_replay", [True, False])
def test_the_i_flag_continues_from_a_checkpoint_with_the_files_saved_beside_it(logs, tmp_path, with_replay, capsys):
    source = tmp_path / "source"
    source.mkdir()
    for path in (logs / "visual_td3" / f"{ENV}_1").glob("rl_model_*60_steps*"):
        if with_replay or "replay" not in path.name:
            (source / path.name).write_bytes(path.read_bytes())
    arguments = ["-conf", logs.parent / "short.yml", "-f", tmp_path, "--seed", 3, "--verbose", 0, "-n", 60]
    more = train([str(a) for a in [*arguments, "-i", source / "rl_model_60_steps.zip", "--eval-freq", -1]]).run_dir
    said = "with its replay buffer" if with_replay else "without a replay buffer: warm-up first"
    assert f"Continuing from step 60, {said}" in capsys.readouterr().out
    model = model_of(tmp_path, 1)
    assert model.num_timesteps == 120
    # The warm-up has 100 steps. Without replay it starts again at step 60, so it is not over at step 120.
    assert model._n_updates == (20 if with_replay else 0)
    with open(more / ENV / "vecnormalize.pkl", "rb") as file:
        assert pickle.load(file).ret_rms.count == pytest.approx(120, abs=1)


def test_the_users_own_script_needs_four_lines(logs, capsys, monkeypatch):
    script = "from sb3_visual_td3.zoo import register\nregister()\nfrom rl_zoo3.enjoy import enjoy\nenjoy()\n"
    arguments = ["--algo", "visual_td3", "--env", ENV, "-f", str(logs), "--no-render", "-n", str(N_STEPS)]
    monkeypatch.setattr(sys, "argv", ["mine.py", *arguments])
    exec(compile(script, "mine.py", "exec"), {"__name__": "__main__"})
    assert "Mean reward" in capsys.readouterr().out


@pytest.mark.slow
def test_the_simulator_steps_while_the_learner_trains_if_the_file_says_so(tmp_path):
    conf = {ENV: {**yaml.safe_load(CONF)[ENV], "overlap": True, "n_envs": 2, "callback": None}}
    (tmp_path / "overlap.yml").write_text(yaml.safe_dump(conf))
    arguments = ["-conf", tmp_path / "overlap.yml", "-f", tmp_path, "--eval-freq", -1, "--vec-env"]
    assert visual_td3(["train", *map(str, arguments), "dummy"]) == 2, "a simulator in this process cannot"
    assert not (tmp_path / "visual_td3").exists()
    run_dir = train([*map(str, arguments), "subproc"]).run_dir
    model = VisualTD3.load(run_dir / f"{ENV}.zip", device="cpu", buffer_size=1)
    assert model.overlap
    assert model._n_updates == 10


@pytest.mark.slow
def test_load_from_hub_without_network_prints_only_one_error_line_in_a_subprocess(tmp_path):
    """The user must not see runpy's warning that ``rl_zoo3.load_from_hub`` is already imported."""
    environment = {**os.environ, "TRUST_REMOTE_CODE": "True", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "sb3_visual_td3", "load-from-hub", "-orga", "nobody", "-f", str(tmp_path)]
    ended = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("visual-td3 load-from-hub: ")


@pytest.mark.slow
def test_train_py_saves_a_model_that_enjoy_py_can_run(tmp_path):
    train_command = f"train.py --algo visual_td3 --env {ENV} -n 60 -f {tmp_path} --eval-freq 60 --eval-episodes 1"
    settings = ["-params", "learning_starts:50", "batch_size:4"]
    subprocess.run([sys.executable, *train_command.split(), *settings], cwd=ROOT, check=True, timeout=900)
    assert (tmp_path / "visual_td3" / f"{ENV}_1" / f"{ENV}.zip").is_file()
    enjoy_command = f"enjoy.py --algo visual_td3 --env {ENV} -n 30 -f {tmp_path} --no-render"
    subprocess.run([sys.executable, *enjoy_command.split()], cwd=ROOT, check=True, timeout=900)
