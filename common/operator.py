"""The person at the keyboard, as the operating system knows them."""

from __future__ import annotations

import getpass
import os


def user_name() -> str:
    """Who runs this process; a container's user need not have a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"
