"""An evaluation on the simulator that the training drives in: one server, by turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stable_baselines3.common.vec_env import VecEnv

_ADDRESS, _LEND, _SHARE = "server_address", "lend_server", "share_server"


def needs_server(env: VecEnv) -> bool:
    """:return: whether the environments drive on a server (CarlaDriving-v0), which only one can use at a time"""
    return env.has_attr(_ADDRESS)


@contextmanager
def server_borrowed(training_env: VecEnv, eval_env: VecEnv) -> Iterator[None]:
    """Have the evaluation drive where the first training environment does, whose episode is cut short for it.

    That environment's next step ends its episode as one that the simulator failed to make (no algorithm of ours stores
    it), and a new one begins. Where either of them needs no server nothing happens.

    :param training_env: is to make no step within
    :param eval_env: one environment
    """
    if training_env is eval_env or not (needs_server(eval_env) and needs_server(training_env)):
        yield
        return
    address = training_env.get_attr(_ADDRESS, [0])[0]
    if address is None:  # it has not driven yet
        yield
        return
    training_env.env_method(_LEND, indices=[0])
    eval_env.env_method(_SHARE, *address)
    try:
        yield
    finally:
        eval_env.env_method(_LEND)
