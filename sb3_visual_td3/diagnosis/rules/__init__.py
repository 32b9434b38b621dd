"""Collect the rules from this folder: every file is the rule of one cause, and a new file is a new rule.

A module defines ``ID`` (the name of the file), ``TITLE``, ``REMEDY``, ``IS_LIVE``, ``EXPLAINED_BY``, ``CURE`` and
``diagnose``, see :class:`~sb3_visual_td3.diagnosis.findings.Rule`.

The documentation of a rule is generated from its module: from the docstring of the module, the numeric constants with
the strings below them, and the docstring of ``diagnose``.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module

from sb3_visual_td3.diagnosis.findings import Rule


def _discover() -> dict[str, Rule]:
    """Import every module of this folder and collect its rule.

    :return: the rules by id, in alphabetical order
    :raises TypeError: if a module lacks a name that every rule defines, or if its ``ID`` is not the name of its file
    :raises ValueError: if ``EXPLAINED_BY`` names a diagnosis that has no rule
    """
    rules: dict[str, Rule] = {}
    for module_info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        module = import_module(f"{__name__}.{module_info.name}")
        try:
            rule = Rule(
                id=module.ID,
                title=module.TITLE,
                remedy=module.REMEDY,
                is_live=module.IS_LIVE,
                explained_by=tuple(module.EXPLAINED_BY),
                cure=module.CURE,
                find=module.diagnose,
            )
        except AttributeError as error:
            raise TypeError(f"{module.__name__} is not a complete rule: {error}; define this name") from error
        if rule.id != module_info.name:
            raise TypeError(
                f"{module.__name__} has ID={rule.id!r}; expected the name of its file, {module_info.name!r}"
            )
        rules[rule.id] = rule
    check_explanations(rules)
    return rules


def check_explanations(rules: Mapping[str, Rule]) -> None:
    """Check that every diagnosis named as an explanation has a rule.

    :param rules: the rules by id
    :raises ValueError: if a diagnosis in ``EXPLAINED_BY`` has no rule
    """
    for rule in rules.values():
        unknown = sorted(set(rule.explained_by) - rules.keys())
        if unknown:
            raise ValueError(f"EXPLAINED_BY of {rule.id} names unknown rules {unknown}; expected ids of rules")


RULES: dict[str, Rule] = _discover()
"""Every rule by the id of its diagnosis."""

LIVE_RULES: dict[str, Rule] = {rule_id: rule for rule_id, rule in RULES.items() if rule.is_live}
"""The rules that are also applied while training runs; each logs ``alerts/<id>``."""
