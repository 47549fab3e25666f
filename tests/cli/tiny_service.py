"""A child for the launcher's tests: `python -m tests.cli.tiny_service --config FILE` serves grpc health and no more.

Its file says how it behaves: ready_when and die_when (once that file is there), deaf (ignores SIGTERM), litter (starts
a process of its own and forgets it), crash (ends at once with words on standard error).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import yaml
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from cli.launcher.plan import HEALTH_NAMES
from common.tls.credentials import server_credentials
from common.tls.reloading import Reloader
from common.tls.settings import TlsSettings


def log(event: str, **words: object) -> None:
    print(json.dumps({"event": event, **words}), file=sys.stderr, flush=True)


def wait_for(file: str) -> None:
    while not Path(file).exists():
        time.sleep(0.02)


def die(when: str) -> None:
    wait_for(when)
    os._exit(3)


async def serve(config: dict[str, Any], name: str) -> None:
    server = grpc.aio.server()
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    if "tls" in config:
        credentials = server_credentials(Reloader(TlsSettings.model_validate(config["tls"])))
        server.add_secure_port(config["listen"], credentials)
    else:
        server.add_insecure_port(config["listen"])
    await server.start()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, (lambda: None) if config.get("deaf") else stopping.set)
    log("loading the model")
    if "ready_when" in config:
        await asyncio.to_thread(wait_for, config["ready_when"])
    await checks.set(HEALTH_NAMES[name], health_pb2.HealthCheckResponse.SERVING)
    log("serving", pid=os.getpid())
    if "die_when" in config:
        threading.Thread(target=die, args=(config["die_when"],), daemon=True).start()
    await stopping.wait()
    await server.stop(0)
    log("stopped")


def main() -> None:
    file = Path(sys.argv[sys.argv.index("--config") + 1])
    config = yaml.safe_load(file.read_text())
    if config.get("crash"):
        log("starting")
        sys.exit("the model file is missing")
    if config.get("litter"):
        left = subprocess.Popen(["sleep", "600"])
        file.with_suffix(".litter").write_text(str(left.pid))
    asyncio.run(serve(config, file.stem))


if __name__ == "__main__":
    main()
