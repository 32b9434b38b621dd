"""Find the tags that hold returns, lengths, losses and Q values, by the words in their names.

SB3, CleanRL and training code of your own use different names for the same quantity.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple

from sb3_visual_td3.common import tags

ROLLOUT_WINDOW = 100
"""A logged mean of training returns is assumed to be the mean over this many episodes, as in SB3
(``stats_window_size``)."""
EVALUATION_EPISODES = 5
"""A logged mean of evaluation returns is assumed to be the mean over this many episodes, the default of SB3's
EvalCallback."""

EPISODE_WORDS = frozenset(
    ["episode", "episodes", "episodic", "ep", "eps", "epi", "epoch", "rollout", "traj", "trajectory"]
)
EVALUATION_WORDS = frozenset(["eval", "evaluation", "evaluate", "test", "testing", "valid", "validation"])


# A report needs the words of the same dozens of names thousands of times.
@lru_cache(maxsize=4096)
def words_of(name: str) -> tuple[str, ...]:
    """Split a tag into lower-case words: at slashes, underscores, spaces, and where case changes.

    ``charts/episodicReturn`` gives ``("charts", "episodic", "return")``.
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return tuple(word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word)


# ---- Returns


class ReturnTag(NamedTuple):
    """Describe a tag that holds returns.

    :param name: the logged name
    :param source: "evaluation" if the policy acts without exploration, otherwise "training"
    :param rank: quality of the evidence; smaller is better
    :param averaged_over: assumed number of episodes in the mean of one point
    """

    name: str
    source: Literal["evaluation", "training"]
    rank: int
    averaged_over: int


BARE_REWARD_RANK = 4
"""Rank of a tag such as ``reward``, which may be the reward of a step."""
_RETURN_WORDS = {"return", "returns", "reward", "rewards", "rew", "rews", "ret", "score", "scores"}
_REWARD_WORDS = {"reward", "rewards", "rew", "rews"}
_AVERAGE_WORDS = {"mean", "avg", "average", "averaged", "running", "moving", "smoothed", "ma", "median"}
_SINCE_BEGIN_WORDS = {"cumulative", "cum", "accumulated"}
_TOTAL_WORDS = {"total", "sum"}
# Words without a meaning for the quantity: names of an axis ("info", "(t)", "x") and filler words.
_PLAIN_WORDS = {"info", "t", "x", "r", "per", "last", "agent", "train", "training", "env", "environment", "all"}
_UNDERSTOOD = (
    _RETURN_WORDS | EPISODE_WORDS | EVALUATION_WORDS | _AVERAGE_WORDS | _SINCE_BEGIN_WORDS | _TOTAL_WORDS | _PLAIN_WORDS
)
# Tags in such folders are parts of a reward, or rewards that do not come from the environment.
_OTHER_FOLDERS = {
    "custom",
    "term",
    "terms",
    "component",
    "components",
    "loss",
    "losses",
    "buffer",
    "normalized",
    "step",
}


_OF_RL_GAMES = {"rewards/step", "rewards/iter", "rewards/time"}
"""rl_games logs the mean return of the last episodes three times, over steps, iterations and seconds. Alone,
``rewards/step`` may be the reward of a step."""


@lru_cache(maxsize=4096)
def return_tag(name: str) -> ReturnTag | None:
    """Interpret a tag's name; return None if it does not name the return of an episode.

    ``Episode/Reward``, ``charts/episodic_return`` and ``avg_reward`` are returns. ``reward_step`` and ``Reward/speed``
    are not, because ``step`` and ``speed`` are unknown words. Words before the last slash may be unknown.
    """
    folder, _, leaf = name.rpartition("/")
    words = words_of(leaf)
    folders = set(words_of(folder))
    known = folders | set(words)
    named = known & _RETURN_WORDS
    is_understood = all(word in _UNDERSTOOD or word.isdigit() for word in words)
    if not is_understood or folders & _OTHER_FOLDERS or not (named or words == ("ep", "r")):
        return None
    is_mean = bool(known & _AVERAGE_WORDS)
    of_episode = bool(known & (EPISODE_WORDS | _TOTAL_WORDS))
    source: Literal["evaluation", "training"] = "training"
    averaged_over = ROLLOUT_WINDOW if is_mean else 1
    if known & EVALUATION_WORDS:
        source, rank = "evaluation", 0
        averaged_over = EVALUATION_EPISODES if is_mean else 1
    elif "rollout" in known and is_mean:
        rank = 1
    elif known & _SINCE_BEGIN_WORDS and not of_episode:
        # Such a tag is often a mean since the run began, which hides recent changes.
        rank = 5
    elif is_mean:
        rank = 3
    elif named <= _REWARD_WORDS and not of_episode:
        # A bare "reward" may be the reward of a step, so it is used only if nothing better is logged.
        rank = BARE_REWARD_RANK
    else:
        rank = 2
    return ReturnTag(name, source, rank, averaged_over)


def may_be_sum(name: str) -> bool:
    """Return whether a tag's name says that it may be the sum of all returns so far."""
    words = set(words_of(name))
    # ML-Agents' "Environment/Cumulative Reward" is the mean return of the episodes since the last point.
    is_mean = bool(words & _AVERAGE_WORDS) or name == "Environment/Cumulative Reward"
    return bool(words & (_SINCE_BEGIN_WORDS | _TOTAL_WORDS)) and not is_mean


def find_returns(names: Iterable[str]) -> tuple[ReturnTag, ...]:
    """Return the tags that hold returns, sorted by ``ReturnTag.rank``: the best evidence comes first.

    If a run logged returns under this package's name or SB3's, tags under ``reward/`` are terms of the reward, such as
    ``reward/total``.
    """
    names = list(names)
    has_terms = any(name in names for name in (tags.EPISODE_REWARD, tags.OF_SB3["ep_rew_mean"]))
    found = [tag for tag in map(return_tag, names) if tag is not None]
    if set(names) >= _OF_RL_GAMES:
        found.append(ReturnTag("rewards/step", "training", 3, ROLLOUT_WINDOW))
    if has_terms:
        found = [tag for tag in found if not tag.name.startswith(tags.REWARD)]
    return tuple(sorted(found, key=lambda tag: (tag.rank, tag.name)))


def find_reward_terms(names: Iterable[str]) -> tuple[str, ...]:
    """Return the tags under ``reward/`` that hold terms of the reward, in the given order.

    Other code may log returns under this prefix, such as ``reward/eval`` and ``reward/mean``. Names such as
    ``reward/env`` may mean both: they are terms if the run logs its returns elsewhere.
    """
    names = list(names)
    returns = {tag.name for tag in find_returns(names)}
    has_others = any(not name.startswith(tags.REWARD) for name in returns)
    below = [name for name in names if name.startswith(tags.REWARD)]
    return tuple(name for name in below if name not in returns or (has_others and not _names_a_return(name)))


def _names_a_return(name: str) -> bool:
    leaf = set(words_of(name.rpartition("/")[2]))
    return bool(leaf & (EPISODE_WORDS | EVALUATION_WORDS | _RETURN_WORDS | _AVERAGE_WORDS | {"train", "training"}))


# ---- Episodes


def find_lengths(names: Iterable[str]) -> str | None:
    """Return the tag that holds the lengths of episodes in steps; None if there is no such tag.

    Training episodes are preferred to evaluation episodes.
    """
    best: tuple[int, str] | None = None
    for name in names:
        known = set(words_of(name))
        # A length in seconds cannot be converted to steps.
        if not known & {"len", "length", "lengths"} or known & {"s", "sec", "seconds", "std", "min", "max", "time"}:
            continue
        if not known & EPISODE_WORDS:
            continue
        rank = 1 if known & EVALUATION_WORDS else 0
        best = min(best or (rank, name), (rank, name))
    return best[1] if best else None


# ---- Critics and policies

_Q_WORDS = frozenset(["q", "q1", "q2", "qf", "qf1", "qf2", "qvalue", "qvalues"])
# A gap between two Q values, or a bound on Q, is not a Q value.
_NOT_Q = frozenset(["loss", "target", "gap", "bound", "std", "min", "max", "norm", "lr", "grad", "diff", "difference"])


ACTOR_WORDS = frozenset(["actor", "policy", "pi"])
CRITIC_WORDS = _Q_WORDS | {"critic"}


def find_q_values(names: Iterable[str]) -> tuple[str, ...]:
    """Return the tags that hold Q values; tags for the policy's own actions come first."""
    found = [name for name in names if _Q_WORDS & set(words_of(name)) and not _NOT_Q & set(words_of(name))]
    return tuple(sorted(found, key=lambda name: ("policy" not in words_of(name), name)))


def find_actor_losses(names: Iterable[str]) -> tuple[str, ...]:
    """Return the tags that hold the loss of a policy."""
    return tuple(sorted(name for name in names if _is_loss_of(name, ACTOR_WORDS)))


def find_critic_losses(names: Iterable[str]) -> tuple[str, ...]:
    """Return the tags that hold the loss of a critic, which is a squared error of Q."""
    return tuple(sorted(name for name in names if _is_loss_of(name, CRITIC_WORDS)))


_COEFFICIENT_WORDS = frozenset(["coef", "coeff", "coefficient"])
_NOT_AN_ENTROPY = _COEFFICIENT_WORDS | {"target", "alpha", "beta", "temperature", "weight"}


def is_entropy_coefficient(name: str) -> bool:
    """Return whether a tag holds the coefficient of SAC's entropy bonus, such as ML-Agents' "Entropy Coeff".

    "ent_coef_loss" is the loss of an automatic coefficient, and "log_alpha" its logarithm.
    """
    words = set(words_of(name))
    is_named_so = (bool(words & {"ent", "entropy"}) and bool(words & _COEFFICIENT_WORDS)) or "alpha" in words
    return is_named_so and not words & {"loss", "log"}


def is_entropy(name: str) -> bool:
    """Return whether a tag holds the entropy of a policy, and not its coefficient or its target."""
    words = set(words_of(name))
    return "entropy" in words and not words & _NOT_AN_ENTROPY


def _is_loss_of(name: str, networks: Iterable[str]) -> bool:
    # Numbered networks, such as Tianshou's "update/loss/critic1", count like the network itself.
    words = {word for found in words_of(name) for word in (found, found.rstrip("0123456789"))}
    return "loss" in words and bool(words & set(networks))


# ---- Names that SB3 writes

STANDARD_PREFIXES = ("rollout/", "train/", "eval/", "time/")
"""The tags that SB3 logs begin with these names. Their x-axis counts environment steps, except for a few tags of this
package (see ``common/tags.py``)."""


def is_standard(name: str) -> bool:
    """Return whether a tag's name begins like SB3's tags, or is one of CleanRL's tags for episodes.

    The x-axis of such a tag counts environment steps; for the exceptions see ``STANDARD_PREFIXES``.
    """
    return name.startswith(STANDARD_PREFIXES) or name in {"charts/episodic_return", "charts/episodic_length"}


def is_on_environment_steps(name: str) -> bool:
    """Return whether a tag's name shows that its x-axis counts environment steps."""
    return (tags.is_on_steps(name) or is_standard(name)) and not tags.is_on_episodes(name)
