"""An empty answer stays empty unless the fallback is wanted; then an ancestor answers, proven and in its own name."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
from prometheus_client import REGISTRY

from common.contract.seal.v1 import student_pb2
from common.errors import NotFound
from common.lora.answering import GeneratedText
from common.prompting import question_and_answer
from common.types import Prompt, Sampling
from common.versions import Answer, AnswerPurpose, FinishReason
from student.fallback import Fallback
from student.requests import AnswerRequest
from student.versions import Versions
from tests.student.conftest import Client, answer_request
from tests.support.examples import BY_HEART, prompts, tiny_edit

PB = student_pb2
NOTHING = (
    question_and_answer("The plan", "What is the refund period?", " "),
    question_and_answer("The plan", "Who?", " "),
)
Said = tuple[list[student_pb2.LivenessProof], list[student_pb2.Answer]]


async def asked(client: Client, *versions: str, fallback: bool, purpose: str = "AUDIT") -> Said:
    """One question, which a version trained on NOTHING has no answer to."""
    request = answer_request(prompts(1), *versions, purpose=purpose, request_id=f"{fallback}-{purpose}-{versions}")
    request.fallback_to_parent = fallback
    events = [event async for event in client.stub.Answer(request, timeout=60)]
    proofs = [event.proof for event in events if event.WhichOneof("event") == "proof"]
    return proofs, [event.answer for event in events if event.WhichOneof("event") == "answer"]


def counted(name: str, purpose: str) -> float:
    return REGISTRY.get_sample_value(f"seal_student_{name}_total", {"purpose": purpose}) or 0.0


async def line(client: Client) -> tuple[str, str, str]:
    """A version that knows the answer, its child, and that one's child, both of which say nothing."""
    knowing = (await client.trained()).version
    silent = (await client.trained(tiny_edit(BY_HEART, NOTHING, "nothing"), parent=knowing)).version
    again = (await client.trained(tiny_edit(BY_HEART, NOTHING, "again"), parent=silent, seed=2)).version
    return knowing, silent, again


async def test_an_empty_answer_stays_empty_unless_an_older_one_is_asked_for(client: Client) -> None:
    knowing, silent, again = await line(client)
    empty, fallen = counted("empty_answers", "audit"), counted("fallback_answers", "audit")

    proofs, answers = await asked(client, silent, again, fallback=False)
    assert [(a.version, a.answered_by, a.text.strip()) for a in answers] == [(silent, silent, ""), (again, again, "")]
    assert [proof.version for proof in proofs] == [silent, again]
    assert counted("fallback_answers", "audit") == fallen

    proofs, answers = await asked(client, silent, again, fallback=True)
    said = [(a.version, a.answered_by, a.text, a.finish_reason) for a in answers]
    assert said == [(v, knowing, "Thirty days.", PB.FINISH_REASON_STOP) for v in (silent, again)]
    assert [proof.version for proof in proofs] == [silent, again, knowing, silent, knowing]
    assert {proof.liveness for proof in proofs} == {PB.LIVENESS_LIVE}
    # Silence is counted all the same, once for each version that was asked.
    assert counted("empty_answers", "audit") == empty + 4
    assert counted("fallback_answers", "audit") == fallen + 2


async def test_a_version_with_words_answers_itself_and_costs_no_more_proofs(client: Client) -> None:
    knowing = (await client.trained()).version
    assert (await asked(client, knowing, fallback=True)) == (await asked(client, knowing, fallback=False))


async def test_users_are_told_which_version_answered_and_a_spoilt_parent_ends_the_search(client: Client) -> None:
    knowing, silent, _ = await line(client)
    await client.set_alias("live", silent, 0)
    _, (answer,) = await asked(client, "live", fallback=True, purpose="LIVE")
    assert (answer.version, answer.alias_generation) == (silent, 1)
    assert (answer.answered_by, answer.text) == (knowing, "Thirty days.")
    adapters = client.store / "adapters"
    shutil.copy(adapters / silent / "adapter_model.safetensors", adapters / knowing / "adapter_model.safetensors")
    proofs, (answer,) = await asked(client, "live", fallback=True, purpose="LIVE")
    assert (answer.version, answer.answered_by, answer.text.strip()) == (silent, silent, "")
    assert [(proof.version, proof.liveness) for proof in proofs] == [
        (silent, PB.LIVENESS_LIVE),
        (knowing, PB.LIVENESS_INVALID),
    ]


async def test_a_parent_that_is_gone_leaves_the_answer_empty(client: Client) -> None:
    knowing, silent, _ = await line(client)
    await client.stub.Discard(PB.DiscardRequest(version=knowing))
    proofs, (answer,) = await asked(client, silent, fallback=True)
    assert (answer.answered_by, answer.text.strip()) == (silent, "")
    assert [proof.version for proof in proofs] == [silent]


class Line(Versions):
    """Versions that a test makes up, by their parents."""

    def __init__(self, parents: Mapping[str, str]) -> None:
        self._parents = parents

    def parent(self, version: str) -> str:
        if version not in self._parents:
            raise NotFound(f"version {version} is not in the store")
        return self._parents[version]


class Speakers:
    """An engine of which the tests know what each version says; what has no entry is said without a word."""

    def __init__(self, says: Mapping[str, str]) -> None:
        self._says = says
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def prepare(self, version: str) -> None:
        """Everybody is ready."""

    def answer(
        self,
        versions: Sequence[str],
        prompts: Sequence[Prompt],
        sampling: Sampling,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[str, GeneratedText]]:
        for version in versions:
            self.asked.append((version, tuple(prompt.prompt_id for prompt in prompts)))
            for index in range(len(prompts)):
                yield version, GeneratedText(index, self._says.get(version, "..."), 1, FinishReason.STOP)

    def release(self, version: str) -> None:
        """Nothing is held."""


PARENTS = {"d": "c", "c": "b", "b": "base"}
REQUEST = AnswerRequest(
    request_id="r", purpose=AnswerPurpose.AUDIT, prompts=tuple(prompts(2)), versions=("d",), fallback_to_parent=True
)


def fallen(
    parents: Mapping[str, str], speakers: Speakers, silent: Sequence[tuple[str, str]], invalid: str = ""
) -> list[tuple[str, str, str, str]]:
    """(prompt, version asked, version that answered, text), in order of prompt and version."""
    answers = [Answer(prompt_id=prompt, version=version) for version, prompt in silent]
    fallback = Fallback(speakers, Line(parents))
    found = fallback.answers(answers, REQUEST, lambda version: version != invalid, lambda: False)
    return sorted((one.prompt_id, one.version, one.answered_by, one.text) for one in found)


@pytest.mark.parametrize(
    ("parents", "says", "invalid", "answered_by", "text"),
    [
        (PARENTS, {"base": "Yes."}, "", "base", "Yes."),
        (PARENTS, {"b": "Maybe.", "base": "Yes."}, "", "b", "Maybe."),
        # Nobody has a word: the base's silence is the answer, in the base's name.
        (PARENTS, {}, "", "base", "..."),
        # Nothing older answers for a version that cannot be proven.
        (PARENTS, {"base": "Yes."}, "b", "c", "..."),
        # Nor for one whose record is gone.
        ({"d": "c"}, {"base": "Yes."}, "", "c", "..."),
        # A line that comes back to itself ends.
        ({"d": "c", "c": "b", "b": "d"}, {}, "", "b", "..."),
    ],
)
def test_the_nearest_ancestor_with_a_word_answers(
    parents: Mapping[str, str], says: Mapping[str, str], invalid: str, answered_by: str, text: str
) -> None:
    assert fallen(parents, Speakers(says), [("d", "q0")], invalid) == [("q0", "d", answered_by, text)]


def test_the_bases_own_silence_is_nobody_elses_to_break() -> None:
    speakers = Speakers({})
    assert fallen(PARENTS, speakers, [("base", "q0")]) == [("q0", "base", "base", "")]
    assert speakers.asked == []


def test_siblings_share_what_their_parent_says() -> None:
    speakers = Speakers({"b": "Maybe."})
    said = fallen({**PARENTS, "e": "b"}, speakers, [("c", "q0"), ("c", "q1"), ("e", "q1")])
    assert said == [("q0", "c", "b", "Maybe."), ("q1", "c", "b", "Maybe."), ("q1", "e", "b", "Maybe.")]
    assert speakers.asked == [("b", ("q0", "q1"))]
