"""The example workflows start the long job only after a GO, and use commands that exist."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sb3_visual_td3.report import command as report_command

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
WORKFLOW = yaml.safe_load((EXAMPLES / "github_actions_gate.yml").read_text())

SBATCH = """#!/usr/bin/env bash
n=$(($(cat "$SPOOL/n" 2>/dev/null || echo 100) + 1))
echo $n > "$SPOOL/n"
printf '%s\\0' "$@" > "$SPOOL/$n"
echo $n
"""


def commands_in(text: str) -> list[list[str]]:
    """Return every ``visual-td3`` command in a script, split into words."""
    return [shlex.split(line) for line in re.findall(r"visual-td3 (?:train|report|resume)[^\n;|>]*", text)]


def check_report(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    report_command.add_arguments(parser)
    return parser.parse_args(arguments)


def check_train(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let rl-zoo parse the arguments, and stop it before it trains."""
    from rl_zoo3 import train as zoo_train  # not imported above, because it patches gymnasium's TimeLimit

    class ReadError(Exception):
        pass

    def stop(*_: Any, **__: Any) -> None:
        raise ReadError

    monkeypatch.setattr(zoo_train, "set_random_seed", stop)
    monkeypatch.setattr(
        "sys.argv", ["train", "--algo", "td3", *[a for a in arguments if a not in ("--algo", "visual_td3")]]
    )
    with pytest.raises(ReadError):
        zoo_train.train()


def test_the_workflow_starts_the_long_run_only_after_a_go() -> None:
    jobs = WORKFLOW["jobs"]
    assert jobs["long-run"]["needs"] == "short-run"
    steps = jobs["short-run"]["steps"]
    judged = next(step for step in steps if "visual-td3 report" in step.get("run", ""))
    assert "continue-on-error" not in judged
    assert "--fail-on" not in judged["run"]
    assert "||" not in judged["run"]
    after = steps[steps.index(judged) + 1 :]
    assert all(step["if"] == "always()" for step in after), "the report must also be shown after a NO-GO"


def test_the_workflows_commands_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]
    called = [command for run in runs for command in commands_in(run)]
    assert [command[1] for command in called] == ["train", "report", "train"]
    for _, name, *arguments in called:
        if name == "report":
            assert check_report(arguments).output == Path("report")
        else:
            check_train(arguments, monkeypatch)


@pytest.fixture
def submit(tmp_path: Path) -> Callable[..., list[list[str]]]:
    """Return a function that runs ``slurm_gate.sh`` and returns the ``sbatch`` arguments of its three jobs."""

    def run(*arguments: str) -> list[list[str]]:
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "n").unlink(missing_ok=True)
        stub = tmp_path / "bin" / "sbatch"
        stub.write_text(SBATCH)
        stub.chmod(0o755)
        env = {**os.environ, "PATH": f"{stub.parent}:{os.environ['PATH']}", "SPOOL": str(tmp_path)}
        subprocess.run([EXAMPLES / "slurm_gate.sh", *arguments], check=True, env=env, capture_output=True, timeout=300)
        return [(tmp_path / str(n)).read_text().split("\0")[:-1] for n in (101, 102, 103)]

    return run


def test_slurm_holds_the_long_job_until_the_verdict_is_go(submit: Callable[..., list[list[str]]]) -> None:
    short, verdict, long = submit("LiteDriving-v0", "out")
    assert "--dependency=afterany:101" in verdict, "a short run that crashed must be judged as well"
    assert "--dependency=afterok:102" in long
    assert "--kill-on-invalid-dep=yes" in long
    assert not any(flag.startswith("--dependency") for flag in short)


def test_the_commands_of_the_slurm_scripts_are_accepted(
    submit: Callable[..., list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    short, verdict, long = (job[-1] for job in submit("LiteDriving-v0", "out"))
    ((_, _, *arguments),) = commands_in(short)
    check_train(arguments, monkeypatch)
    assert "--n-timesteps" in arguments
    ((_, _, *arguments),) = commands_in(verdict)
    (short_folder,) = check_report(arguments).paths
    assert short_folder.match("out/*/short")
    assert f"--log-folder {short_folder} " in short
    resumed, trained = commands_in(long)
    assert resumed[1:] == ["resume", "$run"]
    assert trained[trained.index("--log-folder") + 1] == str(short_folder.with_name("long"))
    check_train(trained[2:], monkeypatch)


def test_a_requeued_job_continues_from_its_snapshot(submit: Callable[..., list[list[str]]], tmp_path: Path) -> None:
    long = submit("LiteDriving-v0", str(tmp_path / "out"))[2][-1]
    stub = tmp_path / "bin" / "visual-td3"
    stub.write_text('#!/usr/bin/env bash\necho "$@"\n')
    stub.chmod(0o755)

    def started(job: str) -> list[str]:
        env = {**os.environ, "PATH": f"{stub.parent}:{os.environ['PATH']}"}
        return subprocess.run(["bash", "-c", job], check=True, env=env, capture_output=True, text=True).stdout.split()

    first = started(long)
    assert first[0] == "train"
    run_dir = Path(first[first.index("--log-folder") + 1]) / "visual_td3" / "LiteDriving-v0_1"
    assert run_dir.is_relative_to(tmp_path / "out")
    (run_dir / "snapshots").mkdir(parents=True)
    assert started(long) == ["resume", f"{run_dir}/"]

    again = submit("LiteDriving-v0", str(tmp_path / "out"))[2][-1]
    assert started(again)[0] == "train", "a new submission must not find the run of an earlier one"


@pytest.mark.parametrize("to_all", [False, True], ids=["SIGUSR1 to the shell", "SIGTERM to all processes"])
def test_a_job_at_its_time_limit_saves_a_snapshot_and_is_queued_again(
    submit: Callable[..., list[list[str]]], tmp_path: Path, to_all: bool
) -> None:
    *flags, _, long = submit("LiteDriving-v0", str(tmp_path / "out"))[2]
    assert {"--requeue", "--signal=B:USR1@60"} <= set(flags)
    # Other tests check how visual-td3 handles signals. Here, a small program replaces it.
    ours = "import signal, sys, time\n"
    ours += "for n in (signal.SIGUSR1, signal.SIGTERM): signal.signal(n, lambda *_: (time.sleep(0.3), sys.exit(75)))\n"
    ours += "open(sys.argv[1], 'w').close()\n"
    ours += "time.sleep(600)\n"
    stubs = {
        "visual-td3": "exec " + shlex.join([sys.executable, "-c", ours, str(tmp_path / "began")]),
        "scontrol": f'echo "$@" > {shlex.quote(str(tmp_path / "scontrol"))}',
    }
    for name, text in stubs.items():
        (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_JOB_ID": "42"}
    job = subprocess.Popen(["bash", "-c", long], env=env, start_new_session=True)
    try:
        while not (tmp_path / "began").exists():
            assert job.poll() is None
            time.sleep(0.01)
        if to_all:
            os.killpg(job.pid, signal.SIGTERM)
        else:
            job.send_signal(signal.SIGUSR1)
        assert job.wait(timeout=300) == 75
    finally:
        job.kill()
    assert (tmp_path / "scontrol").read_text().split() == ["requeue", "42"]


RUNS_AT_ONCE = """#!/usr/bin/env bash
# This sbatch runs a job before it returns. It cancels a job whose dependency has failed.
n=$(($(cat "$SPOOL/n" 2>/dev/null || echo 100) + 1))
echo $n > "$SPOOL/n"
echo $n
for flag in "$@"; do
  case $flag in
    --dependency=afterok:*) test "$(cat "$SPOOL/${flag##*:}.rc")" = 0 || { echo cancelled > "$SPOOL/$n.rc"; exit; } ;;
  esac
done
bash -c "${!#}" > "$SPOOL/$n.out" 2>&1
echo $? > "$SPOOL/$n.rc"
"""


@pytest.mark.slow
def test_a_short_run_without_a_verdict_keeps_the_long_run_from_starting(tmp_path: Path) -> None:
    """The unchanged example scripts call the real ``visual-td3`` for 120 steps, which are too few for a verdict.

    Only ``sbatch`` is replaced, by a script that runs each job immediately.
    """
    (tmp_path / "bin").mkdir()
    ours = f'#!/usr/bin/env bash\nexec {shlex.quote(sys.executable)} -m sb3_visual_td3 "$@"\n'
    for name, text in (("sbatch", RUNS_AT_ONCE), ("visual-td3", ours)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "SPOOL": str(tmp_path),
        "SHORT_STEPS": "120",
        "LONG_STEPS": "120",  # keeps the test short if the gate is broken
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }

    def call(*command: object) -> int:
        return subprocess.run([*map(str, command)], env=env, cwd=tmp_path, capture_output=True, check=False).returncode

    assert call(EXAMPLES / "slurm_gate.sh") == 0
    rcs = [(tmp_path / f"{n}.rc").read_text().strip() for n in (101, 102, 103)]
    assert rcs == ["0", "3", "cancelled"], (tmp_path / "101.out").read_text()
    (submitted,) = (tmp_path / "logs").iterdir()
    assert "INSUFFICIENT" in (submitted / "verdict" / "report.md").read_text()
    assert not (submitted / "long").exists()

    # The workflow judges the same logs. After a failed step, only steps with "if: always()" run.
    steps = [step["run"] for step in WORKFLOW["jobs"]["short-run"]["steps"] if "report" in step.get("run", "")]
    judged, summary = steps
    assert call("bash", "-e", "-c", judged) == 3
    assert call("bash", "-e", "-c", summary) == 0
    assert (tmp_path / "summary.md").read_text().startswith("# INSUFFICIENT")
