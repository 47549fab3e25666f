"""One file in, messages and problems out. Called by cli/taskfiles/load.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from cli.taskfiles.format import ListedPassage, SuiteEntry, TaskEntry
from cli.taskfiles.items import ItemEntry
from cli.taskfiles.messages import passage_message, suite_message, task_message
from cli.taskfiles.positions import Marked, Unreadable, read_yaml
from cli.taskfiles.problems import Location, Problem, explain, named
from common.contract.seal.v1 import task_pb2
from common.convert import path_of

ModelT = TypeVar("ModelT", bound=BaseModel)
MAX_CONTEXT = 65_536
PASSAGES = TypeAdapter(list[ListedPassage])


def read_task(path: Path, problems: list[Problem]) -> list[tuple[task_pb2.Task, str]]:
    """The task of a YAML file, with the line of its id; empty if the file has a problem."""
    found = _read_entry(path, TaskEntry, problems)
    if found is None:
        return []
    entry, marked = found
    repeated = _repeated_items(path, marked, {"tau": entry.tau, "retention": entry.retention})
    problems += repeated
    text = entry.context if entry.context is not None else _context_file(path, entry, marked, problems)
    return [] if text is None or repeated else [(task_message(entry, text), str(marked.line(("id",))))]


def read_suite(path: Path, problems: list[Problem]) -> list[tuple[task_pb2.Suite, str]]:
    """The suite of a YAML file, with the line of its id; empty if the file has a problem."""
    found = _read_entry(path, SuiteEntry, problems)
    if found is None:
        return []
    entry, marked = found
    repeated = _repeated_items(path, marked, {"items": entry.items})
    problems += repeated
    return [] if repeated else [(suite_message(entry), str(marked.line(("id",))))]


def read_list(path: Path, problems: list[Problem]) -> list[tuple[task_pb2.Task, str]]:
    """The tasks of a JSON list, each with its path in the file."""
    text = read_text(path, problems)
    if text is None:
        return []
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        problems.append(Problem(str(path), str(error.lineno), f"no valid JSON: {error.msg}"))
        return []
    except RecursionError:
        problems.append(Problem(str(path), "", "no valid JSON: nested too deeply"))
        return []
    try:
        passages = PASSAGES.validate_python(data)
    except ValidationError as error:
        problems += [Problem(str(path), path_of(location), reason) for location, reason in explain(error)]
        return []
    if not passages:
        problems.append(Problem(str(path), "", "the list is empty"))
    return [(passage_message(passage, n), f"[{n - 1}]") for n, passage in enumerate(passages, start=1)]


def read_text(path: Path, problems: list[Problem]) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        problems.append(Problem(str(path), "", f"no UTF-8 text (byte {error.start})"))
    except OSError as error:
        problems.append(Problem(str(path), "", f"cannot be read: {error.strerror}"))
    except ValueError as error:
        problems.append(Problem(str(path), "", f"is no path: {error}"))
    return None


def _read_entry(path: Path, model: type[ModelT], problems: list[Problem]) -> tuple[ModelT, Marked] | None:
    text = read_text(path, problems)
    if text is None:
        return None
    try:
        marked = read_yaml(text)
    except Unreadable as error:
        problems.append(Problem(str(path), str(error.line), error.reason))
        return None
    problems += [Problem(str(path), str(line), f"{key} occurs twice") for line, key in marked.duplicates]
    try:
        entry = model.model_validate(marked.data)
    except ValidationError as error:
        for location, reason in explain(error):
            problems.append(Problem(str(path), str(marked.line(location)), named(location, reason)))
        return None
    return None if marked.duplicates else (entry, marked)


def _repeated_items(path: Path, marked: Marked, parts: dict[str, Sequence[ItemEntry]]) -> list[Problem]:
    found = []
    seen: dict[str, int] = {}
    for part, entries in parts.items():
        for index, entry in enumerate(entries):
            location: Location = (part, index, "id")
            line = marked.line(location)
            if entry.id in seen:
                reason = f"{path_of(location)} {entry.id} is also on line {seen[entry.id]}"
                found.append(Problem(str(path), str(line), reason))
            seen.setdefault(entry.id, line)
    return found


def _context_file(path: Path, entry: TaskEntry, marked: Marked, problems: list[Problem]) -> str | None:
    """The text of context_file, which is looked up beside the task file."""
    beside = path.parent / str(entry.context_file)
    line = str(marked.line(("context_file",)))
    inner: list[Problem] = []
    text = read_text(beside, inner)
    problems += [Problem(str(path), line, f"context_file {beside} {problem.reason}") for problem in inner]
    if text is None:
        return None
    text = text.strip()
    if not text or len(text) > MAX_CONTEXT:
        reason = "is empty" if not text else f"is longer than {MAX_CONTEXT} characters"
        problems.append(Problem(str(path), line, f"context_file {beside} {reason}"))
        return None
    return text
