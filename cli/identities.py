"""`seal certificates`: an authority in FOLDER/ca, and one folder an identity beside it.

FOLDER/operator is the person who runs the command; FOLDER/operator-NAME anybody else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cli.certificates import LOCAL_HOSTS, Authority
from cli.failure import BadInput, Failure
from cli.render.console import output
from cli.render.plain import emit
from common.boundary.identities import NAME, TRUST_DOMAIN, Identity, Role
from common.operator import user_name

AUTHORITY = "ca"
COLLEAGUE = "operator-"


@dataclass(frozen=True)
class Made:
    """What was written: each identity's folder."""

    folder: Path
    trust_domain: str
    folders: dict[str, Identity]

    def show(self, *, as_json: bool) -> None:
        for name, identity in self.folders.items():
            where, uri = self.folder / name, identity.uri(self.trust_domain)
            if as_json:
                emit({"folder": str(where), "identity": uri})
            else:
                output().print(f"  {where}  {uri}", markup=False)
        if not as_json:
            output().print(f"Use them with:  seal up --tls {self.folder}", markup=False)
            output().print(f"and:            export SEAL_TLS={self.folder / 'operator'}", markup=False)
            output().print(f"Keep {self.folder / AUTHORITY / 'ca.key'} to yourself: who has it can be anybody.")


def make_certificates(
    folder: Path, *, operators: Sequence[str], hosts: Sequence[str], days: int, trust_domain: str
) -> Made:
    """Raises BadInput for a name that no certificate can carry, Failure when the folder cannot be used."""
    wrong = next((name for name in operators if re.fullmatch(NAME, name) is None), None)
    if wrong is not None:
        raise BadInput(f"--operator {wrong}: expected letters, digits and . _ - (at most 64)")
    if re.fullmatch(TRUST_DOMAIN, trust_domain) is None:
        raise BadInput(f"--trust-domain {trust_domain}: expected lower-case letters, digits and . _ -")
    folders = {str(role): Identity(role) for role in Role if role is not Role.OPERATOR}
    folders["operator"] = Identity(Role.OPERATOR, _own_name())
    # Whoever has a certificate here gets it renewed with the others.
    known = [path.name.removeprefix(COLLEAGUE) for path in sorted(folder.glob(f"{COLLEAGUE}*"))]
    names = [*operators, *(name for name in known if re.fullmatch(NAME, name))]
    folders |= {f"{COLLEAGUE}{name}": Identity(Role.OPERATOR, name) for name in names}
    try:
        authority = _authority(folder / AUTHORITY, trust_domain)
        _check_hosts(hosts, authority.trust_domain)
        for name, identity in folders.items():
            authority.issue(
                folder / name,
                identity.role,
                identity.name,
                hosts=(*LOCAL_HOSTS, *hosts),
                valid=timedelta(days=days),
            )
    except OSError as error:
        raise Failure(f"{folder}: cannot be used: {error.strerror}", "Choose another folder.") from None
    return Made(folder, authority.trust_domain, folders)


def _check_hosts(hosts: Sequence[str], trust_domain: str) -> None:
    """Every certificate gets the hosts: with a service's own name each could answer in that service's place."""
    names = {Identity(role).host(trust_domain) for role in Role} | {f"*.{trust_domain}"}
    taken = next((host for host in hosts if host.lower().rstrip(".") in names), None)
    if taken is not None:
        raise BadInput(f"--host {taken}: is how callers know a service; name the machines that services run on")


def _authority(folder: Path, trust_domain: str) -> Authority:
    if not (folder / "ca.key").exists():
        authority = Authority.create(trust_domain)
        authority.save(folder)
        return authority
    try:
        return Authority.load(folder)
    except (ValueError, IndexError):
        raise Failure(f"{folder}: holds no authority that can be read", "Choose another folder.") from None


def _own_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", user_name())[:64] or "unnamed"
