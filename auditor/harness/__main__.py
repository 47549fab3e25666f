"""python -m auditor.harness: marks one version of a running student on tasks of lm_eval, without an auditor.

For trying a task before it becomes a suite, and for looking into single documents. Keeps nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import uuid
from pathlib import Path

from auditor.clients import GrpcStudent
from auditor.config import Retries, Timeouts
from auditor.harness.config import HarnessTask
from auditor.harness.suite import HarnessSuite
from auditor.speaking import VersionSpeaker
from common.boundary.identities import Role
from common.errors import SealError
from common.rpc.client import open_channel
from common.tls.material import trust_domain_of
from common.tls.settings import CERTIFICATE, TlsSettings


async def mark(target: str, version: str, measure: HarnessSuite, tls: TlsSettings | None = None) -> dict[str, object]:
    """The task's mean, and each document's mark and answer."""
    channel = open_channel(target, tls=tls, expects=Role.STUDENT)
    try:
        student = GrpcStudent(channel, Timeouts(), Retries())
        speaker = VersionSpeaker(student, version, lambda kind, _: f"{kind}-{uuid.uuid4().hex}", lambda _: None)
        found = await measure.measure(speaker)
    finally:
        await channel.close()
    return {
        "suite": measure.suite.suite_id,
        "title": measure.suite.title,
        "version": speaker.proof.version if speaker.proof else version,
        "liveness": speaker.proof.liveness if speaker.proof else None,
        "mean": sum(m.score for m in found) / len(found),
        "documents": [{"id": m.item_id, "score": m.score, "answer": m.answer} for m in found],
    }


def own_certificate(folder: Path) -> TlsSettings:
    """Raises InvalidConfig."""
    return TlsSettings.of_folder(folder, trust_domain_of(folder / CERTIFICATE))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m auditor.harness", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task", help="lm_eval's name of a task or group")
    parser.add_argument("--include-path", type=Path, help="folder with the task's YAML and data")
    parser.add_argument("--student", default="127.0.0.1:50052", help="host:port of the student")
    parser.add_argument("--tls", type=Path, metavar="FOLDER", help="an auditor's tls.crt, tls.key and ca.crt")
    parser.add_argument("--version", default="live", help="base, an adapter's digest, or an alias")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--num-fewshot", type=int)
    parser.add_argument("--metric", default="")
    parser.add_argument("--filter", default="")
    parser.add_argument("--online", action="store_true", help="let lm_eval fetch data from the hub")
    given = parser.parse_args()
    try:
        task = HarnessTask(
            include_path=given.include_path,
            limit=given.limit,
            num_fewshot=given.num_fewshot,
            metric=given.metric,
            filter=given.filter,
        )
        measure = HarnessSuite.open(given.task, task, offline=not given.online)
        tls = own_certificate(given.tls) if given.tls else None
        print(json.dumps(asyncio.run(mark(given.student, given.version, measure, tls)), ensure_ascii=False))
    except SealError as error:
        sys.exit(error.message)


if __name__ == "__main__":
    main()
