"""What is to be started: one configuration a service, from seal.yaml, from --set, and from what the launcher adds.

The launcher adds only what makes the three fit together on one machine: addresses, folders, the phase lock. Whatever
the user writes goes before it, except for free ports that were asked for. Unknown keys are the services' to refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cli.failure import BadInput
from cli.launcher.ports import Address, free_port
from cli.taskfiles.positions import Unreadable, read_yaml

SERVICES = ("teacher", "student", "auditor")
HEALTH_NAMES = {
    "teacher": "seal.v1.TeacherService",
    "student": "seal.v1.StudentService",
    "auditor": "seal.v1.AuditorService",
}
PORTS = {"teacher": (50051, 9101), "student": (50052, 9102), "auditor": (50053, 9103)}
USUAL_CONFIG = Path("seal.yaml")


@dataclass(frozen=True)
class Service:
    """One child. `module` is what `python -m` runs; `settings` is all of its configuration file."""

    name: str
    settings: Mapping[str, Any]
    module: str
    health_name: str

    @property
    def address(self) -> Address:
        return Address.parse(f"{self.name}.listen", self.settings["listen"])

    @property
    def metrics(self) -> Address | None:
        text = self.settings.get("metrics_listen") or ""
        return Address.parse(f"{self.name}.metrics_listen", text) if text else None


@dataclass(frozen=True)
class Plan:
    """Everything that the launcher needs to know. `data` is an absolute folder."""

    data: Path
    services: tuple[Service, ...]
    wait_seconds: float = 900.0
    grace_seconds: float = 20.0
    environment: Mapping[str, str] = field(default_factory=dict)

    def service(self, name: str) -> Service:
        return next(service for service in self.services if service.name == name)


def make_plan(
    *,
    data: Path,
    config: Path | None = None,
    settings: Sequence[str] = (),
    free_ports: bool = False,
    wait_seconds: float = 900.0,
) -> Plan:
    """The plan for all three services. `config` left out: seal.yaml of the working folder, if there is one.

    Raises BadInput that names file, line and key.
    """
    folder = data.expanduser().absolute()
    written = _read(config or USUAL_CONFIG, must_exist=config is not None)
    for setting in settings:
        _put(written, setting)
    ports = {name: (free_port(), free_port()) for name in SERVICES} if free_ports else PORTS
    merged = {name: _merged(_added(name, folder, ports), written.get(name, {})) for name in SERVICES}
    if free_ports:
        for name in SERVICES:
            listen, metrics = ports[name]
            merged[name] |= {"listen": f"127.0.0.1:{listen}", "metrics_listen": f"127.0.0.1:{metrics}"}
    _connect(merged["auditor"], merged, written.get("auditor", {}), override=free_ports)
    return Plan(
        data=folder,
        services=tuple(Service(name, merged[name], name, HEALTH_NAMES[name]) for name in SERVICES),
        wait_seconds=wait_seconds,
    )


def _added(name: str, folder: Path, ports: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """What the launcher adds to a service's configuration."""
    listen, metrics = ports[name]
    own: dict[str, Callable[[], dict[str, Any]]] = {
        "teacher": lambda: {"store": str(folder / "teacher"), "heavy_lock": str(folder / "phase.lock")},
        "student": lambda: {"store": str(folder / "student"), "heavy_lock": str(folder / "phase.lock")},
        "auditor": lambda: {"database": f"sqlite:///{folder / 'auditor' / 'ledger.db'}"},
    }
    return {"listen": f"127.0.0.1:{listen}", "metrics_listen": f"127.0.0.1:{metrics}", **own[name]()}


def _connect(
    auditor: dict[str, Any], merged: Mapping[str, Mapping[str, Any]], written: Mapping[str, Any], *, override: bool
) -> None:
    """Tells the auditor where the other two listen, unless the user did."""
    for peer in ("teacher", "student"):
        own = written.get(peer)
        if override or not (isinstance(own, dict) and "target" in own):
            address = Address.parse(f"{peer}.listen", merged[peer]["listen"])
            auditor[peer] = {**(own if isinstance(own, dict) else {}), "target": address.dialled}


def _read(file: Path, *, must_exist: bool) -> dict[str, Any]:
    if not file.exists() and not must_exist:
        return {}
    try:
        text = file.read_text(encoding="utf-8")
        lines = read_yaml(text) if text.strip() else None
        content = yaml.safe_load(text) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: cannot be read: {getattr(error, 'strerror', None) or 'no UTF-8 text'}") from None
    except Unreadable as error:
        raise BadInput(f"{file}:{error.line}: {error.reason}") from None
    known = ", ".join(SERVICES)
    if not isinstance(content, dict):
        raise BadInput(f"{file}:1: must have sections {known}")
    for name, section in content.items():
        line = lines.line((str(name),)) if lines else 1
        if name not in SERVICES:
            raise BadInput(f"{file}:{line}: {name} is not a known section", f"Known sections: {known}.")
        if not isinstance(section, dict) and section is not None:
            raise BadInput(f"{file}:{line}: {name} must be a mapping of keys to values")
    return {str(name): section or {} for name, section in content.items()}


def _put(sections: dict[str, Any], setting: str) -> None:
    key, separator, text = setting.partition("=")
    steps = key.split(".")
    if not separator or len(steps) < 2 or steps[0] not in SERVICES:
        example = "Example: --set student.log_level=debug"
        raise BadInput(f"--set {setting}: expected SERVICE.KEY=VALUE with one of {', '.join(SERVICES)}", example)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    node = sections
    for step in steps[:-1]:
        node = node.setdefault(step, {})
        if not isinstance(node, dict):
            raise BadInput(f"--set {key}: {step} is a value, not a group of settings")
    node[steps[-1]] = value


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        inner = merged.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged
