"""A section for every diagnosis: what its rule says of itself, and what it looks like in a real training."""

from __future__ import annotations

import inspect
from importlib import import_module
from types import ModuleType

from diagnosis_panels import PICTURES
from docstrings import constants, paragraphs
from markdown_pieces import code, from_docstring, table

from sb3_visual_td3.diagnosis.numerals import number
from sb3_visual_td3.diagnosis.ranking import EXPLAINS_FROM
from sb3_visual_td3.diagnosis.rules import RULES

_TOO_FEW = "With fewer the rule says nothing."
COMMAND = "python benchmarks/diagnosis_pictures.py --only"


def diagnosis_sections() -> str:
    """:return: all of them, in the order of the rules"""
    return "\n\n".join(diagnosis_section(diagnosis_id) for diagnosis_id in RULES)


def diagnosis_index() -> str:
    """:return: a table of ids, titles, and whether the rule is asked while it trains"""
    rows = [(f"[{code(rule_id)}](#{rule_id})", _rule(rule_id).TITLE, _is_live(rule_id)) for rule_id in RULES]
    return table(("id", "what is wrong", "also an alert while it trains"), rows)


def _is_live(diagnosis_id: str) -> str:
    return "yes" if RULES[diagnosis_id].is_live else "no"


def _rule(diagnosis_id: str) -> ModuleType:
    return import_module(f"sb3_visual_td3.diagnosis.rules.{diagnosis_id}")


def diagnosis_section(diagnosis_id: str) -> str:
    """:return: heading, what is wrong, picture, evidence rule, remedy and sources of one diagnosis"""
    rule = _rule(diagnosis_id)
    told, sources = paragraphs(rule)
    parts = [f"## {code(diagnosis_id)}", f"**{rule.TITLE}.**", *told]
    parts += [_rubric("How it looks"), *_look(diagnosis_id), _rubric("The evidence"), *_evidence(rule)]
    parts += [_rubric("What to do"), rule.REMEDY, *_consequence(rule)]
    if sources:
        parts += [_rubric("Source"), *sources]
    return "\n\n".join(parts)


def _rubric(title: str) -> str:
    """:return: a heading that the table of contents leaves out: there would be seventy of them"""
    return f":::{{rubric}} {title}\n:::"


def _look(diagnosis_id: str) -> list[str]:
    picture = PICTURES.get(diagnosis_id)
    if picture is None:
        return ["There is no picture of a real training with it yet."]
    from faulty_trainings import FAULTS, HEALTHY

    story, beside = FAULTS[picture.training].story, HEALTHY[picture.beside]
    rewards = "rewards scaled" if beside.normalize_reward else "rewards as they are"
    return [
        f"![Curves of a training with this fault beside a healthy one](images/diagnoses/{diagnosis_id}.svg)",
        f"{picture.look} The training is *{picture.training}* of the fault bench ({story}); the dashed one is "
        f"*{picture.beside}* ({rewards}).",
        f"```console\n$ {COMMAND} {diagnosis_id}\n```",
    ]


def _evidence(rule: ModuleType) -> list[str]:
    parts = [from_docstring(inspect.getdoc(rule.diagnose) or "")]
    rows = [
        (code(name), number(float(value)), meaning or (_TOO_FEW if name.startswith("MIN_") else ""))
        for name, (value, meaning) in constants(rule).items()
    ]
    if rows:
        parts.append(table(("number of the rule", "value", "meaning"), rows))
    parts.append(f"The rule: {code(f'sb3_visual_td3/diagnosis/rules/{rule.ID}.py')}.")
    return parts


def _consequence(rule: ModuleType) -> list[str]:
    """Return which causes make a mere consequence of it."""
    causes = RULES[rule.ID].explained_by
    if not causes:
        return []
    found = f"Where one of these is found with a confidence of {EXPLAINS_FROM} or more, it is told as its consequence"
    links = ", ".join(f"[{code(cause)}](#{cause})" for cause in causes)
    return [f"{found}: {links}."]
