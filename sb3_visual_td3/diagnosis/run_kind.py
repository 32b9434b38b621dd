"""Recognise the kind of algorithm behind a run by the tags that it logged, because not every check fits every kind.

Only names are read, never values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from sb3_visual_td3.diagnosis.tag_search import (
    find_actor_losses,
    find_critic_losses,
    find_q_values,
    is_entropy,
    is_entropy_coefficient,
    words_of,
)


class Family(Enum):
    """Define the families of algorithms; the family of a run decides which checks apply."""

    OFF_POLICY = "off-policy actor-critic"
    ON_POLICY = "on-policy"
    VALUE_BASED = "value-based"
    UNKNOWN = "unknown"


class RunKind(NamedTuple):
    """Describe the kind of algorithm behind a run.

    :param family: family of the algorithm, such as off-policy
    :param algorithms: the algorithms to which the tags point, in words; empty if the family is unknown
    :param evidence: the tags that show the family
    :param has_entropy_bonus: whether Q values contain a bonus for entropy, as in SAC
    """

    family: Family
    algorithms: str = ""
    evidence: tuple[str, ...] = ()
    has_entropy_bonus: bool = False


class _Mark(NamedTuple):
    """Hold words that identify a kind of algorithm if a tag's name contains all of them."""

    words: frozenset[str]
    family: Family
    algorithms: str
    has_entropy_bonus: bool = False


def _marks(family: Family, algorithms: str, *names: str, has_entropy_bonus: bool = False) -> list[_Mark]:
    return [_Mark(frozenset(name.split()), family, algorithms, has_entropy_bonus) for name in names]


# The most reliable marks come first, and the first one found decides: names that only one kind of algorithm logs come
# before names that several kinds share.
_MARKS: Sequence[_Mark] = [
    *_marks(Family.ON_POLICY, "TRPO", "line search", "kl divergence loss"),
    *_marks(Family.ON_POLICY, "PPO", "clip fraction", "clipfrac", "clip frac", "clip range", "approx kl", "approxkl"),
    # rsl_rl calls its losses Loss/surrogate and Loss/value_function.
    *_marks(Family.ON_POLICY, "PPO", "loss surrogate"),
    # SB3's A2C logs policy_loss, value_loss and entropy_loss; CleanRL and other code write "entropy".
    *_marks(Family.ON_POLICY, "A2C or PPO", "explained variance", "policy gradient loss"),
    *_marks(Family.OFF_POLICY, "SAC or TQC", "ent coef", "log alpha", "alpha loss", has_entropy_bonus=True),
    *_marks(Family.OFF_POLICY, "SAC or TQC", "losses alpha", "entropy temperature", has_entropy_bonus=True),
    *_marks(Family.VALUE_BASED, "DQN", "exploration rate", "td loss", "epsilon"),
]


def recognise(names: Iterable[str]) -> RunKind:
    """Return the kind of algorithm that made a run.

    :param names: tags of the run; they need not have SB3's names
    """
    return _recognised(tuple(names))


# The result is cached, because a dozen rules need the kind of the same run.
@lru_cache(maxsize=256)
def _recognised(names: tuple[str, ...]) -> RunKind:
    # PPO's clip fraction is about a probability ratio, not about the norm of a gradient.
    words = {name: frozenset(words_of(name)) for name in names if not name.startswith("gradients/")}
    for mark in _MARKS:
        evidence = tuple(sorted(name for name, known in words.items() if mark.words <= known))
        # ML-Agents logs PPO's clip range as "Policy/Epsilon". DQN has no loss of a policy beside that of a value.
        is_ppo = mark.family is Family.VALUE_BASED and find_actor_losses(words) and _value_losses(words)
        if evidence and not is_ppo:
            return RunKind(mark.family, mark.algorithms, evidence, mark.has_entropy_bonus)
    return _by_losses(words)


def _value_losses(words: dict[str, frozenset[str]]) -> list[str]:
    critic = find_critic_losses(words)
    return [name for name, known in words.items() if {"value", "loss"} <= known and name not in critic]


def _by_losses(words: dict[str, frozenset[str]]) -> RunKind:
    """Infer the kind from the combination of losses, if no single tag identifies it.

    Some libraries log an actor loss and a critic loss for A2C and PPO too. These two losses therefore show an
    off-policy algorithm only if both have SB3's names, if a Q value or a Q loss is also logged, or if there are two
    critics.
    """
    actor, critic, q_values = find_actor_losses(words), find_critic_losses(words), find_q_values(words)
    value = _value_losses(words)
    entropy = [name for name in words if is_entropy(name)]
    coefficient = [name for name in words if is_entropy_coefficient(name)]
    q_losses = [name for name in critic if not any(word.startswith("critic") for word in words[name])]
    # Tianshou logs critic1 and critic2. A run with several agents also numbers its actors.
    numbered = [name for name in critic if words[name] & {"critic1", "critic2"} or words[name] >= {"critic", "1"}]
    numbered += [name for name in critic if words[name] >= {"critic", "2"}]
    has_twins = len(numbered) >= 2 and len(actor) == 1
    twins = [name for name in q_values if words[name] & {"q1", "q2", "qf1", "qf2"}]
    q1, q2 = ([name for name in q_losses if words[name] & of_one] for of_one in ({"q1", "qf1"}, {"q2", "qf2"}))
    # SAC's first version also had a value function, which ML-Agents still logs.
    named = [name for name in coefficient if words[name] & {"ent", "entropy"}]
    # A bare "alpha" may also be the weight of behaviour cloning (TD3+BC). SAC also logs its loss or its logarithm.
    has_tuned_alpha = any("alpha" in known and known & {"loss", "log"} for known in words.values())
    is_sac = bool(actor and q1 and q2 and (named or has_tuned_alpha or value))
    is_of_values = bool(q_values or q_losses or has_twins)
    if actor and value and not is_sac and (entropy or not critic or (named and not is_of_values)):
        evidence = tuple(sorted([*actor, *value, *entropy, *coefficient]))
        return RunKind(Family.ON_POLICY, "A2C or PPO", evidence)
    if actor and (q_values or q_losses or has_twins):
        evidence = tuple(sorted([*actor, *critic, *q_values, *(coefficient if is_sac else ())]))
        return RunKind(Family.OFF_POLICY, "SAC" if is_sac else "TD3, DDPG or SAC", evidence, is_sac)
    if "train/actor_loss" in words and "train/critic_loss" in words:
        return RunKind(Family.OFF_POLICY, "TD3 or DDPG", ("train/actor_loss", "train/critic_loss"))
    if len(twins) >= 2:
        # Twin critics belong to TD3 and SAC. Without a loss, the tags do not show whether the Q values contain an
        # entropy bonus.
        return RunKind(Family.OFF_POLICY, "TD3 or SAC", tuple(twins))
    if q_values and not actor:
        return RunKind(Family.VALUE_BASED, "DQN", q_values)
    return RunKind(Family.UNKNOWN)
