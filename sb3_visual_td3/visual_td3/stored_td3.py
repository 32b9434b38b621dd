"""TD3 whose models, replay buffers and environments can be exchanged: what is asked for is in force, or refused."""

from __future__ import annotations

import io
import pathlib
from typing import Any, TypeVar

import numpy as np
import torch as th
from stable_baselines3 import TD3
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import check_for_correct_spaces
from stable_baselines3.common.vec_env import unwrap_vec_normalize

from sb3_visual_td3.buffers.other_n_envs import for_n_envs
from sb3_visual_td3.common.errors import assertions_as_setting_errors
from sb3_visual_td3.visual_td3.asked_for import AT_LOAD, noise_for
from sb3_visual_td3.visual_td3.camera_space import check_normalizer
from sb3_visual_td3.visual_td3.presets import Resolved
from sb3_visual_td3.visual_td3.replay import fitted

SelfStoredTD3 = TypeVar("SelfStoredTD3", bound="StoredTD3")


class StoredTD3(TD3):
    """TD3 with Stable-Baselines3's ``load``, ``set_env`` and ``load_replay_buffer``, which leave no contradiction."""

    _resolved: dict[str, Resolved]
    """By setting, the value in force and where it comes from."""

    @property
    def _is_stock(self) -> bool:
        """Whether training is Stable-Baselines3's in everything, its faults included."""
        return bool(self._resolved["preset"].value == "td3")

    @classmethod
    def load(
        cls: type[SelfStoredTD3],
        path: str | pathlib.Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> SelfStoredTD3:
        """Load a model from a zip file, as Stable-Baselines3 does.

        :param path: of the file
        :param env: the environment to go on in; of any number of environments
        :param device: where the networks go
        :param custom_objects: replacements for what the file pickles, by name
        :param print_system_info: whether to print what the model was saved with
        :param force_reset: whether training begins with a reset of the environment
        :param kwargs: arguments of the model that are to be others from now on: they are in force in all that follows
            from them too, as ``gamma`` and ``n_steps`` in the replay buffer
        :return: the model
        :raises ValueError: if there is no such argument, or the saved weights do not fit it
        """
        given = {**kwargs, AT_LOAD: kwargs}
        given.pop("policy_kwargs", None)  # compared with those that the user gave, not with those in force
        return super().load(path, env, device, custom_objects, print_system_info, force_reset, **given)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Go on in another environment, as Stable-Baselines3 does; also in another number of them.

        The replay buffer is then taken along. Under ``preset="td3"`` the number must be the same, as in
        Stable-Baselines3.

        :param env: the environment
        :param force_reset: whether training begins with a reset; it always does in another number of environments
        :raises ValueError: if its spaces are others, the observations that it would have stored are not those that the
            policy sees, or the replay buffer cannot be taken along
        """
        env = self._wrap_env(env, self.verbose)
        check_normalizer(self.observation_space, unwrap_vec_normalize(env))
        if env.num_envs != self.n_envs and not self._is_stock:
            check_for_correct_spaces(env, self.observation_space, self.action_space)
            assert self.replay_buffer is not None
            self.replay_buffer = for_n_envs(self.replay_buffer, env.num_envs)
            self.n_envs = env.num_envs
            self.action_noise = noise_for(self.action_noise, self.n_envs)
            force_reset = True
        with assertions_as_setting_errors():
            super().set_env(env, force_reset)

    def load_replay_buffer(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        truncate_last_traj: bool = True,
        any_n_envs: bool = False,
    ) -> None:
        """Load a replay buffer from a pickle file, as Stable-Baselines3 does; n_steps and gamma stay the model's.

        :param path: of the file
        :param truncate_last_traj: whether HerReplayBuffer's last episode ends where the file does
        :param any_n_envs: whether a buffer of another number of environments is rearranged, instead of refused
        :raises ValueError: if observations, actions or the number of environments are others, or it has no n-step
            returns and the model needs them; the model's replay buffer stays then
        """
        before = self.replay_buffer
        try:
            super().load_replay_buffer(path, truncate_last_traj)
            loaded = self.replay_buffer
            assert loaded is not None
            if any_n_envs and loaded.n_envs != self.n_envs:
                loaded = for_n_envs(loaded, self.n_envs)
            self.replay_buffer = fitted(loaded, before, self)
        except BaseException:
            self.replay_buffer = before
            raise

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Store what the policy saw: SB3 stores VecNormalize's observation, unstacked inside a VecFrameStack."""
        normalizer = self._vec_normalize_env
        if normalizer is not None and not normalizer.norm_obs:
            reward = normalizer.get_original_reward()
            self._vec_normalize_env = None
        try:
            super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
        finally:
            self._vec_normalize_env = normalizer
