"""Asks versions for measures (auditor/measures.py), and keeps the marks like the examiner's answers.

A mark is cached under (version, the suite's content, item, the student's model and prompt template); its answer lies
beside it. A version whose liveness proof is INVALID has no mark: it is asked no further, and nothing of it is kept. The
examiner calls this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from auditor.findings import Mark, Score
from auditor.journal import Journal
from auditor.ledger.store import GivenAnswer, texts
from auditor.measures import Measure, Measurement
from auditor.papers import Group, Marked, Paper
from auditor.ports import OnProgress, Student
from auditor.recorder import Recorder
from auditor.speaking import NotAlive, VersionSpeaker
from common.canonical import digest_bytes, digest_of
from common.errors import NotPossible
from common.lora.proof import Liveness
from common.silence import is_empty


class Measuring:
    """For one run. identity: what an answer depends on beside version and prompt (StudentStatus.identity)."""

    def __init__(
        self, student: Student, recorder: Recorder, journal: Journal, measures: Mapping[str, Measure], *, identity: str
    ) -> None:
        self._student = student
        self._recorder = recorder
        self._journal = journal
        self._measures = measures
        self._identity = identity

    async def papers(self, versions: Sequence[str], groups: Sequence[Group], progress: OnProgress) -> dict[str, Paper]:
        """Every version's paper. Raises NotPossible(SUITE_CHANGED) for a suite that is no longer the run's."""
        return {version: await self._paper(version, groups, progress) for version in dict.fromkeys(versions)}

    async def _paper(self, version: str, groups: Sequence[Group], progress: OnProgress) -> Paper:
        speaker = VersionSpeaker(self._student, version, self._request_id, progress)
        results: dict[str, Marked] = {}
        liveness = Liveness.BASE
        try:
            for group in groups:
                known = await self._known(version, group)
                if known is None:
                    await self._measure(version, group, speaker)
                    known = await self._known(version, group)
                assert known is not None
                results[group.name], liveness = known
        except NotAlive:
            return Paper(version, Liveness.INVALID, speaker.proof, False, {})
        return Paper(version, liveness, speaker.proof, speaker.proof is None, results)

    async def _known(self, version: str, group: Group) -> tuple[Marked, Liveness] | None:
        """A group's result from the ledger; None where a mark is missing."""
        assert group.measured is not None
        keys = [self._key(version, group, item) for item in group.measured.items]
        answers = await self._recorder.run(self._recorder.ledger.recall, keys)
        grades = await self._recorder.run(self._recorder.ledger.recall_grades, keys)
        if any(key not in answers or key not in grades for key in keys):
            return None
        marks = tuple(
            Mark(item_id=item, answer=answers[key].answer, score=grades[key])
            for item, key in zip(group.measured.items, keys, strict=True)
        )
        said = await self._recorder.run(texts, self._recorder.ledger, {mark.answer for mark in marks})
        score = Score(
            questions=len(marks),
            correct=sum(mark.score for mark in marks),
            empty=sum(is_empty(said[mark.answer]) for mark in marks),
        )
        return Marked(group, marks, score), answers[keys[0]].liveness

    async def _measure(self, version: str, group: Group, speaker: VersionSpeaker) -> None:
        """Marks every item and keeps answers and marks, all or none."""
        assert group.measured is not None
        measure = self._measures.get(group.suite_id)
        if measure is None or measure.suite.measured != group.measured:
            raise NotPossible(
                f"suite {group.suite_id} is not offered any more as it was when the run was ordered",
                reason="SUITE_CHANGED",
            )
        found = await measure.measure(speaker)
        if [measurement.item_id for measurement in found] != list(group.measured.items):
            raise NotPossible(f"suite {group.suite_id} was marked in part", reason="MEASURE_FAILED")
        assert speaker.proof is not None
        await self._keep(version, group, found, speaker.proof.liveness)

    async def _keep(self, version: str, group: Group, found: Iterable[Measurement], liveness: Liveness) -> None:
        rows = [(self._key(version, group, m.item_id), m) for m in found]
        answers = [GivenAnswer(key=key, version=version, liveness=liveness, text=m.answer) for key, m in rows]
        grades = [(key, digest_bytes(m.answer.encode()).sha256, m.score) for key, m in rows]
        await self._recorder.run(self._recorder.ledger.remember, answers)
        await self._recorder.run(self._recorder.ledger.remember_grades, grades)

    def _key(self, version: str, group: Group, item: str) -> str:
        assert group.measured is not None
        return digest_of([version, "measured", group.measured.content, item, self._identity]).sha256

    def _request_id(self, kind: str, content: object) -> str:
        return self._journal.request_id(kind, [self._identity, content])
