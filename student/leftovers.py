"""Removes what replicas that were killed left half written, once it is so old that nobody can be writing it any more.

Every replica does: none knows of the others. What is whole is never touched.
"""

from __future__ import annotations

import asyncio

import structlog

from common.errors import SealError
from student.storage.port import Storage

HOUR_SECONDS = 3_600.0


async def keep_swept(storage: Storage, older_than_seconds: float) -> None:
    """Sweeps now and every hour, until it is cancelled."""
    log = structlog.get_logger("leftovers")
    while True:
        try:
            removed = await asyncio.to_thread(storage.sweep, older_than_seconds)
        except (SealError, OSError) as error:
            log.warning("the store was not swept", problem=type(error).__name__)
        else:
            if removed:
                log.info("leftovers removed", removed=removed)
        await asyncio.sleep(HOUR_SECONDS)
