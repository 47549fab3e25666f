"""YAML read with the line of every key and value.

Scalars stay as they are written (`2,600`, `007`, `yes`): a key of an evaluation must not change because YAML knows
numbers and dates. A key that occurs twice is a problem, for YAML would silently take the last one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from cli.taskfiles.problems import Location

MAX_NODES = 1_000_000


class Unreadable(Exception):
    """The text is no YAML that can be used. `line` counts from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


@dataclass
class Marked:
    """Plain data and where each part of it stands."""

    data: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    duplicates: list[tuple[int, str]] = field(default_factory=list)

    def line(self, location: Location) -> int:
        """The line of a location, or of the nearest thing around it that the file does have."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)


def read_yaml(text: str) -> Marked:
    """Raises Unreadable, with the line, for what is not YAML, refers to itself or unfolds without end."""
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Unreadable(mark.line + 1 if mark else 1, f"no valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise Unreadable(1, f"no valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise Unreadable(1, "nested too deeply") from None
    if root is None:
        raise Unreadable(1, "the file is empty")
    marked = Marked()
    try:
        marked.data = _Reader(marked).read(root, ())
    except RecursionError:
        raise Unreadable(1, "nested too deeply") from None
    return marked


class _Reader:
    def __init__(self, marked: Marked) -> None:
        self.marked = marked
        self.open: set[int] = set()
        self.nodes = 0

    def read(self, node: yaml.Node, location: Location) -> Any:
        line = node.start_mark.line + 1
        self.marked.lines.setdefault(location, line)
        self.nodes += 1
        if id(node) in self.open:
            raise Unreadable(line, "an anchor refers to itself")
        if self.nodes > MAX_NODES:
            raise Unreadable(line, f"more than {MAX_NODES:,} values")
        self.open.add(id(node))
        try:
            return self._content(node, location)
        finally:
            self.open.discard(id(node))

    def _content(self, node: yaml.Node, location: Location) -> Any:
        if isinstance(node, yaml.SequenceNode):
            return [self.read(child, (*location, index)) for index, child in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return str(node.value)
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise Unreadable(line, "a key must be a word")
            key = str(key_node.value)
            if key in mapping:
                self.marked.duplicates.append((line, key))
                continue
            self.marked.lines[(*location, key)] = line
            mapping[key] = self.read(value_node, (*location, key))
        return mapping
