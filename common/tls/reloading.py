"""A process's certificate, read again whenever its files change.

What always holds: `current` is whole and has worked; a bad file (half-written, a key that does not fit, an expired
certificate) changes nothing but a counter and a line in the log. Used by servers for every handshake and by channels
before every call, from any thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from common.errors import InvalidConfig
from common.metrics import CERTIFICATE_EXPIRY, CERTIFICATE_RELOAD_FAILURES
from common.tls.material import Material, read_material
from common.tls.settings import TlsSettings


class Reloader:
    """Raises InvalidConfig when the files cannot be used at the start."""

    def __init__(self, settings: TlsSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._looked = clock()
        self._seen = self._stamps()
        self._refused = ""
        self._current = read_material(settings)
        self._export()

    @property
    def current(self) -> Material:
        """The newest good material; looks at the files if `reload_seconds` have passed."""
        with self._lock:
            if self._clock() - self._looked >= self.settings.reload_seconds:
                self._look()
            return self._current

    def _look(self) -> None:
        self._looked = self._clock()
        stamps = self._stamps()
        if stamps == self._seen and not self._refused:
            return
        try:
            fresh = read_material(self.settings)
        except InvalidConfig as error:
            if (stamps, error.message) != (self._seen, self._refused):  # once a bad set of files, not once a look
                CERTIFICATE_RELOAD_FAILURES.inc()
                structlog.get_logger("tls").warning("certificate not reloaded; the last one is kept", why=error.message)
            self._seen, self._refused = stamps, error.message
            return
        self._seen, self._refused = stamps, ""
        if fresh.fingerprint != self._current.fingerprint:
            self._current = fresh
            self._export()
            expires = fresh.leaf_expires.isoformat()
            structlog.get_logger("tls").info("certificate reloaded", identity=str(fresh.identity), expires=expires)

    def _export(self) -> None:
        CERTIFICATE_EXPIRY.labels("own").set(self._current.leaf_expires.timestamp())
        CERTIFICATE_EXPIRY.labels("ca").set(self._current.ca_expires.timestamp())

    def _stamps(self) -> tuple[tuple[int, int, int], ...]:
        """What changes when a file is written or replaced; Kubernetes replaces a link in front of the files."""
        stamps = []
        for path in (self.settings.certificate, self.settings.key, self.settings.ca):
            try:
                found = path.stat()
                stamps.append((found.st_mtime_ns, found.st_ino, found.st_size))
            except OSError:
                stamps.append((0, 0, 0))
        return tuple(stamps)
