import subprocess
import sys

import pytest

import sb3_visual_td3
from sb3_visual_td3.cli import COMMANDS, main


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


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert sb3_visual_td3.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [[], ["drive"], ["report"], ["validate", "--n-timesteps", "0"], ["validate", "--n-timesteps", "many"]]
)
def test_bad_usage_is_one_message_and_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "visual-td3" in capsys.readouterr().err


def test_a_missing_run_is_one_line_and_exit_code_2(tmp_path):
    result = visual_td3("report", str(tmp_path / "nowhere"), cwd=tmp_path)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "nowhere" in result.stderr


def test_an_environment_that_does_not_exist_is_one_line_and_exit_code_2(tmp_path):
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
