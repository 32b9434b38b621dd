"""Evaluate a driving policy on held-out maps, and compare it with a random and a full-brake driver."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, is_vecenv_wrapped, unwrap_vec_normalize

from sb3_visual_td3.callbacks.drives import (
    Drive,
    Policy,
    drive_episodes,
    full_brake_driver,
    mean_of,
    random_driver,
    spec_of,
)
from sb3_visual_td3.callbacks.evaluation import SERVER_ADDRESS, EvaluationCallback, needs_server
from sb3_visual_td3.callbacks.policy_eval import wrapped_alike
from sb3_visual_td3.common import tags
from sb3_visual_td3.common.numbers import to_integer

# Methods of environments that drive on a simulator server
_LEND, _SHARE = "lend_server", "share_server"


@contextmanager
def server_borrowed(training_env: VecEnv, eval_env: VecEnv) -> Iterator[None]:
    """Use the first training environment's server for the evaluation, and end the episode of that environment early.

    The next step of that environment has ``info["invalid_transition"]``, and the replay buffers of this package do not
    store it. For environments without a server, nothing happens.

    :param training_env: the training environments, which must not be stepped meanwhile
    :param eval_env: the evaluation environment
    """
    if training_env is eval_env or not (needs_server(eval_env) and needs_server(training_env)):
        yield
        return
    address = training_env.get_attr(SERVER_ADDRESS, [0])[0]
    # The training environment has not connected to a server yet.
    if address is None:
        yield
        return
    training_env.env_method(_LEND, indices=[0])
    eval_env.env_method(_SHARE, *address)
    try:
        yield
    finally:
        eval_env.env_method(_LEND)


BestBy = Literal["distance", "reward"]
_KWARGS_WITHOUT_ID = (
    "eval_env_kwargs was given, but eval_env is not the id of an environment: give an id, or leave eval_env_kwargs out"
)


def _for_driving(env_id: str) -> str:
    """Return advice for a user who evaluates an environment in which nothing drives."""
    return f"DrivingEvalCallback is for driving environments; for others, use PolicyEvalCallback({env_id!r})"


class DrivingEvalCallback(EvaluationCallback[Drive]):
    """Evaluate the policy every ``eval_freq`` steps and at the end of training, on separate environments.

    It is Stable-Baselines3's :class:`~stable_baselines3.common.callbacks.EvalCallback` for driving. The distances of a
    random driver and a full-brake driver are logged for comparison. The differences from EvalCallback:

    - ``eval_freq`` counts environment steps instead of calls.
    - Every evaluation starts from the same places, with one exception: if the simulator fails in the second or a later
      episode of an environment, an episode that starts elsewhere replaces this episode.
    - The best model is the model that drives *farthest* (see ``best_by``).
    - The ``eval/`` scalars are written directly to the event file, at the step of the evaluation.

    :param eval_env: an environment, a VecEnv, or the id of an environment. Its ``info`` must have ``distance_m``,
        ``speed_mps``, ``collisions``, ``lane_invasions`` and ``is_success``. From an id, the callback creates one
        environment per episode, and stacks frames if the training environment has a VecFrameStack. From
        ``"CarlaDriving-v0"``, it creates a single environment on the simulator server of the training.
    :param callback_on_new_best: called when there is a new best model
    :param callback_after_eval: called after every evaluation
    :param n_eval_episodes: episodes of each evaluation
    :param eval_freq: environment steps between evaluations
    :param log_path: folder for ``evaluations.npz``; None writes no file
    :param best_model_save_path: folder for ``best_model.zip``; None saves no model
    :param deterministic: whether the policy acts without randomness
    :param render: whether to render each step
    :param verbose: verbosity level; 0 prints nothing
    :param warn: whether to warn if the environment has no Monitor
    :param eval_env_kwargs: arguments of the environment if ``eval_env`` is an id; None means ``{"maps": "held_out"}``.
        The default of LiteDriving-v0 itself is ``{"maps": "train"}``
    :param seed: seed of the starting places
    :param best_by: ``"distance"`` or ``"reward"``, by which models are compared; Stable-Baselines3's
        StopTrainingOnRewardThreshold requires ``"reward"``
    :raises ValueError: in the constructor, if an argument is out of range, or if ``eval_env_kwargs`` is given although
        ``eval_env`` is not an id; when training starts, if ``info`` lacks a key, if the spaces of ``eval_env`` differ
        from those of the training environment, or if training uses VecNormalize and ``eval_env`` has other wrappers
    """

    def __init__(
        self,
        eval_env: str | gym.Env[Any, Any] | VecEnv = "LiteDriving-v0",
        callback_on_new_best: BaseCallback | None = None,
        callback_after_eval: BaseCallback | None = None,
        n_eval_episodes: int = 5,
        eval_freq: int = 2_500,
        log_path: str | Path | None = None,
        best_model_save_path: str | Path | None = None,
        deterministic: bool = True,
        render: bool = False,
        verbose: int = 1,
        warn: bool = True,
        *,
        eval_env_kwargs: Mapping[str, Any] | None = None,
        seed: int = 1_000,
        best_by: BestBy = "distance",
    ) -> None:
        n_eval_episodes = to_integer("n_eval_episodes", n_eval_episodes, 1)
        eval_freq = to_integer("eval_freq", eval_freq, 1)
        seed = to_integer("seed", seed, 0)
        if best_by not in get_args(BestBy):
            raise ValueError(f"best_by={best_by!r}: expected one of {', '.join(get_args(BestBy))}")
        self._make_env: partial[VecEnv] | None = None
        if isinstance(eval_env, str):
            kwargs = {"maps": "held_out"} if eval_env_kwargs is None else dict(eval_env_kwargs)
            # One environment per episode, so that all episodes run at the same time through one batched policy.
            self._make_env = partial(make_vec_env, eval_env, n_eval_episodes, seed, env_kwargs=kwargs)
            try:
                made = self._make_env()
            except TypeError as error:
                if eval_env_kwargs is not None or "'maps'" not in str(error):
                    raise
                raise ValueError(
                    f"{eval_env} has no argument maps: {_for_driving(eval_env)}. For a driving environment of your "
                    "own, pass eval_env_kwargs={}"
                ) from error
        elif eval_env_kwargs is not None:
            raise ValueError(_KWARGS_WITHOUT_ID)
        super().__init__(
            made if isinstance(eval_env, str) else eval_env,
            callback_on_new_best,
            callback_after_eval,
            n_eval_episodes,
            eval_freq,
            log_path,
            best_model_save_path,
            deterministic,
            render,
            verbose,
            warn,
            seed,
        )
        self.best_by = best_by
        self.best_distance_m = -np.inf
        self._is_closed = False

    @property
    def eval_env_kwargs(self) -> dict[str, Any] | None:
        """Return the arguments of the environment that this callback creates; None for an environment of your own."""
        return None if self._make_env is None else dict(self._make_env.keywords["env_kwargs"])

    def configure(
        self,
        eval_freq: int | None = None,
        n_eval_episodes: int | None = None,
        eval_env_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Change arguments of the constructor before training starts; None leaves an argument as it is.

        :param eval_freq: see the constructor
        :param n_eval_episodes: see the constructor
        :param eval_env_kwargs: see the constructor; the new mapping replaces the earlier ``eval_env_kwargs``
        :raises ValueError: if a number is not an integer >= 1, or if ``eval_env_kwargs`` is given although
            ``eval_env`` is not an id
        """
        if eval_freq is None:
            eval_freq = self.eval_freq
        if n_eval_episodes is None:
            n_eval_episodes = self.n_eval_episodes
        eval_freq = to_integer("eval_freq", eval_freq, 1)
        n_eval_episodes = to_integer("n_eval_episodes", n_eval_episodes, 1)
        kwargs = self.eval_env_kwargs if eval_env_kwargs is None else dict(eval_env_kwargs)
        if self._make_env is None and kwargs is not None:
            raise ValueError(_KWARGS_WITHOUT_ID)
        is_another = (n_eval_episodes, kwargs) != (self.n_eval_episodes, self.eval_env_kwargs)
        if self._make_env is not None and is_another:
            self._remake(n_eval_episodes, kwargs)
        self.eval_freq, self.n_eval_episodes = eval_freq, n_eval_episodes

    def _remake(self, n_envs: int, kwargs: dict[str, Any] | None = None) -> None:
        """Create the evaluation environments again, to change their number or their arguments."""
        assert self._make_env is not None
        kwargs = self.eval_env_kwargs if kwargs is None else kwargs
        self._make_env = partial(make_vec_env, self._make_env.args[0], n_envs, self.seed, env_kwargs=kwargs)
        self.eval_env.close()
        self.eval_env = self._make_env()

    def _init_callback(self) -> None:
        if self._is_closed and self._make_env is not None:
            self.eval_env = self._make_env()
            self._is_closed = False
        if self._make_env is not None and needs_server(self.eval_env) and self.eval_env.num_envs > 1:
            # Several environments would each need a server of their own.
            self._remake(n_envs=1)
        if (
            self._make_env is not None
            and is_vecenv_wrapped(self.training_env, VecFrameStack)
            and not is_vecenv_wrapped(self.eval_env, VecFrameStack)
        ):
            self.eval_env = wrapped_alike(self.eval_env, self.training_env)
        with warnings.catch_warnings():
            # Environments created here have fewer wrappers: _policy() normalises their observations itself.
            if self._make_env is not None:
                warnings.filterwarnings("ignore", message="Training and eval env are not of the same type")
            super()._init_callback()
        self._warn_without_monitor()

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self._baselines: dict[str, float] = {}

    def _on_rollout_start(self) -> None:
        # Not in _on_training_start(): a snapshot restores the baselines after that method, but before this one. And a
        # simulator that is lost here has been lost in training.
        self._drive_baselines()

    def _require_same_spaces(self) -> None:
        try:
            super()._require_same_spaces()
        except ValueError as error:
            trained, evaluated = (
                None if spec is None else spec.id for spec in (spec_of(self.training_env), spec_of(self.eval_env))
            )
            if trained is None or trained == evaluated:
                raise
            raise ValueError(f"{error}. The training is on {trained}: {_for_driving(trained)}") from error
        if not isinstance(self.eval_env.action_space, gym.spaces.Box):
            raise ValueError(f"the action space is {self.eval_env.action_space}: expected a Box, steering and throttle")

    def _drive_baselines(self) -> None:
        """Drive the evaluation episodes with the drivers that do not learn, unless this has been done."""
        if self._baselines:
            return
        baselines = {
            tags.EVAL_RANDOM_DISTANCE: (random_driver(self.eval_env, self.seed), "random driver"),
            tags.EVAL_BRAKE_DISTANCE: (full_brake_driver(self.eval_env), "full-brake driver"),
        }
        # They start from the same places each time.
        with server_borrowed(self.training_env, self.eval_env):
            drives = {tag: mean_of(self._play_aside(*driver)) for tag, driver in baselines.items()}
        self._baselines = {tag: drive.distance_m for tag, drive in drives.items()}
        self._baselines[tags.EVAL_RANDOM_REWARD] = drives[tags.EVAL_RANDOM_DISTANCE].reward

    def _play(self, policy: Policy, description: str) -> list[Drive]:
        return drive_episodes(
            policy, self.eval_env, self.seed, self.n_eval_episodes, description, not self.verbose, self.render
        )

    @property
    def _normalizes(self) -> bool:
        """Return whether ``_policy()`` normalises the observations, because ``eval_env`` has no VecNormalize."""
        return self._make_env is not None and unwrap_vec_normalize(self.eval_env) is None

    def _sync_normalization(self) -> None:
        if not self._normalizes:
            super()._sync_normalization()

    def _policy(self) -> Policy:
        """Return a function that prepares observations as in training, and returns the policy's actions for them."""
        normalizer = self.model.get_vec_normalize_env()
        policy = super()._policy()
        if normalizer is None or not normalizer.norm_obs or not self._normalizes:
            return policy
        return lambda observations, starts: policy(normalizer.normalize_obs(observations), starts)

    def _on_training_end(self) -> None:
        super()._on_training_end()
        if self._make_env is not None:
            self.eval_env.close()
            self._is_closed = True

    def get_state(self) -> dict[str, Any]:
        """Return the state that this class adds to EvalCallback; EvalCallback's own attributes are saved separately."""
        return {
            "best_distance_m": float(self.best_distance_m),
            "last_evaluated": self._last_evaluated,
            "baselines": dict(self._baselines),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore the results of earlier evaluations; call this after training has started.

        :param state: the state returned by ``get_state``
        """
        self.best_distance_m = state["best_distance_m"]
        self._last_evaluated = state["last_evaluated"]
        self._baselines = dict(state["baselines"])

    def evaluate(self) -> Drive:
        """Evaluate the current policy, log the result, and save the model if it is the best so far.

        :return: means over the episodes
        """
        return mean_of(self._evaluate())

    def _evaluate(self) -> list[Drive]:
        self._drive_baselines()
        with server_borrowed(self.training_env, self.eval_env):
            return super()._evaluate()

    def _rate(self, episodes: Sequence[Drive]) -> bool:
        result = mean_of(episodes)
        is_farthest = result.distance_m > self.best_distance_m
        has_largest_reward = result.reward > self.best_mean_reward
        self.last_mean_reward = result.reward
        self.best_mean_reward = max(self.best_mean_reward, result.reward)
        self.best_distance_m = max(self.best_distance_m, result.distance_m)
        return is_farthest if self.best_by == "distance" else has_largest_reward

    def _log(self, episodes: Sequence[Drive]) -> None:
        result = mean_of(episodes)
        if self.verbose:
            print(
                f"evaluation at step {self.num_timesteps}: {result.distance_m:.0f} m in {result.length:.0f} steps "
                f"at {result.speed_mps:.1f} m/s (random {self._baselines[tags.EVAL_RANDOM_DISTANCE]:.0f} m, "
                f"full brake {self._baselines[tags.EVAL_BRAKE_DISTANCE]:.0f} m)"
            )
        scalars = {
            tags.EVAL_REWARD: result.reward,
            tags.EVAL_LENGTH: result.length,
            tags.EVAL_DISTANCE: result.distance_m,
            tags.EVAL_SPEED: result.speed_mps,
            tags.EVAL_COLLISIONS: result.collisions,
            tags.EVAL_LANE_INVASIONS: result.lane_invasions,
            tags.EVAL_SUCCESS_RATE: result.success_rate,
        }
        self._writer.write({**scalars, **self._baselines}, self.num_timesteps)
