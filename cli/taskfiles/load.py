"""Reads everything that a command line names, or refuses all of it.

Called by `seal run` and `seal demo`. Either every file is sound, or BadFiles lists every problem of every file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from cli.taskfiles.problems import BadFiles, Problem
from cli.taskfiles.readers import read_list, read_suite, read_task
from common.contract.seal.v1 import task_pb2

YAML_SUFFIXES = {".yaml", ".yml"}
JSON_SUFFIXES = {".json"}
EntryT = TypeVar("EntryT", task_pb2.Task, task_pb2.Suite)


def load_tasks(paths: Sequence[Path], *, limit: int | None = None) -> list[task_pb2.Task]:
    """Tasks of files and folders, in the order given, folders sorted by name; the first `limit` of them.

    YAML files hold one task each, JSON files a list of passages. Every file is checked, also beyond the limit.
    Raises BadFiles.
    """

    def read(path: Path, problems: list[Problem]) -> list[tuple[task_pb2.Task, str]]:
        return (read_list if path.suffix.lower() in JSON_SUFFIXES else read_task)(path, problems)

    return _load(paths, YAML_SUFFIXES | JSON_SUFFIXES, read, lambda task: task.task_id, "task")[:limit]


def load_suites(paths: Sequence[Path]) -> list[task_pb2.Suite]:
    """Suites of YAML files and folders of them. Raises BadFiles."""
    return _load(paths, YAML_SUFFIXES, read_suite, lambda suite: suite.suite_id, "suite")


def _load(
    paths: Sequence[Path],
    suffixes: set[str],
    read: Callable[[Path, list[Problem]], list[tuple[EntryT, str]]],
    name: Callable[[EntryT], str],
    noun: str,
) -> list[EntryT]:
    problems: list[Problem] = []
    entries: list[EntryT] = []
    first: dict[str, str] = {}
    for path in _files(paths, suffixes, noun, problems):
        for entry, where in read(path, problems):
            place = f"{path}:{where}"
            if name(entry) in first:
                problems.append(Problem(str(path), where, f"id {name(entry)} is also the id of {first[name(entry)]}"))
            first.setdefault(name(entry), place)
            entries.append(entry)
    if problems:
        raise BadFiles(problems)
    return entries


def _files(paths: Sequence[Path], suffixes: set[str], noun: str, problems: list[Problem]) -> list[Path]:
    files: list[Path] = []
    expected = ", ".join(sorted(suffixes))
    for path in paths:
        if path.is_dir():
            inside = sorted(entry for entry in path.iterdir() if entry.is_file() and entry.suffix.lower() in suffixes)
            if not inside:
                problems.append(Problem(str(path), "", f"the folder holds no {noun} file ({expected})"))
            files += inside
        elif not path.exists():
            problems.append(Problem(str(path), "", "no such file or folder"))
        elif path.suffix.lower() not in suffixes:
            problems.append(Problem(str(path), "", f"no {noun} file: its name must end in {expected}"))
        else:
            files.append(path)
    return files
