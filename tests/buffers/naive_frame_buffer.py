"""A slow, simple equivalent of FrameReplayBuffer: whole observations in plain lists, returns summed step by step."""

import numpy as np

from sb3_visual_td3.common.pictures import parts_of

GAMMA = 0.9


def n_frames_held(frames):
    """Return how many frames of a FrameStore are in use; its black frame always counts."""
    return frames._n_touched - len(frames._free)


class NaiveFrameBuffer:
    """Each environment's transitions in a list, oldest first."""

    def __init__(self, buffer_size, n_envs, n_steps, frame_stacks, handles_timeouts=True):
        self.capacity = buffer_size // n_envs
        self.n_steps = n_steps
        self.frame_stacks = frame_stacks
        self.handles_timeouts = handles_timeouts
        self.transitions = [[] for _ in range(n_envs)]

    def add(self, env, transition):
        self.transitions[env] = [*self.transitions[env], transition][-self.capacity :]

    def _is_followed(self, one, other):
        """Return whether ``other`` is the next step of the same episode."""
        if one["done"] or (self.handles_timeouts and one["truncated"]):
            return False
        same = all(one["next_obs"][key].tobytes() == other["obs"][key].tobytes() for key in one["obs"])
        return same and all(self._shifts(one, key, stack) for key, stack in self.frame_stacks.items())

    @staticmethod
    def _shifts(transition, key, stack):
        n_channels = len(transition["obs"][key]) // stack
        older, newer = transition["next_obs"][key][: n_channels * (stack - 1)], transition["obs"][key][n_channels:]
        return older.tolist() == newer.tolist()

    def sample(self, env, age):
        """Return the n-step sample that starts at index ``age``, counted from the oldest transition."""
        first = last = self.transitions[env][age]
        rewards = [first["reward"]]
        for step in self.transitions[env][age + 1 :]:
            if len(rewards) == self.n_steps or not self._is_followed(last, step):
                break
            rewards.append(step["reward"])
            last = step
        return {
            "obs": first["obs"],
            "action": first["action"],
            "next_obs": last["next_obs"],
            "done": float(last["done"] and not (self.handles_timeouts and last["truncated"])),
            "reward": sum(GAMMA**power * reward for power, reward in enumerate(rewards)),
            "discount": GAMMA ** len(rewards),
        }


class Simulator:
    """One environment whose frames are random, and everything that can happen to it."""

    def __init__(self, space, frame_stacks, seed, padding, death_rate=0.15, reset_rate=0.1):
        self.space = space
        self.frame_stacks = frame_stacks
        self.random = np.random.default_rng(seed)
        self.padding = padding
        self.death_rate = death_rate
        self.reset_rate = reset_rate
        self.obs = self._reset()

    def _frame(self, key):
        channels, height, width = self.space[key].shape
        n_values = 2 if self.random.random() < 0.2 else 256  # few values: frames repeat by chance, and are black
        shape = (channels // self.frame_stacks[key], height, width)
        frame = self.random.integers(0, n_values, shape, dtype=np.uint8)
        return frame * 0 if self.random.random() < 0.1 else frame

    def _reset(self):
        obs = {}
        for key in self.space:
            if key not in self.frame_stacks:
                obs[key] = self.random.normal(size=self.space[key].shape).astype(self.space[key].dtype)
                continue
            n_older = self.frame_stacks[key] - 1
            first = self._frame(key)
            padding = self.padding if self.padding != "any" else self.random.choice(["zeros", "repeat", "noise", "old"])
            if padding == "old" and hasattr(self, "obs"):
                older = list(np.split(self.obs[key], n_older + 1)[1:])
            elif padding in {"noise", "old"}:
                older = [self._frame(key) for _ in range(n_older)]
            else:
                older = [first * (padding == "repeat")] * n_older
            obs[key] = np.concatenate([*older, first])
        return obs

    def _moved_on(self):
        obs = {}
        for key, now in self.obs.items():
            if key in self.frame_stacks:
                newer = now[len(now) // self.frame_stacks[key] :]
                obs[key] = np.concatenate([newer, self._frame(key)])
            else:
                obs[key] = self.random.normal(size=now.shape).astype(now.dtype)
        return obs

    def step(self):
        """Return the next transition, which sometimes does not continue the previous transition."""
        if self.random.random() < self.reset_rate:
            what = self.random.choice(["reset", "dropped", "teleport", "one part"])
            if what == "reset":
                self.obs = self._reset()
            elif what == "dropped":
                self.obs = self._moved_on()
            elif what == "one part":
                key = self.random.choice(list(self.obs))
                self.obs = {**self.obs, key: self._moved_on()[key]}
        else:
            what = "nothing"
        next_obs = self._reset() if what == "teleport" else self._moved_on()
        done = self.random.random() < self.death_rate
        truncated = bool(self.random.random() < (0.5 if done else 0.02))
        transition = {
            "obs": self.obs,
            "next_obs": next_obs,
            "action": self.random.uniform(-1, 1, 2).astype(np.float32),
            "reward": float(self.random.integers(-8, 9)) / 4,
            "done": done,
            "truncated": truncated,
        }
        self.obs = self._reset() if done else next_obs
        return transition


def stacked(step, name, space):
    """Return one array for all environments, or a dict of such arrays if the space has several parts."""
    parts = {key: np.stack([each[name][key] for each in step]) for key in step[0][name]}
    return parts if len(parts_of(space)) > 1 else next(iter(parts.values()))


def add_to(buffer, step):
    """Add one transition of each environment to a buffer."""
    buffer.add(
        stacked(step, "obs", buffer.observation_space),
        stacked(step, "next_obs", buffer.observation_space),
        np.stack([each["action"] for each in step]),
        np.array([each["reward"] for each in step]),
        np.array([each["done"] for each in step]),
        [{"TimeLimit.truncated": each["truncated"]} for each in step],
    )
