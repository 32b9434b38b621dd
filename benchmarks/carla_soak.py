"""Does a training run on CARLA survive its simulator? VisualTD3 fills its replay buffer while servers hang and die.

The environment starts the simulator, `visual-td3 carla-emulator`. At regular intervals the benchmark makes the
simulator die or hang forever, alternately. Requirements at the end:

- every step belongs to an episode
- the environment has noticed every fault except possibly the last one
- no invalid transition is in the replay buffer
- threads, file descriptors and memory of the training process have grown by at most 5 % since the first tenth of the
  steps. If that tenth ends before the replay buffer is full (2,000 steps), growth is measured from the full buffer on

    python benchmarks/carla_soak.py                                 100,000 steps, a fault every 2,000
    python benchmarks/carla_soak.py --steps 5000 --every 500        a short one
    python benchmarks/carla_soak.py --kill-for 300                  SIGKILL every 1 to 3 s for five minutes

With `--kill-for`, VisualTD3 trains while a separate process kills the simulator at any moment: while the simulator
starts, while the environment connects, or while the car drives. Every fifth kill hits the simulator's watchdog instead,
which is the process that ends the simulator when the training process disappears. Requirements at the end:

- the training has ended normally
- no invalid transition is stored
- all processes that the training started have ended, and their ports are free
- no temporary file is left, and no lock file that reserves a port

Each run adds one entry to benchmarks/results/carla_soak.json. The exit code is 0 if all requirements hold, else 1.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import time
import uuid
from collections import Counter
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.common.types import INVALID_TRANSITION
from sb3_visual_td3.envs.carla.backend import CarlaBackend
from sb3_visual_td3.envs.carla.connection import Connection
from sb3_visual_td3.envs.carla.server import Server
from sb3_visual_td3.envs.carla_emulator.process import EmulatorControl

RESULTS = Path(__file__).parent / "results" / "carla_soak.json"
COMMAND = f"{sys.executable} -m sb3_visual_td3.envs.carla_emulator --port {{port}}"
N_STORED = 2_000
ALLOWED_GROWTH = 1.05


def resources() -> dict[str, float]:
    """Return the threads, file descriptors and memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as memory:
        pages = int(memory.read().split()[1])
    return {
        "threads": len(os.listdir("/proc/self/task")),
        "file_descriptors": len(os.listdir("/proc/self/fd")),
        "rss_mb": pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
    }


class Saboteur(BaseCallback):
    """Make the simulator fail at regular intervals, and record what happens.

    :param every: steps between two faults
    :param measure_at: the step at which resources are measured for the first time
    """

    def __init__(self, every: int, measure_at: int) -> None:
        super().__init__()
        self.every, self.measure_at = every, measure_at
        self.n_episodes = self.n_invalid = self.n_faults = self.n_steps_of_episodes = self._length = 0
        self.early: dict[str, float] = {}

    def _on_step(self) -> bool:
        info = self.locals["infos"][0]
        self._length += 1
        self.n_invalid += bool(info.get(INVALID_TRANSITION))
        if self.locals["dones"][0]:
            self.n_episodes += 1
            self.n_steps_of_episodes += self._length
            self._length = 0
        if self.num_timesteps == self.measure_at:
            self.early = resources()
        if self.num_timesteps % self.every == 0:
            (_, port), *_ = self.training_env.get_attr("server_address")
            # Deaths and hangs alternate, beginning with a death.
            EmulatorControl(port).fault(("die", "hang")[self.n_faults % 2])
            self.n_faults += 1
        return True


def soak(n_steps: int, every: int, port: int, seed: int) -> dict[str, Any]:
    """Train through faults, and return what happened and whether every requirement holds."""
    kwargs = {"command": COMMAND, "port": port, "timeout_s": 1.0, "n_cars": 4}
    env = make_vec_env("CarlaDriving-v0", 1, seed=seed, env_kwargs=kwargs)
    model = VisualTD3("CnnPolicy", env, buffer_size=N_STORED, learning_starts=n_steps + 1, seed=seed, verbose=0)
    # Resources are first measured when the replay buffer is full, because until then its memory grows.
    saboteur = Saboteur(every, max(N_STORED + 1, n_steps // 10))
    begin_s = time.monotonic()
    model.learn(n_steps, saboteur)
    wall_s = time.monotonic() - begin_s
    late = resources()
    assert model.replay_buffer is not None
    n_valid = n_steps - saboteur.n_invalid
    n_failures = env.get_attr("n_simulator_failures")[0]
    env.close()
    grown = {name: late[name] / saboteur.early[name] for name in late}
    return {
        "steps": n_steps,
        "fault_every": every,
        "seed": seed,
        "faults": saboteur.n_faults,
        "failures_seen": n_failures,
        "episodes": saboteur.n_episodes,
        "steps_of_episodes": saboteur.n_steps_of_episodes,
        "steps_of_the_last": saboteur._length,
        "invalid_steps": saboteur.n_invalid,
        "only_valid_steps_are_stored": model.replay_buffer.pos == n_valid % N_STORED,
        "early": saboteur.early,
        "late": late,
        "steps_per_s": n_steps / wall_s,
        # Every step belongs to an episode. A fault in the last steps may not have been noticed yet.
        "is_fine": saboteur.n_steps_of_episodes + saboteur._length == n_steps
        and saboteur.n_invalid >= saboteur.n_faults - 1
        and model.replay_buffer.pos == n_valid % N_STORED
        and max(grown.values()) <= ALLOWED_GROWTH,
    }


PHASES = ("driving", "starting and handshake", "connecting", "building the world")
MARK = "SB3_VISUAL_TD3_SOAK"
NOT_OURS = ("SB3-", "torchinductor_")
"""Folders that Stable-Baselines3's logger and torch create among the temporary files and do not remove."""


def processes_with(mark: str) -> dict[int, str]:
    """Return the command lines of the marked processes except this one, by process id.

    :param mark: the value of the environment variable ``SB3_VISUAL_TD3_SOAK`` in the marked processes
    """
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                # Children inherit the environment, so the variable marks all descendants, orphans included.
                if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
    return found


def kill_repeatedly(mark: str, for_s: float, seed: int, phase: Synchronized, results: Any) -> None:
    """Kill the simulator or its watchdog every 1 to 3 s, and record in ``results`` what was killed in which phase."""
    rng, end_s, kills = random.Random(seed), time.monotonic() + for_s, Counter[str]()
    while time.monotonic() < end_s:
        time.sleep(rng.uniform(1.0, 3.0))
        found = processes_with(mark)
        watchdogs = {pid: words for pid, words in found.items() if "watchdog.py" in words}
        simulators = [pid for pid, words in found.items() if "carla_emulator" in words and pid not in watchdogs]
        what, victims = "simulator", simulators
        if sum(kills.values()) % 5 == 4:
            # A watchdog forks a guard process, which has the same command line (``watchdog.Guard``). The watchdog is
            # older, so it has the smaller process id.
            what, victims = "watchdog", sorted(watchdogs)[:1]
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            kills[f"{what}, {PHASES[phase.value]}"] += 1
    results.put(dict(kills))


def track_phases(phase: Synchronized) -> None:
    """Keep ``phase`` up to date with what the environment is doing."""

    def within(number: int, owner: type, name: str) -> None:
        original = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            before, phase.value = phase.value, number
            try:
                return original(*args, **kwargs)
            finally:
                phase.value = before

        setattr(owner, name, wrapped)

    within(1, Server, "ensure")
    within(2, Connection, "__init__")
    within(3, CarlaBackend, "_populate")


class StepCounter(BaseCallback):
    """Count steps, and end the training ``n_more`` valid steps after the ``killer`` process has ended.

    A step is invalid if the simulator failed in it: ``info["invalid_transition"]`` is then True.

    :param killer: the process that kills simulators and their watchdogs
    :param n_more: number of valid steps
    """

    def __init__(self, killer: Any, n_more: int) -> None:
        super().__init__()
        self.killer, self.n_left = killer, n_more
        self.n_valid = self.n_invalid = self.n_episodes = 0

    def _on_step(self) -> bool:
        is_invalid = bool(self.locals["infos"][0].get(INVALID_TRANSITION))
        self.n_invalid += is_invalid
        self.n_valid += not is_invalid
        self.n_episodes += bool(self.locals["dones"][0])
        self.n_left -= not is_invalid and not self.killer.is_alive()
        return self.n_left > 0


def is_free(port: int) -> bool:
    """Return whether a server could listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def kill_soak(kill_for_s: float, port: int, seed: int) -> dict[str, Any]:
    """Train under SIGKILLs, and return what happened and whether every requirement holds."""
    mark = uuid.uuid4().hex
    context = multiprocessing.get_context("spawn")
    phase, results = context.Value("i", 0), context.Queue()
    with tempfile.TemporaryDirectory(prefix="carla_soak_") as folder:
        # All temporary files of this process and its children go here, so that leftovers can be counted at the end.
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        killer = context.Process(target=kill_repeatedly, args=(mark, kill_for_s, seed, phase, results))
        killer.start()  # before the mark is set, so that it does not count as a descendant
        os.environ[MARK] = mark
        track_phases(phase)
        kwargs = {"command": COMMAND, "port": port, "timeout_s": 1.0, "n_cars": 4}
        env = make_vec_env("CarlaDriving-v0", 1, seed=seed, env_kwargs=kwargs)
        model = VisualTD3(
            "CnnPolicy", env, buffer_size=100_000, learning_starts=200, batch_size=32, train_freq=4, seed=seed
        )
        counter = StepCounter(killer, 200)
        buffer: Any = model.replay_buffer
        n_stored_invalid, add = 0, buffer.add

        def add_and_count(*args: Any, **kwargs: Any) -> None:
            nonlocal n_stored_invalid
            before = buffer.size()
            add(*args, **kwargs)
            n_stored_invalid += bool(args[-1][0].get(INVALID_TRANSITION)) and buffer.size() > before

        # Count invalid transitions where they would enter the buffer, because its arrays do not show them.
        buffer.add = add_and_count
        begin_s = time.monotonic()
        model.learn(10_000_000, counter)
        wall_s = time.monotonic() - begin_s
        kills = results.get()
        killer.join()
        n_failures = env.get_attr("n_simulator_failures")[0]
        env.close()
        n_stored = int(buffer.size())
        # A killed process is visible until the kernel has removed it.
        gone_s = time.monotonic() + 5.0
        while processes_with(mark) and time.monotonic() < gone_s:
            time.sleep(0.1)
        left = {
            "processes": len(processes_with(mark)),
            "ports": sum(not is_free(port + offset) for offset in range(16)),
            "leases": sum(1 for path in Path(folder).rglob("*.lock")),
            "temporary files": sum(1 for path in Path(folder).iterdir() if not path.name.startswith(NOT_OURS)),
        }
        tempfile.tempdir = None
        del os.environ["TMPDIR"], os.environ[MARK]
    return {
        "kill_for_s": kill_for_s,
        "seed": seed,
        "kills": sum(kills.values()),
        "kills_by_phase": kills,
        "failures_seen": n_failures,
        "episodes": counter.n_episodes,
        "steps": model.num_timesteps,
        "updates": model._n_updates,
        "invalid_steps": counter.n_invalid,
        "stored": n_stored,
        "valid_steps": counter.n_valid,
        "invalid_stored": n_stored_invalid,
        "left_behind": left,
        "wall_s": wall_s,
        # Stable-Baselines3 does not store the step after which a callback ends the training.
        "is_fine": counter.n_valid - 1 <= n_stored <= counter.n_valid
        and n_stored_invalid == 0
        and not any(left.values())
        and wall_s >= kill_for_s,
    }


def main() -> int:
    """Run the soak; return 0 if every requirement holds, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=2_000, help="environment steps between two faults")
    parser.add_argument("--port", type=int, default=2600, help="first port to try for the simulator")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kill-for",
        type=float,
        metavar="SECONDS",
        help="kill the simulator or its watchdog every 1 to 3 s for this many seconds; --steps and --every are ignored",
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    settings = parser.parse_args()
    if settings.kill_for is None and settings.steps <= N_STORED + 1:
        parser.error(
            f"--steps {settings.steps}: expected more than {N_STORED + 1:,}, because resources are first measured "
            f"when the replay buffer of {N_STORED:,} transitions is full"
        )
    th.set_num_threads(1)
    if settings.kill_for is None:
        result = soak(settings.steps, settings.every, settings.port, settings.seed)
    else:
        result = kill_soak(settings.kill_for, settings.port, settings.seed)
    print(json.dumps(result, indent=2))
    known = json.loads(settings.output.read_text()) if settings.output.exists() else []
    settings.output.write_text(json.dumps([*known, result], indent=2) + "\n")
    return 0 if result["is_fine"] else 1


if __name__ == "__main__":
    sys.exit(main())
