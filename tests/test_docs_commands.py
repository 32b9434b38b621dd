"""Every command and every Python snippet of README and documentation runs, or the tables below say why it does not.

Each page is run from top to bottom in a folder of its own, with the flags that the page shows. Flags that make a run
short are appended. A new command on a page is run without any change here.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import pytest
from stable_baselines3 import TD3
from stable_baselines3.common.env_util import make_vec_env

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.cli import main

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
SHELLS = ("bash", "console", "sh", "shell")

NOT_RUN = {
    r"git clone .*": "HOST/PATH stands for the repository's address",
    r"pip install .*": "installs packages from the network",
    r"make (validate|test)": "sets up a virtual environment; 'make validate' calls 'visual-td3 validate', which is run",
    r"visual-td3 push-to-hub .*": "uploads; tests/zoo/test_commands.py runs it with a hub of its own",
    r"visual-td3 train .*--track.*": "needs Weights & Biases",
    r"docker run .*": "needs Docker, a GPU and CARLA's image",
    r"tensorboard .*": "serves until it is stopped",
    r"visual-td3 carla-emulator.*": "serves until it is stopped; tests/envs/carla_emulator run it",
    r"visual-td3 demo --carla .*": "needs a CARLA server; tests/demo run it",
    r"python benchmarks/explosion_study\.py .*": "trains for ten minutes",
    r"visual-td3 (train|evaluate|validate) .*CarlaDriving-v0.*": "needs CARLA; tests/zoo/test_carla.py runs them",
    r"visual-td3 .* Town0[12]\.xodr.*|visual-td3 train .*'Town01\.xodr'.*": "needs CARLA's towns",
    r"visual-td3 sweep .*": "needs Ray; tests/zoo/test_sweep.py runs it",
    r"python benchmarks/(learning_study|drive_gif)\.py .*": "trains for an hour, or reads the result of that",
    r"visual-td3 report runs/(healthy|failed)": "the scripts above it log nothing before their first episode ends",
    r"python benchmarks/first_checklist\.py .*": "compares a complete run of 5,000 steps with the recorded studies",
}
"""Commands that are not run, as regular expressions, with the reason."""

SNIPPETS_NOT_RUN = {
    r".*model\.learn\(1_000_000, callback=\[\.\.\., .*": "a part of a call, with an ellipsis",
    r"(import|from) .*\b(carla|EmulatorProcess|CarlaDriving-v0|RayVecEnv)\b.*": "needs CARLA's client or Ray",
    r"env = gym\.make\(\"LiteDriving-v0\", maps=\[\"Town01.*": "needs a CARLA town, and a server",
    r"world = client\.load_world.*": "tests/envs/carla_emulator/test_served_maps.py makes the calls",
    r"writer\.add_scalar.*": "a part of a loop; tests/report/test_next_step.py runs it",
    r"from rl_zoo3 import train\n.*": "reads the command line of the script; tests/zoo/test_plugin.py runs it",
}
"""Python snippets that are not run, as regular expressions, with the reason."""

TESTED_ELSEWHERE = {"Common mistakes": "tests/test_docs.py compares each message"}
"""Headings of sections whose snippets have a test of their own."""

SHORTER = {
    "train": ["-n", "40", "--eval-episodes", "1"],
    "train -optimize": ["-n", "60", "--n-evaluations", "1", "--eval-episodes", "1", "--max-total-trials", "1"],
    "validate": ["-n", "40"],
    "enjoy": ["-n", "5", "--no-render"],
    "evaluate": ["-n", "1", "--n-envs", "1"],
    "record-video": ["-n", "5"],
    "report --watch": ["--interval", "0.1"],
    "demo": ["--seconds", "1"],
}
"""Flags that make a command short. They are appended, so they override the same flags of the command.

A key is the name of a command. If a flag follows the name, the entry is for commands with this flag only.
"""

RUN = "logs/visual_td3/LiteDriving-v0_1"
PLACEHOLDERS = {"RUN_DIR": RUN, "RUN_A": RUN, "RUN_B": "runs/SAC_3"}
VERDICTS = {0, 1, 3}
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Step(NamedTuple):
    """A command or a Python snippet of a documentation page."""

    is_python: bool
    text: str


def steps_of(page: str) -> list[Step]:
    """Return the commands and snippets of a page, from top to bottom, without those of sections tested elsewhere."""
    text = (ROOT / page).read_text()
    for heading in TESTED_ELSEWHERE:
        text = text.partition(f"\n## {heading}\n")[0]
    steps = []
    for language, block in _BLOCK.findall(text):
        if language == "python":
            steps.append(Step(True, block))
        elif language == "console":  # the other lines are output
            steps += [Step(False, line[2:]) for line in block.splitlines() if line.startswith("$ ")]
        elif language in SHELLS:
            steps += [Step(False, line) for line in block.splitlines() if line.strip()]
    return steps


def reason_not_to_run(step: Step) -> str | None:
    """Return the pattern in the tables that matches a step; None if the step has to be run."""
    table = SNIPPETS_NOT_RUN if step.is_python else NOT_RUN
    text = step.text if step.is_python else " ".join(shlex.split(step.text, comments=True))
    return next((pattern for pattern in table if re.match(pattern, text, re.DOTALL)), None)


STEPS = {page: [step for step in steps_of(page) if reason_not_to_run(step) is None] for page in PAGES}
# Commands that README shares with the quickstart run only with the quickstart.
STEPS["README.md"] = [step for step in STEPS["README.md"] if step not in STEPS["docs/quickstart.md"]]


def with_short_flags(words: list[str]) -> list[str]:
    """Return the arguments of ``visual-td3`` with the flags that make the command short."""
    for name, flags in sorted(SHORTER.items(), key=lambda item: -len(item[0])):
        command, _, needed = name.partition(" ")
        if words[0] == command and (not needed or needed in words):
            return [*words, *flags]
    return words


def run_commands(text: str) -> None:
    """Run the commands of a page's line in the current folder, and check their exit codes.

    After ``&&``, a shell runs a command only if the previous one succeeded. Here both run.
    """
    for command in text.split(" && "):
        run_command(command)


def run_command(text: str) -> None:
    """Run a command of a page in the current folder, and check its exit code."""
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(text, comments=True)]
    if re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # an environment variable
        name, _, value = words.pop(0).partition("=")
        os.environ[name] = value
    program, *arguments = words
    if program == "python":
        done = subprocess.run([sys.executable, ROOT / arguments[0], *arguments[1:]], check=False)
        assert done.returncode == 0, text
        return
    assert program == "visual-td3", f"add a reason to NOT_RUN, or a way to run it: {text}"
    expected = VERDICTS if arguments[0] in {"report", "validate"} else {0}
    assert main(with_short_flags(arguments)) in expected, text


def shortened(code: str) -> str:
    """Return a snippet whose trainings are short, and whose batches and replay buffers are small."""
    code = re.sub(r"\.learn\(\s*[\d_]+", ".learn(40", code)
    sizes = "buffer_size|batch_size|learning_starts"
    code = re.sub(rf"(, ({sizes})=[\d_]+|\"({sizes})\": [\d_]+, )", "", code)
    small = "batch_size=8, learning_starts=20, buffer_size=200"
    return re.sub(r"\b((?:VisualTD3|TD3|SAC)\([^()]*)\)", rf"\1, {small})", code)


@pytest.fixture(scope="module")
def folder_of_the_pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the files and the run that the pages need."""
    folder = tmp_path_factory.mktemp("pages")
    own = dict(
        reversed([(name, text) for name, text in _BLOCK.findall((ROOT / "docs/own_environment.md").read_text())])
    )
    for name in ("mycam.py", "my_package.py"):
        (folder / name).write_text(own["python"])
    (folder / "mine.yml").write_text(own["yaml"])
    (folder / "mine_sac.yml").write_text(own["yaml"])
    wrapper = next(text for name, text in _BLOCK.findall((ROOT / "docs/own_reward.md").read_text()) if name == "python")
    (folder / "my_wrappers.py").write_text(wrapper)
    (folder / "h.yml").write_text("tau: 0.005\n")
    (folder / "names.yml").write_text("Loss/qf1: train/critic_1_loss\n")
    (folder / "progress.csv").write_text("time/total_timesteps,rollout/ep_rew_mean\n100,1.0\n200,2.0\n")
    notify = folder / "notify.sh"
    notify.write_text('#!/bin/sh\ntest -n "$VISUAL_TD3_VERDICT"\n')
    notify.chmod(0o755)
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["train", "--env", "LiteDriving-v0", *SHORTER["train"]]) == 0
        TD3("CnnPolicy", make_vec_env("LiteDriving-v0"), buffer_size=20).save("td3_model")
        VisualTD3("CnnPolicy", make_vec_env("LiteDriving-v0"), preset="td3", buffer_size=20).save("visual_model")
    finally:
        os.chdir(before)
    for name in ("SAC_3", "a", "sac"):
        shutil.copytree(folder / RUN, folder / "runs" / name)
    return folder


@pytest.fixture
def in_a_copy(folder_of_the_pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Copy the pages' folder, make the copy the current folder, and undo what the page changes in this process."""
    folder = tmp_path / "copy"
    shutil.copytree(folder_of_the_pages, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    yield
    gym.registry.pop("MyCamera-v0", None)
    for module in ("mycam", "my_package", "my_wrappers"):
        sys.modules.pop(module, None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("in_a_copy")
@pytest.mark.parametrize("page", [page for page in PAGES if STEPS[page]])
def test_everything_that_a_page_shows_runs_in_its_order(page: str) -> None:
    names: dict[str, Any] = {"gym": gym, "TD3": TD3, "VisualTD3": VisualTD3, "env": make_vec_env("LiteDriving-v0")}
    for step in STEPS[page]:
        if step.is_python:
            exec(shortened(step.text), names)
        else:
            run_commands(step.text)


def test_the_reasons_not_to_run_something_are_still_needed() -> None:
    used = {reason_not_to_run(step) for page in PAGES for step in steps_of(page)}
    assert {*NOT_RUN, *SNIPPETS_NOT_RUN} - used == set()
    for heading in TESTED_ELSEWHERE:
        assert any(f"\n## {heading}\n" in (ROOT / page).read_text() for page in PAGES)


def test_text_blocks_hold_no_commands_and_console_blocks_start_with_a_prompt() -> None:
    for page in PAGES:
        if page == "docs/validation_report.md":  # a report, written by the program
            continue
        for language, block in _BLOCK.findall((ROOT / page).read_text()):
            lines = block.splitlines()
            if language == "console":
                assert lines[0].startswith("$ "), page
            elif language in {"", "text"}:
                assert [line for line in lines if re.match(r"(\$ |visual-td3 |python |pip |make )", line)] == [], page


def test_most_commands_are_run() -> None:
    commands = [step for page in PAGES for step in STEPS[page] if not step.is_python]
    assert len(commands) >= 20
    assert {"train", "report", "resume", "evaluate", "validate", "enjoy", "record-video"} <= {
        word for step in commands for word in shlex.split(step.text, comments=True)
    }
