"""Proposals on disk: what a request asked for and what came of it, one file an edit.

The same request id gets the same edits again, after a broken stream and after a restart; what a crash left unwritten is
written then, under the policy that the request began with. The same id with another content is a Conflict.
"""

from __future__ import annotations

from pathlib import Path

from common.canonical import digest_of
from common.errors import Conflict
from common.types import Digest, Domain
from teacher.messages import FailedProposal, ProposedEdit, ProposeRequest
from teacher.store import name_of, read_record, write_record


class _Opened(Domain):
    content: Digest
    policy_version: str


class _Outcome(Domain):
    edit: ProposedEdit | None = None
    failure: FailedProposal | None = None


class Proposal:
    """One request's record."""

    def __init__(self, folder: Path, policy_version: str) -> None:
        self._folder = folder
        self.policy_version = policy_version

    def outcome(self, index: int) -> ProposedEdit | FailedProposal | None:
        """What was made of an index, or None."""
        record = read_record(self._folder / f"{index}.json", _Outcome)
        return None if record is None else record.edit or record.failure

    def record(self, outcome: ProposedEdit | FailedProposal) -> None:
        entry = _Outcome(edit=outcome) if isinstance(outcome, ProposedEdit) else _Outcome(failure=outcome)
        write_record(self._folder / f"{outcome.index}.json", entry)


class Proposals:
    """Records of all requests, under `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, request: ProposeRequest, policy_version: str) -> Proposal:
        """The record of a request, begun with `policy_version` if it is new. Raises Conflict."""
        folder = self._root / name_of(request.request_id)
        content = digest_of(request)
        opened = read_record(folder / "request.json", _Opened)
        if opened is None:
            opened = _Opened(content=content, policy_version=policy_version)
            write_record(folder / "request.json", opened)
        if opened.content.sha256 != content.sha256:
            raise Conflict("this request id was used with other content", ids={"request_id": request.request_id})
        return Proposal(folder, opened.policy_version)
