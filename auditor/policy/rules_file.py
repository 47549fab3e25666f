"""Reads a rules file. A malformed one stops the auditor at start: no run may go by rules that nobody wrote."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml
from pydantic import ValidationError

from auditor.graders.patterns import runaway
from auditor.policy.config import PolicyConfig
from auditor.policy.rules import Protected, Rule, Rules, WrittenRules, forbidding
from common.convert import violations_of
from common.errors import InvalidConfig, Violation


def configured_rules(config: PolicyConfig) -> Rules:
    """The rules of the file, and those of the configuration itself. Raises InvalidConfig."""
    rules = read_rules(config.rules) if config.rules else WrittenRules()
    stop_runaways(forbidding(config.forbidden), "configuration")
    try:
        return Rules(
            rules=(*forbidding(config.forbidden), *rules.rules),
            protected=rules.protected,
            max_answer_tokens=config.max_answer_tokens,
        )
    except ValidationError as error:
        raise InvalidConfig(f"{config.rules}: {violations_of(error)[0].reason}") from None


def read_rules(file: Path) -> WrittenRules:
    """Raises InvalidConfig that names file and line, file and field, or file and rule."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidConfig(f"{file}: not a text in UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InvalidConfig(f"{file}{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(content, dict) or not content:
        raise InvalidConfig(f"{file}: expected rules, protected, or both")
    try:
        rules = WrittenRules.model_validate(content)
    except ValidationError as error:
        raise InvalidConfig("\n".join(f"{file}: {_line(v)}" for v in violations_of(error))) from None
    stop_runaways((*rules.rules, *rules.protected), str(file))
    return rules


def stop_runaways(rules: Iterable[Rule | Protected], where: str) -> None:
    """Raises InvalidConfig that names every expression which could hold the auditor up.

    Asked of what people wrote and not of what the ledger has: it is a matter of time, and recorded rules stay.
    """
    slow = [
        f"{where}: rule {rule.name}: {key}: expression {place} takes too long on some texts; make it stricter"
        for rule in rules
        for key, expressions in rule.expressions.items()
        for place, expression in enumerate(expressions, start=1)
        if runaway(expression)
    ]
    if slow:
        raise InvalidConfig("\n".join(slow))


def _line(violation: Violation) -> str:
    reason = "unknown key" if violation.reason == "Extra inputs are not permitted" else violation.reason
    return reason if violation.path == "request" else f"{violation.path}: {reason}"
