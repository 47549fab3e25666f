"""What is to be started: one configuration a service, from seal.yaml, from --set, and from what the launcher adds.

The launcher adds only what makes the three fit together on one machine: addresses, folders, the phase lock. Whatever
the user writes goes before it, except for free ports that were asked for. Unknown keys are the services' to refuse.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cli.connection import FILES, tls_of
from cli.failure import BadInput
from cli.launcher.ports import Address, free_port
from cli.taskfiles.positions import Unreadable, read_yaml
from common.tls.settings import TlsSettings

SERVICES = ("teacher", "student", "auditor")
HEALTH_NAMES = {
    "teacher": "seal.v1.TeacherService",
    "student": "seal.v1.StudentService",
    "auditor": "seal.v1.AuditorService",
}
PORTS = {"teacher": (50051, 9101), "student": (50052, 9102), "auditor": (50053, 9103)}
USUAL_CONFIG = Path("seal.yaml")
ADDRESSES = ("listen", "metrics_listen")


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
    def tls(self) -> TlsSettings | None:
        """Mutual TLS, however it was set. Raises BadInput for settings that are none."""
        written = self.settings.get("tls")
        try:
            return TlsSettings.model_validate(written) if written is not None else None
        except ValidationError:
            raise BadInput(f"{self.name}.tls: needs certificate, key and ca, paths of PEM files") from None

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
    fresh: bool = False

    def environment(self) -> dict[str, str]:
        """What the children get. A fresh plan is as it stands: no SEAL_SERVICE__KEY of the caller's reaches into it."""
        own = tuple(f"SEAL_{name.upper()}__" for name in SERVICES) if self.fresh else ()
        return {name: value for name, value in os.environ.items() if not (own and name.startswith(own))}

    def service(self, name: str) -> Service:
        return next(service for service in self.services if service.name == name)


def make_plan(
    *,
    data: Path,
    config: Path | None = None,
    settings: Sequence[str] = (),
    free_ports: bool = False,
    fresh: bool = False,
    wait_seconds: float = 900.0,
    tls: Path | None = None,
) -> Plan:
    """The plan for all three services. `config` left out: seal.yaml of the working folder, if there is one.

    fresh: free ports, and everything is kept under `data` whatever the user wrote, so that nothing that runs or lies
    elsewhere is touched. tls: a folder that `seal certificates` made, for mutual TLS between the three.

    Raises BadInput that names file, line and key.
    """
    folder = data.expanduser().absolute()
    written = _read(config or USUAL_CONFIG, must_exist=config is not None)
    for setting in settings:
        _put(written, setting)
    free_ports = free_ports or fresh
    ports = {name: (free_port(), free_port()) for name in SERVICES} if free_ports else PORTS
    added = {name: _added(name, folder, ports) for name in SERVICES}
    merged = {name: _merged(added[name], written.get(name, {})) for name in SERVICES}
    ours = set(added["teacher"]) | set(added["auditor"]) if fresh else set(ADDRESSES) if free_ports else set()
    for name in SERVICES:
        merged[name] |= {key: value for key, value in added[name].items() if key in ours}
    if tls is not None:
        for name in SERVICES:
            merged[name]["tls"] = _own_certificate(tls.expanduser().absolute(), name)
    _connect(merged["auditor"], merged, written.get("auditor", {}), override=free_ports)
    return Plan(
        data=folder,
        services=tuple(Service(name, merged[name], name, HEALTH_NAMES[name]) for name in SERVICES),
        wait_seconds=wait_seconds,
        fresh=fresh,
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


def _own_certificate(folder: Path, name: str) -> dict[str, Any]:
    """A service's tls settings. Raises BadInput where its certificate is missing or cannot be used."""
    if not (folder / name / FILES[0]).is_file():
        raise BadInput(f"--tls {folder}: has no {name}/{FILES[0]}", f"Make it with `seal certificates {folder}`.")
    return tls_of(folder / name).model_dump(mode="json")


def _connect(
    auditor: dict[str, Any], merged: Mapping[str, Mapping[str, Any]], written: Mapping[str, Any], *, override: bool
) -> None:
    """Tells the auditor where the other two listen, unless the user did."""
    for peer in ("teacher", "student"):
        own = written.get(peer)
        if own is not None and not isinstance(own, dict):
            raise BadInput(f"auditor.{peer} must be a mapping of keys to values, such as target: HOST:PORT")
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
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadInput(f"{file}:{mark.line + 1 if mark else 1}: {error.problem or error.context}") from None
    except ValueError as error:
        raise BadInput(f"{file}: holds a value that is none: {error}") from None
    for line, key in lines.duplicates if lines else ():
        raise BadInput(f"{file}:{line}: {key} occurs twice")
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
    except (yaml.YAMLError, ValueError):
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
