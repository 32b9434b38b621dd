import os
import subprocess
import sys

import pytest
from tensorboard.compat.proto import event_pb2, summary_pb2

import sb3_visual_td3
from sb3_visual_td3 import cli
from sb3_visual_td3.cli import COMMANDS, main
from sb3_visual_td3.zoo import mistakes
from sb3_visual_td3.zoo.commands import ZOO_COMMANDS

from .report.growing_runs import frame


def visual_td3(*arguments, cwd=None):
    command = [sys.executable, "-m", "sb3_visual_td3", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_help_names_every_command_and_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name} " in text
        assert command.help in text
    assert "0 GO, 1 NO-GO" in text


def test_no_arguments_print_the_help(capsys):
    assert main([]) == 0
    without = capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    assert without == capsys.readouterr().out


def test_help_lists_each_command_once_under_a_heading(capsys):
    main([])
    blocks = [block.splitlines() for block in capsys.readouterr().out.split("\n\n")]
    listed = {
        block[0].removesuffix(":"): [line.split()[0] for line in block[1:]]
        for block in blocks
        if block[0].removesuffix(":") in {command.group for command in COMMANDS.values()}
    }
    assert listed["rl-zoo: plots (extra: plots)"] == ["plot-train", "all-plots", "plot-from-file"]
    assert sorted(name for names in listed.values() for name in names) == sorted(COMMANDS)


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert sb3_visual_td3.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["drive"],
        ["report"],
        ["resume"],
        ["sweep"],
        ["validate", "--n-timesteps", "0"],
        ["validate", "--n-timesteps", "many"],
        ["evaluate", "--n-episodes", "0"],
    ],
)
def test_invalid_arguments_give_an_error_message_and_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "visual-td3" in capsys.readouterr().err


def test_a_missing_run_gives_a_one_line_error_and_exit_code_2(tmp_path):
    result = visual_td3("report", str(tmp_path / "nowhere"), cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "nowhere" in result.stderr


def test_an_unknown_environment_gives_an_error_without_traceback_and_exit_code_2(tmp_path):
    result = visual_td3("train", "--env", "LiteDriving-v9", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("visual-td3 train: --env LiteDriving-v9: no environment")
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_the_report_imports_no_torch(tmp_path):
    code = (
        "import sys\n"
        "from sb3_visual_td3.cli import main\n"
        f"code = main(['report', {str(tmp_path / 'nowhere')!r}])\n"
        "print(code, 'torch' in sys.modules, 'stable_baselines3' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["2", "False", "False"]


@pytest.mark.parametrize("command", [["--help"], ["report", "run"], ["report", "run", "nowhere", "--watch"]])
def test_a_command_ends_without_an_error_message_if_its_output_pipe_is_closed(tmp_path, command):
    write_run(tmp_path / "run")
    read_end, write_end = os.pipe()
    os.close(read_end)
    command_line = [sys.executable, "-m", "sb3_visual_td3", *command]
    ended = subprocess.run(
        command_line, stdout=write_end, stderr=subprocess.PIPE, text=True, cwd=tmp_path, timeout=300, check=False
    )
    os.close(write_end)
    waiting = "visual-td3 report: waiting: nowhere: no such file or folder\n"
    assert ended.stderr.replace(waiting, "") == ""
    # Nothing is read, but the exit code tells that the verdict is INSUFFICIENT (3) or that a path holds no run (2).
    assert ended.returncode == {"--help": 0, "run": 3, "--watch": 2}[command[-1]]


def write_run(folder):
    folder.mkdir()
    point = summary_pb2.Summary.Value(tag="train/critic_loss", simple_value=1.0)
    event = event_pb2.Event(wall_time=1.0, step=1, summary=summary_pb2.Summary(value=[point]))
    (folder / "events.out.tfevents.1").write_bytes(frame(event.SerializeToString()))


def test_a_broken_pipe_to_a_worker_is_reported(monkeypatch, capsys):
    monkeypatch.setattr(mistakes, "reader_is_gone", lambda: False)
    assert mistakes.complain("train", BrokenPipeError(32, "Broken pipe")) == 2
    assert "Broken pipe" in capsys.readouterr().err
    monkeypatch.setattr(mistakes, "reader_is_gone", lambda: True)
    with pytest.raises(BrokenPipeError):
        mistakes.complain("train", BrokenPipeError(32, "Broken pipe"))


def test_a_command_whose_output_is_not_read_has_the_exit_code_of_sigpipe(monkeypatch):
    def refuse(_arguments):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setitem(COMMANDS, "enjoy", COMMANDS["enjoy"]._replace(run=refuse))
    monkeypatch.setattr(cli, "reader_is_gone", lambda: True)
    assert main(["enjoy"]) == 141
    monkeypatch.setattr(cli, "reader_is_gone", lambda: False)
    with pytest.raises(BrokenPipeError):
        main(["enjoy"])


OUR_COMMANDS = [command for command in COMMANDS if command != "train" and command not in ZOO_COMMANDS]
HEAVY = {"torch", "stable_baselines3", "rl_zoo3", "optuna", "matplotlib", "sqlalchemy", "tensorboard", "pandas"}


@pytest.mark.parametrize(
    ("command", "libraries"),
    [
        ("--help", {"torch", "stable_baselines3", "rl_zoo3", "plotly", "optuna", "pandas", "matplotlib", "yaml"}),
        ("report --help", {"torch", "stable_baselines3", "rl_zoo3", "plotly", "optuna", "pandas", "matplotlib"}),
        *((f"{command} --help", HEAVY) for command in OUR_COMMANDS if command != "report"),
        ("train --help", {"sqlalchemy", "ray", "moviepy", "seaborn"}),
        ("plot-train --help", {"rl_zoo3.train", "optuna", "sqlalchemy", "plotly"}),
        ("all-plots --help", {"torch", "stable_baselines3", "rl_zoo3", "optuna", "sqlalchemy", "plotly"}),
    ],
)
def test_a_command_does_not_import_what_its_help_does_not_need(command, libraries):
    code = (
        "import sys\n"
        "from sb3_visual_td3.cli import main\n"
        f"try:\n    main({command.split()!r})\n"
        "except SystemExit:\n    pass\n"
        f"print(sorted({libraries!r} & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout
    assert result.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "command",
    [
        "evaluate --n-episodes 0",
        "resume",
        "sweep --seeds many",
        "validate --n-timesteps 0",
        # rl-zoo parses some of the doctor's flags, and report reads event files.
        *(f"{command} RUN_DIR --no-such-flag" for command in OUR_COMMANDS if command not in {"doctor", "report"}),
    ],
)
def test_a_usage_error_imports_nothing_heavy(command):
    code = (
        "import sys\n"
        "from sb3_visual_td3.cli import main\n"
        f"try:\n    main({command.split()!r})\n"
        "except SystemExit as end:\n"
        f"    print(end.code, sorted({HEAVY!r} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "2 []\n"
    assert "error: " in result.stderr
