"""What the gates on a version as a whole need to know: drift from the base, degenerate answers, protected behaviour.

Drift is asked of the student; of the answers most are there already, and what is asked is asked once. The gates
themselves are in auditor/gates/. auditor/judging.py calls these in this order, each only if the one before let the
update through; they are part of its step, so that their findings are recorded once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

import structlog

from auditor import events as e
from auditor.crew import Work
from auditor.findings import Gate, ProtectedAnswer
from auditor.gates.degenerate import Given, degenerate_gate, shares_of
from auditor.gates.drift import drift_gate
from auditor.gates.protected import Observed, protected_gate
from auditor.papers import Group, of_suite, version_invalid
from auditor.peers import ScoreOrder, prompt_of
from auditor.policy.rules import Protected
from auditor.tasks import Suite
from common.canonical import digest_of
from common.errors import NotPossible
from common.lora.proof import Liveness, LivenessProof
from common.metrics import timed
from common.prompting import ask
from common.types import Prompt
from common.versions import KlFromBase

log = structlog.get_logger("health")

# Of one LogLikelihoodRequest. Of larger suites those whose digests come first are asked, the same for all versions.
MAX_ANCHORS = 1_024


async def drift(work: Work, trained: e.UpdateTrained) -> list[Gate]:
    """The drift gate; none where drift is not bounded."""
    bound = work.order.settings.health.max_drift
    if not bound:
        return []
    with timed("scoring"):
        found = await kl_from_base(work, trained, anchors(work))
    return [drift_gate(found, bound, trained.version.scale)]


def anchors(work: Work) -> list[Prompt]:
    """The questions of the run's suites, each once, a choice's without its options; if there are none, the built-in
    suites'. Of what a harness measures the auditor has no questions.
    """
    asked = questions_of(work.order.suites) or questions_of(work.crew.built_in)
    return [asked[name] for name in sorted(asked)][:MAX_ANCHORS]


def questions_of(suites: Iterable[Suite]) -> dict[str, Prompt]:
    """Prompts by their digests."""
    conversations = [ask(of_suite(suite).topic, item.question) for suite in suites for item in suite.items]
    named = {digest_of(conversation).sha256: conversation for conversation in conversations}
    return {name: prompt_of(conversation, name) for name, conversation in named.items()}


async def kl_from_base(work: Work, trained: e.UpdateTrained, prompts: Sequence[Prompt]) -> list[float]:
    """KL(version || base) of each prompt in order, nats a token.

    Raises NotPossible when the student cannot prove the version or leaves a prompt out.
    """
    if not prompts:
        return []
    version = trained.version.version
    content = [work.start.record.student, version, [prompt.prompt_id for prompt in prompts]]
    order = ScoreOrder(
        request_id=work.journal.request_id("drift", content), versions=(version,), kl_prompts=tuple(prompts)
    )
    found: dict[str, float] = {}
    proven = False
    async for event in work.crew.student.score(order, work.journal.progress("scoring", trained.round, "")):
        if isinstance(event, LivenessProof):
            if event.liveness is Liveness.INVALID:
                raise version_invalid(version)
            proven = True
        elif isinstance(event, KlFromBase):
            found[event.prompt_id] = event.kl_per_token
    absent = sum(prompt.prompt_id not in found for prompt in prompts)
    if absent or not proven:
        what = f"{absent} of {len(prompts)} prompts without their KL" if absent else "its KL without a liveness proof"
        raise NotPossible(f"the student left {what}", reason="PEER_BROKE_CONTRACT", ids={"version": version})
    return [found[prompt.prompt_id] for prompt in prompts]


async def degenerate(work: Work, trained: e.UpdateTrained, compared: Sequence[tuple[str, Group]]) -> list[Gate]:
    """The degenerate gate, on answers that were given before: (version before, group) of all that was compared."""
    before: list[Given] = []
    after: list[Given] = []
    progress = work.journal.progress("answering", trained.round, "")
    for reference, group in compared:
        for version, answers in ((reference, before), (trained.version.version, after)):
            read = await work.examiner.read(version, group.prompts(), progress)
            answers += [Given(text=answer.text, finish=answer.finish) for answer in read]
    return [degenerate_gate(shares_of(before), shares_of(after), work.order.settings.health.max_degenerate)]


async def protected(work: Work, trained: e.UpdateTrained) -> tuple[list[Gate], tuple[ProtectedAnswer, ...]]:
    """The gate on protected behaviour, none where nothing is protected, and the answers that it rests on."""
    asked = list(questions(work.rules.protected))
    if not asked:
        return [], ()
    prompts = [prompt for _, _, prompt in asked]
    progress = work.journal.progress("answering", trained.round, "")
    with timed("answering"):
        examiner = work.examiner.allowing(work.rules.max_answer_tokens)
        before = await examiner.read(trained.version.parent_version, prompts, progress)
        after = await examiner.read(trained.version.version, prompts, progress)
    observed = [
        Observed(rule, number, old.text, new.text)
        for (rule, number, _), old, new in zip(asked, before, after, strict=True)
    ]
    gate = await asyncio.to_thread(protected_gate, observed)
    answers = tuple(
        ProtectedAnswer(
            rule=one.rule.name, question=one.question, before=old.sha256, after=new.sha256, breach=one.breach
        )
        for one, old, new in zip(observed, before, after, strict=True)
    )
    if broken := sorted({answer.rule for answer in answers if answer.breach}):
        log.warning("protected behaviour broken", version=trained.version.version, rules=broken)
    return [gate], answers


def questions(rules: Sequence[Protected]) -> Iterator[tuple[Protected, int, Prompt]]:
    """(rule, number of its question, prompt); equal questions have equal prompts."""
    for rule in rules:
        for number, conversation in enumerate(rule.conversations, start=1):
            yield rule, number, prompt_of(conversation, digest_of(conversation).sha256)
