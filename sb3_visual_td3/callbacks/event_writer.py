"""Scalars into the run's event file, each on its own x-axis, and TensorBoard's dashboard that groups them."""

from __future__ import annotations

import re
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stable_baselines3.common.logger import Logger, TensorBoardOutputFormat

from sb3_visual_td3.callbacks.saving import make_event_files_retry
from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import GROUP_NAMES
from sb3_visual_td3.common.tags import is_known
from sb3_visual_td3.diagnosis.rules import LIVE_RULES

Charts = Mapping[str, Sequence[str]]
"""By title of a chart, the names of its lines."""

_CLIPPING: Charts = {
    f"{group}: norm before and after clipping": (tags.GRADIENT_NORM[group], tags.GRADIENT_NORM_CLIPPED[group])
    for group in GROUP_NAMES
}

DASHBOARD: Mapping[str, Charts] = {
    "Actor and critic": {
        "loss of the actor": (tags.ACTOR_LOSS,),
        "losses of the critics": (tags.CRITIC_LOSS, tags.CRITIC_1_LOSS, tags.CRITIC_2_LOSS),
        "Q: replayed pairs, target, policy": (tags.Q1_VALUE, tags.Q2_VALUE, tags.TARGET_Q_MEAN, tags.POLICY_Q_VALUE),
        "what the actor believes it gains": (tags.Q_GAP,),
        "largest |Q| that the rewards allow": (tags.Q_BOUND,),
        "rewards as the critic sees them": (tags.REWARD_MIN, tags.REWARD_MAX),
    },
    "Gradients": {
        "norms before clipping": tuple(tags.GRADIENT_NORM.values()),
        **_CLIPPING,
        "fraction of updates clipped": tuple(tags.CLIP_FRACTION.values()),
        "step over weights": tuple(tags.UPDATE_RATIO.values()),
        "1: norms as seen by the optimizer": (tags.SEEN_BY_OPTIMIZER,),
    },
    "Alerts": {
        "norms above a threshold": (tags.ALERT_WARNING, tags.ALERT_CRITICAL),
        "rules": tuple(map(tags.alert_of_rule, LIVE_RULES)),
    },
    "Health of the agent": {
        "actions at the end of their range": (tags.ACTION_SATURATION,),
        "before the tanh": (tags.PRE_TANH_ABS_MEAN,),
        "spread of the action that varies least": (tags.ACTION_STD_MIN,),
        "dormant units of the encoder": (tags.ENCODER_DORMANT_FRACTION,),
        "distance from the targets": tuple(tags.TARGET_DISTANCE.values()),
        "targets that moved": tuple(tags.TARGET_MOVED.values()),
        "contrast of the frames": (tags.FRAME_STD,),
        "change of the frames": (tags.FRAME_CHANGE,),
    },
    "Driving": {
        "terms of the reward, per step": tuple(tags.REWARD_TERM.values()),
        "reward of an episode": (tags.EPISODE_REWARD,),
        "length of an episode": (tags.EPISODE_LENGTH,),
        "route and success of an episode": (tags.EPISODE_ROUTE_COMPLETION, tags.EPISODE_SUCCESS),
        "accidents of an episode": (tags.EPISODE_COLLISIONS, tags.EPISODE_LANE_INVASIONS),
        "speed": (tags.PROGRESS_SPEED,),
        "reward of a step": (tags.PROGRESS_REWARD,),
        "steps in the episode": (tags.PROGRESS_EPISODE_STEPS,),
    },
    "Evaluation": {
        "metres: policy, random, full brake": (tags.EVAL_DISTANCE, tags.EVAL_RANDOM_DISTANCE, tags.EVAL_BRAKE_DISTANCE),
        "reward": (tags.EVAL_REWARD,),
        "success": (tags.EVAL_SUCCESS_RATE,),
        "speed": (tags.EVAL_SPEED,),
        "length": (tags.EVAL_LENGTH,),
        "accidents": (tags.EVAL_COLLISIONS, tags.EVAL_LANE_INVASIONS),
    },
    "Settings in force": {
        "learning rates": tuple(tags.GROUP_LR.values()),
        "exploration noise": (tags.EXPLORATION_NOISE,),
        "weights, mean": tuple(tags.PARAM_MEAN.values()),
        "weights, standard deviation": tuple(tags.PARAM_STD.values()),
        "updates": (tags.TOTAL_ITERATIONS,),
        "replay buffer, part filled": (tags.BUFFER_UTILIZATION,),
        "replay buffer, transitions": (tags.PROGRESS_BUFFER_SIZE,),
        "actions of the guard": (tags.GUARD_ACTIONS,),
        "yes or no": (
            tags.IS_TRAINING,
            tags.HAS_ENCODER,
            tags.ENCODER_IS_SHARED,
            tags.REWARD_IS_NORMALIZED,
            tags.RETURN_IS_UNDISCOUNTED,
        ),
        "frozen groups": tuple(tags.GROUP_FROZEN.values()),
    },
}
"""By title of a group, its charts: every name of the table is in one of them, some in two."""


def custom_scalars() -> dict[str, dict[str, list[str | list[str]]]]:
    """Write the dashboard as TensorBoard wants it: each line as a regular expression.

    It matches them from the start of a name on, so that without an end ``critic_cnn_norm`` would be
    ``critic_cnn_norm_clipped`` as well. The terms of a reward that is not ours belong to the chart of ours.

    :return: for ``SummaryWriter.add_custom_scalars``
    """
    return {
        group: {title: ["Multiline", _patterns(names)] for title, names in charts.items()}
        for group, charts in DASHBOARD.items()
    }


def _patterns(names: Sequence[str]) -> list[str]:
    if set(names) & set(tags.REWARD_TERM.values()):
        return [f"{re.escape(tags.REWARD)}.+$"]
    return [f"{re.escape(name)}$" for name in names]


_have_the_dashboard: weakref.WeakSet[Any] = weakref.WeakSet()


class EventWriter:
    """Writes beside Stable-Baselines3's logger, into the same event files.

    The logger dumps everything at once, every few episodes; a callback has a rhythm of its own. The first of our
    callbacks that starts with an event file writes the dashboard into it.

    :param logger: the model's logger; without a TensorBoard output nothing is written
    """

    def __init__(self, logger: Logger) -> None:
        make_event_files_retry(logger)
        self._writers = [out.writer for out in logger.output_formats if isinstance(out, TensorBoardOutputFormat)]
        for writer in self._writers:
            if writer not in _have_the_dashboard:
                _have_the_dashboard.add(writer)
                writer.add_custom_scalars(custom_scalars())

    def write(self, scalars: Mapping[str, float], step: int) -> None:
        """Add one point to each of the names.

        :param scalars: by name; every name stands in ``common/tags.py``
        :param step: environment step, or episode where the table says so
        """
        unknown = sorted(name for name in scalars if not is_known(name))
        assert not unknown, f"not in common/tags.py: {unknown}"
        for writer in self._writers:
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)
            writer.flush()


def run_directory(logger: Logger) -> Path | None:
    """Find the folder of the run that a logger belongs to.

    :param logger: the model's logger
    :return: the folder that holds ``tb/``, else the event files' own; None where there are no event files
    """
    # Without a log folder Stable-Baselines3 makes up a temporary one, in which nobody would look.
    if logger.dir is None or not any(isinstance(out, TensorBoardOutputFormat) for out in logger.output_formats):
        return None
    folder = Path(logger.dir)
    holders = [parent.parent for parent in (folder, *folder.parents) if parent.name == "tb"]
    return holders[0] if holders else folder
