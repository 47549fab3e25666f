"""A database's URL is a setting, and settings are printed, logged and put into ConfigMaps: it must hold no password.

Used where the configuration is read and where the ledger is opened, by the service or by its command line.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

PASSWORD_ELSEWHERE = "holds a password; write it into a file and name that as database_password_file"  # noqa: S105


def holds_password(url: str) -> bool:
    """Whether a password stands in the URL, before the host or among the parameters."""
    parts = urlsplit(url)
    return ":" in parts.netloc.rpartition("@")[0] or any("password" in key.lower() for key, _ in parse_qsl(parts.query))
