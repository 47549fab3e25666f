"""Whose certificate a command shows: `--tls FOLDER`, for every channel that the command opens.

An option's callback notes the folder, so that it need not be handed through every function between. Imports nothing
heavy: cli/main.py answers --help at once.
"""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from cli.failure import BadInput

if TYPE_CHECKING:
    from common.tls.settings import TlsSettings

FILES = ("tls.crt", "tls.key", "ca.crt")
_folder: ContextVar[Path | None] = ContextVar("tls", default=None)


def choose_tls(folder: Path | None) -> Path | None:
    """Callback of --tls. Also takes the folder that `seal certificates` made, and in it the operator's own."""
    if folder is None:
        _folder.set(None)
        return None
    own = folder.expanduser()
    if not (own / FILES[0]).exists() and (own / "operator" / FILES[0]).exists():
        own = own / "operator"
    for name in FILES:
        if not (own / name).is_file():
            raise BadInput(
                f"--tls {folder}: holds no {name}", "`seal certificates FOLDER` makes certificates for this machine."
            )
    _folder.set(own)
    return own


def own_tls() -> TlsSettings | None:
    """What the command was told; None: plain text."""
    folder = _folder.get()
    return tls_of(folder) if folder is not None else None


def tls_of(folder: Path) -> TlsSettings:
    """Settings for an identity's folder; its certificate says of which trust domain it is. Raises BadInput."""
    from common.errors import InvalidConfig
    from common.tls.material import trust_domain_of
    from common.tls.settings import TlsSettings

    try:
        return TlsSettings.of_folder(folder, trust_domain_of(folder / FILES[0]))
    except InvalidConfig as error:
        raise BadInput(error.message, "`seal certificates FOLDER` renews certificates for this machine.") from None
