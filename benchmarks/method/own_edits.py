"""The project's own edits of a benchmark's passages: what the arms own:VARIANT and policy:VERSION train on.

The teacher itself writes them, in this process, one edit a passage. Each is kept in the teacher's store under a name
that holds everything it depends on (passage, variant, policy, seed, weights, the teacher's settings), so an interrupted
benchmark goes on where it was, and loads no model when nothing is missing. An edit holds written pieces and the passage
alone: forms and rehearsal are the benchmark's, the same for the edits of every arm, and can be changed without writing
anything anew (benchmarks/method/readings.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import structlog
import yaml
from pydantic import ValidationError

from benchmarks.method.settings import BenchSettings
from benchmarks.method.together import Together
from benchmarks.method.weights import digest_of_weights
from benchmarks.passages import Passage
from common.canonical import derive_seed, digest_of
from common.convert import violations_of
from common.errors import InvalidConfig
from common.logging import configure_logging
from common.types import Context, SelfEdit, TaskKind
from teacher.backends import make_generator
from teacher.config import TeacherConfig
from teacher.forms import FormSettings
from teacher.generator import BASE
from teacher.messages import FailedProposal, ProposedEdit, ProposeRequest
from teacher.proposals import Proposals
from teacher.proposer import ProposeEvent
from teacher.rehearsal import RehearsalSettings
from teacher.teacher import Teacher
from teacher.variants import VARIANTS

Progress = Callable[[str], None]
BLOCK = 8  # edits in one batch: several times quicker than one by one, and little is lost at an interruption
Arm = tuple[str, str]  # prompt variant, policy version; "" is the teacher's first variant, or the base


def own_edits(
    settings: BenchSettings,
    variant: str,
    passages: Sequence[Passage],
    policy: str = "",
    progress: Progress = lambda said: None,
) -> list[SelfEdit | None]:
    """One edit a passage; None where nothing that was written passed the teacher's screen.

    variant: "" takes the first one of the teacher's settings. Raises InvalidConfig, NotFound for a policy that is not
    in the teacher's store, and what other SealError the teacher raises.
    """
    (edits,) = edits_of_arms(settings, [(variant, policy)], passages, progress)
    return edits


def edits_of_arms(
    settings: BenchSettings, arms: Sequence[Arm], passages: Sequence[Passage], progress: Progress = lambda said: None
) -> list[list[SelfEdit | None]]:
    """The edits of several arms, in their order, by one teacher: starting it takes a while."""
    config = teacher_config(settings)
    weights = digest_of_weights(config.model)
    requests = [[_request(config, weights, settings.seed, arm, passage) for passage in passages] for arm in arms]
    proposals = Proposals(config.store / "proposals")
    missing = [
        [request for request in of_arm[first : first + BLOCK] if _outcome(proposals, request) is None]
        for of_arm in requests
        for first in range(0, len(of_arm), BLOCK)
    ]
    if any(missing):
        if not structlog.is_configured():
            configure_logging("teacher", "warning")  # or its lines would stand between the results on standard output
        drawn = digest_of([weights, config.model.precision]).sha256[:16]
        asyncio.run(_write(config, missing, config.store / "drawn" / drawn, progress))
    return [[_edit(proposals, request) for request in of_arm] for of_arm in requests]


def teacher_config(settings: BenchSettings) -> TeacherConfig:
    """The teacher that writes: `settings.teacher`, a file with its settings or with a section `teacher`.

    What the file leaves open: transformers with the benchmark's model, and a store in the benchmark's folder. Raises
    InvalidConfig that names file and field.
    """
    model = settings.model.model_copy(update={"system_prompt": ""})  # the student's; a teacher is told nothing before
    values: dict[str, Any] = {
        "backend": "transformers",
        "model": model.model_dump(),
        "store": settings.folder.absolute() / "teacher",
        **_read(settings.teacher),
    }
    try:
        config = TeacherConfig.model_validate(values)
    except ValidationError as error:
        name = settings.teacher or "teacher"
        raise InvalidConfig("\n".join(f"{name}: {v.path}: {v.reason}" for v in violations_of(error))) from None
    unformed = config.proposer.model_copy(update={"forms": FormSettings(plain=True, asked=False)})
    # The lock is for services side by side; here it would let no edit wait for another.
    return config.model_copy(
        update={"proposer": unformed, "rehearsal": RehearsalSettings(examples=0), "heavy_lock": None}
    )


def told_of(config: TeacherConfig) -> dict[str, Any]:
    """The teacher's settings that figures depend on, for their table: no path of a machine is in it."""
    return {
        "weights": digest_of_weights(config.model),
        "precision": config.model.precision,
        "prompt_variants": list(config.proposer.prompt_variants),
        **_writing(config),
    }


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise InvalidConfig(f"{file}: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 1}: {error.problem})" if error.problem_mark else ""
        raise InvalidConfig(f"{file}: not valid YAML{line}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise InvalidConfig(f"{file}: not text in UTF-8") from None
    except RecursionError:
        raise InvalidConfig(f"{file}: nested too deeply") from None
    section = (content["teacher"] or {}) if isinstance(content, dict) and "teacher" in content else content
    if not isinstance(section, dict):
        raise InvalidConfig(f"{file}: expected the teacher's settings (key: value), found a {type(section).__name__}")
    return section


def _request(config: TeacherConfig, weights: str, seed: int, arm: Arm, passage: Passage) -> ProposeRequest:
    variant = arm[0] or config.proposer.prompt_variants[0]
    policy = arm[1] or BASE
    if variant not in VARIANTS:
        raise InvalidConfig(f"own:{variant}: no such prompt variant; known are {', '.join(VARIANTS)}")
    try:
        request = ProposeRequest(
            request_id="unnamed",
            kind=TaskKind.KNOWLEDGE,
            context=Context(document_id=passage.key, revision="1", title=passage.title, text=passage.context),
            count=1,
            prompt_variants=(variant,),
            seed=derive_seed("own-edits", seed, passage.key),
            policy_version=policy,
        )
    except ValidationError as error:
        raise InvalidConfig("\n".join(f"{passage.title}: {v.path}: {v.reason}" for v in violations_of(error))) from None
    named = digest_of([weights, config.model.precision, _writing(config), request.model_dump(mode="json")]).sha256[:24]
    return request.model_copy(update={"request_id": f"bench-{variant}-{passage.key}-{named}"})


def _writing(config: TeacherConfig) -> dict[str, Any]:
    """What decides what is written, beside weights, precision and request."""
    settings = config.model_dump(
        mode="json",
        include={"backend": True, "proposer": True, "screening": True},
        exclude={"proposer": {"forms", "prompt_variants"}},
    )
    return {**settings, "system_prompt": config.model.system_prompt} if config.model.system_prompt else settings


async def _write(
    config: TeacherConfig, blocks: Sequence[Sequence[ProposeRequest]], drawn: Path, progress: Progress
) -> None:
    """Block by block, with completions kept in `drawn`; vLLM, which batches by itself, gets all of them at once."""
    together = Together(make_generator(config), drawn) if config.backend == "transformers" else None
    teacher = Teacher(config, together)
    everything = [request for block in blocks for request in block]
    await teacher.start()
    written = 0

    def publish(event: ProposeEvent, *, keep: bool = True) -> None:
        nonlocal written
        if isinstance(event, ProposedEdit | FailedProposal):
            written += 1
            failed = f": {event.reason}" if isinstance(event, FailedProposal) else ""
            progress(f"own edit {written} of {len(everything)}{failed}")

    async def propose(request: ProposeRequest) -> None:
        try:
            await teacher.proposer.propose(request, publish)
        finally:
            if together is not None:
                together.leave()

    try:
        for block in blocks if together is not None else [everything]:
            if together is not None:
                together.begin(len(block))
            ended = await asyncio.gather(*map(propose, block), return_exceptions=True)
            for failure in ended:
                if failure is not None:
                    raise failure
    finally:
        await teacher.close()


def _outcome(proposals: Proposals, request: ProposeRequest) -> ProposedEdit | FailedProposal | None:
    return proposals.open(request, request.policy_version).outcome(0)


def _edit(proposals: Proposals, request: ProposeRequest) -> SelfEdit | None:
    outcome = _outcome(proposals, request)
    return outcome.edit if isinstance(outcome, ProposedEdit) else None
