"""Typed configuration: one object a service, unknown keys fail, every value has one source of truth.

Sources, later ones win: defaults, `--config FILE` (YAML), environment (SEAL_TEACHER__GENERATION__TOP_P=0.9), `--set
generation.top_p=0.9`. `--print-config` shows what came out.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator

from common.convert import violations_of
from common.errors import InvalidConfig
from common.rpc.limits import CallLimits
from common.settings import Config
from common.tls.settings import TlsSettings
from common.tracing.settings import TracingSettings

__all__ = ["Config", "ServiceConfig", "load_config", "resolve"]

ADDRESS = r"^[^\s]+:\d{1,5}$"


class ServiceConfig(Config):
    """What every service has."""

    listen: str = Field(pattern=r"^[^\s]+:\d{1,5}$", description="host:port of the gRPC server; port 0 picks one")
    metrics_listen: str = Field(
        default="", pattern=r"^$|^[^\s]+:\d{1,5}$", description="host:port of Prometheus metrics; empty: none"
    )
    health_listen: str = Field(
        default="",
        pattern=rf"^$|{ADDRESS}",
        description="host:port that answers grpc.health.v1 in plain text and nothing else, for probes; empty: none",
    )
    tls: TlsSettings | None = Field(default=None, description="mutual TLS; left out: plain text, on loopback alone")
    limits: CallLimits = Field(default=CallLimits(), description="what callers may ask of the service at once")
    reflection: bool = Field(default=False, description="answer gRPC server reflection")
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    grace_seconds: float = Field(default=10.0, ge=0, le=600, description="time for calls to end at shutdown")
    max_message_mib: int = Field(default=32, ge=1, le=512)
    default_deadline_seconds: float = Field(
        default=7_200.0, gt=0, description="longest a call may take when its caller set no deadline"
    )
    tracing: TracingSettings = Field(default=TracingSettings(), description="OpenTelemetry traces; off by default")

    @field_validator("tls")
    @classmethod
    def _plain_text_stays_here(cls, tls: TlsSettings | None, info: ValidationInfo) -> TlsSettings | None:
        listen = info.data.get("listen", "")
        if tls is None and listen and not is_loopback(listen.rpartition(":")[0]):
            raise ValueError(
                f"listen is {listen}, which other machines reach, and that takes mutual TLS: set tls.certificate,"
                " tls.key and tls.ca (`seal certificates FOLDER` makes some), or listen at 127.0.0.1"
            )
        return tls


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`. A name other than localhost is taken for another machine's."""
    bare = host.strip("[]")
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return bare == "localhost"


ConfigT = TypeVar("ConfigT", bound=ServiceConfig)
SettingsT = TypeVar("SettingsT", bound=Config)


def load_config(model: type[ConfigT], service: str, argv: Sequence[str] | None = None) -> ConfigT:
    """The resolved configuration of `python -m SERVICE`. Prints it and exits on --print-config.

    Exits with status 2 and one line an error when the configuration cannot be used.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {service}", description=f"SEAL {service} service.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting, as a.b=value")
    parser.add_argument("--print-config", action="store_true", help="print the resolved settings and exit")
    arguments = parser.parse_args(argv)
    try:
        config = resolve(model, service, file=arguments.config, settings=arguments.set, environment=os.environ)
    except InvalidConfig as error:
        parser.exit(2, f"{error.message}\n")
    if arguments.print_config:
        yaml.safe_dump(config.model_dump(mode="json"), sys.stdout, sort_keys=False)
        parser.exit(0)
    return config


def resolve(
    model: type[SettingsT],
    service: str,
    *,
    file: Path | None = None,
    options: Sequence[tuple[str, str, object]] = (),
    settings: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> SettingsT:
    """Merges all sources into one configuration. Raises InvalidConfig that names source and key.

    options: a command's own, as (flag, key, value); flags are what a refusal names.
    """
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    if file is not None:
        for path, value in _leaves(_read(file)):
            _put(values, origin, path, value, str(file))
    prefix = f"SEAL_{service.upper()}__"
    for name in sorted(environment or {}):
        if name.startswith(prefix) and environment is not None:
            path = name.removeprefix(prefix).lower().split("__")
            _put(values, origin, path, _scalar(environment[name]), name)
    for flag, key, value in options:
        _put(values, origin, key.split("."), value, flag)
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or not key:
            raise InvalidConfig(f"--set {setting}: expected KEY=VALUE")
        _put(values, origin, key.split("."), _scalar(text), f"--set {key}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InvalidConfig("\n".join(_explain(v.path, v.reason, origin) for v in violations_of(error))) from None


def _explain(path: str, reason: str, origin: Mapping[str, str]) -> str:
    if reason == "Extra inputs are not permitted":
        reason = "unknown key"
    source = next((source for key, source in origin.items() if path == key or path.startswith(f"{key}.")), None)
    source = source or next((source for key, source in origin.items() if key.startswith(path)), "configuration")
    return f"{source}: {path}: {reason}"


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text()) or {}
    except OSError as error:
        raise InvalidConfig(f"{file}: {error.strerror}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InvalidConfig(f"{file}{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(content, dict):
        raise InvalidConfig(f"{file}: expected settings (key: value), found a {type(content).__name__}")
    return content


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[tuple[list[str], Any]]:
    found: list[tuple[list[str], Any]] = []
    for key, value in tree.items():
        here = (*path, str(key))
        found += _leaves(value, here) if isinstance(value, dict) and value else [(list(here), value)]
    return found


def _put(values: dict[str, Any], origin: dict[str, str], path: Sequence[str], value: object, source: str) -> None:
    node = values
    for step in path[:-1]:
        child = node.setdefault(step, {})
        if not isinstance(child, dict):
            raise InvalidConfig(f"{source}: {'.'.join(path)}: {step} is a value, not a group of settings")
        node = child
    node[path[-1]] = value
    origin[".".join(path)] = source


def _scalar(text: str) -> object:
    """A value from a flag or the environment, read as YAML: numbers, booleans, lists, or the text itself."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return text if value is None and text.strip() not in {"null", "~"} else value
