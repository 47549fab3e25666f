"""Reads the built-in suites, in the same item format as task files. A malformed file stops the auditor at start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from auditor.tasks import Suite
from common.convert import violations_of
from common.errors import InvalidConfig

BUILT_IN = Path(__file__).parent / "suites"


def built_in_suites(folder: Path = BUILT_IN) -> tuple[Suite, ...]:
    """Every suite of `folder`, by name. Raises InvalidConfig that names file and field."""
    return tuple(read_suite(file) for file in sorted(folder.glob("*.yaml")))


def read_suite(file: Path) -> Suite:
    """Raises InvalidConfig that names file and line, or file and field."""
    try:
        content = yaml.safe_load(file.read_text())
    except OSError as error:
        raise InvalidConfig(f"{file}: {error.strerror}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InvalidConfig(f"{file}{where}: not valid YAML") from None
    if not isinstance(content, dict) or not isinstance(content.get("items"), list):
        raise InvalidConfig(f"{file}: expected id, title and a list of items")
    try:
        return Suite.model_validate(
            {**_renamed(content, "suite_id"), "items": [_item(item) for item in content["items"]]}
        )
    except ValidationError as error:
        raise InvalidConfig("\n".join(f"{file}: {v.path}: {v.reason}" for v in violations_of(error))) from None


def _item(item: object) -> object:
    if not isinstance(item, dict):
        return item
    renamed = _renamed(item, "item_id")
    grader = renamed.get("grader")
    if isinstance(grader, str):
        grader = {"kind": grader}
    if isinstance(grader, dict) and isinstance(kind := grader.get("kind"), str):
        renamed["grader"] = {**grader, "kind": f"GRADER_KIND_{kind.upper()}"}
    return renamed


def _renamed(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {name if key == "id" else str(key): value for key, value in content.items()}
