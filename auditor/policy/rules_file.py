"""Reads a rules file. A malformed one stops the auditor at start: no run may go by rules that nobody wrote."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from auditor.policy.config import PolicyConfig
from auditor.policy.rules import Rules, forbidding
from common.convert import violations_of
from common.errors import InvalidConfig, Violation


def configured_rules(config: PolicyConfig) -> Rules:
    """The rules of the file, and those of the configuration itself. Raises InvalidConfig."""
    rules = read_rules(config.rules) if config.rules else Rules()
    try:
        return Rules(rules=(*forbidding(config.forbidden), *rules.rules), protected=rules.protected)
    except ValidationError as error:
        raise InvalidConfig(f"{config.rules}: {violations_of(error)[0].reason}") from None


def read_rules(file: Path) -> Rules:
    """Raises InvalidConfig that names file and line, or file and field."""
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
        return Rules.model_validate(content)
    except ValidationError as error:
        raise InvalidConfig("\n".join(f"{file}: {_line(v)}" for v in violations_of(error))) from None


def _line(violation: Violation) -> str:
    reason = "unknown key" if violation.reason == "Extra inputs are not permitted" else violation.reason
    return reason if violation.path == "request" else f"{violation.path}: {reason}"
