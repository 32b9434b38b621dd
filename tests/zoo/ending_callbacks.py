"""A callback that ends a training in one of the ways in which trainings end."""

import os
import signal

from stable_baselines3.common.callbacks import BaseCallback


class EndsAt(BaseCallback):
    """Calls :attr:`action` at the environment step ``step``, once in a process.

    ``action`` and ``step`` are class attributes, not arguments, because a resumed run uses the hyperparameters that it
    was started with. An argument would end the resumed run at the same step again.
    """

    action = None
    step = 0

    def get_state(self):
        return {}

    def set_state(self, state):
        pass

    def _on_step(self):
        if self.num_timesteps != self.step or type(self).action is None:
            return True
        action, type(self).action = type(self).action, None
        return action(self) is not False


def ctrl_c(_):
    raise KeyboardInterrupt


def crash(_):
    raise RuntimeError("the simulator is gone")


def worker_dies(callback):
    os.kill(callback.training_env.unwrapped.processes[0].pid, signal.SIGKILL)


def stop(_):
    return False


def terminate(_):
    os.kill(os.getpid(), signal.SIGTERM)


def be_preempted(_):
    os.kill(os.getpid(), signal.SIGUSR1)
