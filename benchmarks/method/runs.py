"""Carries out one benchmark and writes what it found in a folder of its name: result.json, table.md, picture.svg."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.heat_map import heat_map
from benchmarks.method import continual, continual_report, passages, planned
from benchmarks.method.asked import Asked, CorpusSettings, settings_of
from benchmarks.method.continual_results import ContinualTable
from benchmarks.method.continual_settings import ContinualSettings
from benchmarks.method.pictures import picture
from benchmarks.method.planned import Plan
from benchmarks.method.report import report
from benchmarks.method.results import Table
from benchmarks.method.settings import BenchSettings
from common.canonical import canonical_json
from common.files import write_atomically


@dataclass(frozen=True)
class Done:
    """figures: without the answers that they were made of, which stand in result.json."""

    report: str
    files: str
    figures: dict[str, Any]


def run(asked: Asked) -> Done:
    """Raises SealError."""
    if asked.bench == "continual":
        sequences = settings_of(asked, ContinualSettings)
        return written_continual(continual.run(sequences), sequences.folder)
    if asked.bench == "corpus":
        whole = settings_of(asked, CorpusSettings)
        return written(passages.run(whole, whole.together), whole.folder)
    settings = settings_of(asked, BenchSettings)
    return written(passages.run(settings), settings.folder)


def plan(asked: Asked) -> Plan:
    """What `run` would train and how long that takes. Raises InvalidConfig."""
    if asked.bench == "continual":
        return planned.plan_continual(settings_of(asked, ContinualSettings))
    if asked.bench == "corpus":
        whole = settings_of(asked, CorpusSettings)
        return planned.plan(whole, whole.together)
    return planned.plan(settings_of(asked, BenchSettings), 1)


def written(table: Table, folder: Path) -> Done:
    """Replaces what an earlier run wrote there."""
    text = report(table)
    files = save(folder / table.bench, canonical_json(table), text, picture(table))
    return Done(text, files, {**table.model_dump(mode="json", exclude={"answered"}), "folder": str(folder)})


def written_continual(table: ContinualTable, folder: Path) -> Done:
    text = continual_report.report(table)
    files = save(folder / table.bench, canonical_json(table), text, heat_map(table.matrices))
    return Done(text, files, {**table.model_dump(mode="json", exclude={"sequences"}), "folder": str(folder)})


def save(folder: Path, result: bytes, table: str, svg: str) -> str:
    """What was written, in words."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "result.json", result)
    write_atomically(folder / "table.md", f"{table}\n".encode())
    write_atomically(folder / "picture.svg", svg.encode())
    return f"{folder}: result.json (with every answer), table.md, picture.svg"
