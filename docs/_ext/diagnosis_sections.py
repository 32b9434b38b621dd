"""Write a section about each diagnosis.

The text comes from the docstring of the rule. The picture shows a real training run.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from types import ModuleType

from diagnosis_panels import PICTURES
from docstrings import constants, paragraphs
from markdown_pieces import code, from_docstring, table

from sb3_visual_td3.diagnosis.numerals import number
from sb3_visual_td3.diagnosis.ranking import LIKELY_FROM
from sb3_visual_td3.diagnosis.rules import RULES

_TOO_FEW = {
    "MIN_POINTS": "With fewer points the rule returns nothing.",
    "MIN_EPISODES": "With fewer episodes the rule returns nothing.",
}
COMMAND = "python benchmarks/diagnosis_pictures.py --only"


def diagnosis_sections() -> str:
    """Return the sections of all diagnoses, in the order of the rules."""
    return "\n\n".join(diagnosis_section(diagnosis_id) for diagnosis_id in RULES)


def diagnosis_index() -> str:
    """Return a table of the diagnoses: id, title, and whether the rule raises live alerts."""
    rows = [(f"[{code(rule_id)}](#{rule_id})", _rule(rule_id).TITLE, _is_live(rule_id)) for rule_id in RULES]
    return table(("id", "what is wrong", "also a live alert"), rows)


def _is_live(diagnosis_id: str) -> str:
    return "yes" if RULES[diagnosis_id].is_live else "no"


def _rule(diagnosis_id: str) -> ModuleType:
    return import_module(f"sb3_visual_td3.diagnosis.rules.{diagnosis_id}")


def diagnosis_section(diagnosis_id: str) -> str:
    """Return the section of one diagnosis: title, explanation, picture, evidence, remedy and sources."""
    rule = _rule(diagnosis_id)
    explanation, sources = paragraphs(rule)
    parts = [f"## {code(diagnosis_id)}", f"**{rule.TITLE}.**", *explanation]
    parts += [_rubric("How it looks"), *_look(diagnosis_id), _rubric("The evidence"), *_evidence(rule)]
    parts += [_rubric("What to do"), rule.REMEDY, *_consequence(rule)]
    if sources:
        parts += [_rubric("Source"), *sources]
    return "\n\n".join(parts)


def _rubric(title: str) -> str:
    """Return a heading that the table of contents omits; it would otherwise list seventy of them."""
    return f":::{{rubric}} {title}\n:::"


def _look(diagnosis_id: str) -> list[str]:
    picture = PICTURES.get(diagnosis_id)
    if picture is None:
        return ["There is no picture of a training run for this diagnosis yet."]
    from faulty_trainings import FAULTS, HEALTHY

    story, beside = FAULTS[picture.training].story, HEALTHY[picture.beside]
    rewards = "normalized rewards" if beside.normalize_reward else "raw rewards"
    return [
        f"![Curves of a training run with this fault beside a healthy one](images/diagnoses/{diagnosis_id}.svg)",
        f"{picture.look} The picture shows the training run *{picture.training}* of the fault bench ({story}). The "
        f"dashed curves show the healthy training run *{picture.beside}* ({rewards}).",
        f"```console\n$ {COMMAND} {diagnosis_id}\n```",
    ]


def _evidence(rule: ModuleType) -> list[str]:
    parts = [from_docstring(inspect.getdoc(rule.diagnose) or "")]
    rows = [
        (code(name), number(float(value)), meaning or _TOO_FEW.get(name, ""))
        for name, (value, meaning) in constants(rule).items()
    ]
    if rows:
        parts.append(table(("number of the rule", "value", "meaning"), rows))
    parts.append(f"The rule: {code(f'sb3_visual_td3/diagnosis/rules/{rule.ID}.py')}.")
    return parts


def _consequence(rule: ModuleType) -> list[str]:
    """Return a paragraph that names the diagnoses that can cause the rule's diagnosis.

    :return: a list with this paragraph; an empty list if there are no such diagnoses
    """
    causes = RULES[rule.ID].explained_by
    if not causes:
        return []
    found = f"This diagnosis is listed as a consequence if one of these has a confidence of at least {LIKELY_FROM}"
    links = ", ".join(f"[{code(cause)}](#{cause})" for cause in causes)
    return [f"{found}: {links}."]
