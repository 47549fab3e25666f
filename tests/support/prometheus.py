"""A real Prometheus, from Debian's package, that scrapes what it is told every second and answers queries."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cli.launcher.ports import free_port
from tools.debian import program

READY_SECONDS = 30.0
CONFIG = Path(__file__).parents[2] / "deploy/monitoring/prometheus/prometheus.yml"


@dataclass(frozen=True)
class Series:
    """labels, and (time, value) pairs in order."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Prometheus:
    base_url: str

    def query(self, expr: str) -> list[Series]:
        """Every series' newest value. Raises ValueError with Prometheus's words for a query that it refuses."""
        found = self._ask("query", query=expr)
        return [Series(one["metric"], (_point(one["value"]),)) for one in found["result"]]

    def range(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        found = self._ask("query_range", query=expr, start=start, end=end, step=step)
        return [Series(one["metric"], tuple(map(_point, one["values"]))) for one in found["result"]]

    def until(self, expr: str, seconds: float = 30.0) -> None:
        """Waits until a scrape has brought what `expr` looks for."""
        end = time.monotonic() + seconds
        while not self.query(expr):
            if time.monotonic() > end:
                raise TimeoutError(f"no scrape brought {expr}")
            time.sleep(0.2)

    def healthy(self) -> set[str]:
        """Jobs whose newest scrape succeeded."""
        return {series.labels["job"] for series in self.query("up == 1")}

    def rules(self) -> list[dict[str, Any]]:
        """Every rule as it stands: its health, and of an alert its state."""
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def _ask(self, call: str, **parameters: object) -> Any:
        url = f"{self.base_url}/api/v1/{call}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{json.load(error)['error']}: {parameters}") from None


def _point(pair: list[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


@contextmanager
def watching(folder: Path, targets: Mapping[str, str], rules: Sequence[Path] = ()) -> Iterator[Prometheus]:
    """The configuration that ships, with other targets (host:port of each job), every second.

    rules: files of rules to evaluate.
    """
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(path.absolute()) for path in rules]
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        str(program("prometheus", "prometheus")),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            base_url = f"http://127.0.0.1:{port}"
            _until_ready(base_url, process, folder / "log")
            yield Prometheus(base_url)
        finally:
            process.terminate()


def _until_ready(base_url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{base_url}/-/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"Prometheus is not ready:\n{log.read_text()}")
