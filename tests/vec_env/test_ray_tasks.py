"""Whole pieces of work as Ray tasks."""

import os
from pathlib import Path

import pytest

from sb3_visual_td3.vec_env.ray_session import run_tasks

pytestmark = pytest.mark.ray


def work(name, sign):
    if name == "wrong":
        raise ValueError("no such town")
    path = Path(sign)
    if name == "dies once" and not path.exists():
        path.touch()
        os._exit(1)
    if name == "dies":
        os._exit(1)
    return name, os.getpid(), os.getcwd()


def test_each_call_has_a_process_and_its_end_is_told(ray_runs, tmp_path):
    names = ["a", "wrong", "dies once", "dies", "b"]
    ended = dict(run_tasks(work, [(name, str(tmp_path / "sign")) for name in names], num_cpus=0.5))
    assert sorted(ended) == [0, 1, 2, 3, 4]
    assert [ended[index][0] for index in (0, 2, 4)] == ["a", "dies once", "b"]
    assert len({ended[index][1] for index in (0, 2, 4)} | {os.getpid()}) == 4
    assert ended[0][2] == os.getcwd()
    assert isinstance(ended[1], ValueError)
    assert str(ended[1]) == "no such town"
    assert type(ended[3]).__name__ == "WorkerCrashedError"


def test_what_no_machine_has_is_said(ray_runs):
    with pytest.raises(ValueError, match="each run needs GPU 64, but the whole cluster has 0"):
        list(run_tasks(work, [("a", "")], num_gpus=64))
