"""Test that progress and status lines appear on a terminal, and never in a pipe."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tensorboard.compat.proto import event_pb2, summary_pb2

from sb3_visual_td3.report import command

from .growing_runs import append, frame, hear_ctrl_c, points_of, scalars
from .synthetic_runs import healthy

ROOT = Path(__file__).resolve().parents[2]


class OnTerminal:
    """Run a report whose stderr is a terminal and whose stdout is a pipe."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sb3_visual_td3", "report", "--format", "json", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "120"},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=theirs,
            preexec_fn=hear_ctrl_c,  # noqa: PLW1509  no threads yet
        )
        os.close(theirs)
        self.seen = ""

    def see(self, is_enough: Callable[[str], bool], timeout_s: float = 300.0) -> str:
        """Return the text on the terminal as soon as ``is_enough`` accepts it, or when the process ends."""
        end = time.monotonic() + timeout_s
        while not is_enough(self.seen) and (left := end - time.monotonic()) > 0:
            if not select.select([self._ours], [], [], left)[0]:
                break
            try:
                self.seen += os.read(self._ours, 65536).decode()
            except OSError:  # the process has closed the terminal
                break
        return self.seen

    def end(self) -> str:
        """Wait until the process ends, and return its stdout."""
        self.see(lambda _: False)
        out, _ = self.process.communicate(timeout=300)
        os.close(self._ours)
        return out.decode()


def test_the_progress_of_a_large_run_is_shown_on_the_terminal(tmp_path: Path) -> None:
    image = summary_pb2.Summary.Image(encoded_image_string=b"x" * command.PROGRESS_FROM_BYTES)
    picture = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag="picture", image=image)])
    content = frame(event_pb2.Event(step=1, summary=picture).SerializeToString())
    append(tmp_path / "run" / "tfevents.1", content + scalars(points_of(healthy())))
    report = OnTerminal(tmp_path, "run")
    out = report.end()
    assert report.process.returncode == 0
    for part in ("Reading logs", "Judging", "Writing reports"):
        assert part in report.seen
    assert out.startswith("GO  run")
    assert "\x1b" not in out


def test_a_small_run_shows_no_progress_bar(tmp_path: Path) -> None:
    append(tmp_path / "run" / "tfevents.1", scalars(points_of(healthy())))
    report = OnTerminal(tmp_path, "run")
    assert report.end().startswith("GO  run")
    assert report.seen == ""


def test_watch_writes_its_status_line_to_the_terminal_and_not_to_the_pipe(tmp_path: Path) -> None:
    append(tmp_path / "run" / "tfevents.1", scalars(points_of(healthy(), last=3000)))
    report = OnTerminal(tmp_path, "run", "--watch", "--interval", "0.1")
    try:
        assert "Watching run · step 3,000 · GO · Ctrl-C ends" in report.see(lambda seen: "step 3,000" in seen)
        append(tmp_path / "run" / "tfevents.1", scalars(points_of(healthy(), after=3000)))
        assert "step 5,0" in report.see(lambda seen: "step 5,0" in seen)
        report.process.send_signal(signal.SIGINT)
        out = report.end()
    finally:
        report.process.kill()
    assert report.process.returncode == 0
    assert "no verdict -> GO: every blocking criterion holds so far" in out
    assert "\x1b" not in out
    assert "Watching" not in out


def test_watching_and_csv_do_not_import_training_code(tmp_path: Path) -> None:
    append(tmp_path / "run" / "tfevents.1", scalars(points_of(healthy())))
    code = (
        "import sys\n"
        "from sb3_visual_td3.report import command, watch\n"
        "from sb3_visual_td3.cli import main\n"
        "def stop(_): raise KeyboardInterrupt\n"
        "watch.watch.__defaults__ = (stop, ())\n"
        "code = main(['report', 'run', '--watch', '--format', 'md,html,json,csv', '--output', 'out'])\n"
        "heavy = {'torch', 'stable_baselines3', 'sb3_contrib', 'rl_zoo3', 'tensorflow', 'pandas', 'cv2', 'ray'}\n"
        "sys.exit(f'imported {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 10 + code)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 10, done.stderr
