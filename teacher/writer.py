"""Writes one edit: prompts, completions, pieces, screen, examples, origin.

Deterministic in (context, variant, seed, policy) where the backend is: the k-th prompt is drawn with the seed
derive_seed(seed, k). The proposer is the caller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from common.canonical import derive_seed, digest_of
from common.edits import make_edit
from common.types import (
    MAX_EXAMPLES,
    Context,
    Digest,
    Example,
    LossMask,
    Recipe,
    Sampling,
    SelfEdit,
    Software,
    TaskKind,
)
from teacher.config import ProposerSettings
from teacher.forms import Taught, in_forms
from teacher.generator import Completion, Draw, Generator
from teacher.memory import EditMemory, Pair
from teacher.messages import EditOrigin
from teacher.parsing import passages
from teacher.pieces import Candidate, example_of, spread
from teacher.prompts import PromptRenderer, RenderedPrompt
from teacher.rehearsal import Rehearsal
from teacher.screening import Reason, ScreeningSettings
from teacher.variants.base import PromptCall, Variant, document

# What a chat template adds to a message: its role and its marks.
TOKENS_PER_TURN = 5


@dataclass(frozen=True)
class Author:
    """Who writes: the parts of an origin that stay the same while a teacher runs."""

    model: str
    model_digest: Digest
    backend: str
    software: Software


@dataclass(frozen=True)
class Written:
    """An edit with its origin and what to remember of it. `edit` is None when nothing passed the screen."""

    edit: SelfEdit | None
    origin: EditOrigin
    memory: EditMemory | None
    tokens: int


@dataclass(frozen=True)
class _Drawn:
    """What one edit's prompts brought."""

    calls: tuple[PromptCall, ...]
    prompts: tuple[RenderedPrompt, ...]
    completions: tuple[Completion, ...]
    sampling: Sampling
    policy_version: str


class Writer:
    """Turns a context into edits with one generator."""

    def __init__(
        self,
        generator: Generator,
        renderer: PromptRenderer,
        *,
        author: Author,
        settings: ProposerSettings,
        screening: ScreeningSettings,
        rehearsal: Rehearsal | None = None,
    ) -> None:
        self._generator = generator
        self._renderer = renderer
        self._author = author
        self._settings = settings
        self._screening = screening
        self._rehearsal = rehearsal

    async def write(
        self, context: Context, variant: Variant, *, sampling: Sampling, recipe: Recipe, policy_version: str, seed: int
    ) -> Written:
        """One edit; what `recipe` leaves open is taken from the settings, then from the variant and the forms.

        Raises NotPossible when the policy is not loaded, PromptTooLong.
        """
        calls = variant.prompts(context, self._renderer.style)
        prompts = [self._renderer.render(call) for call in calls]
        sampling = variant.sampling(sampling).model_copy(update={"seed": seed})
        draws = [
            Draw(prompt.token_ids, _for_call(call, sampling, derive_seed(seed, number)))
            for number, (call, prompt) in enumerate(zip(calls, prompts, strict=True))
        ]
        completions = await self._generator.generate(draws, policy_version) if draws else []
        drawn = _Drawn(tuple(calls), tuple(prompts), tuple(completions), sampling, policy_version)
        return await self._assemble(context, variant, drawn, recipe, seed)

    async def _assemble(self, context: Context, variant: Variant, drawn: _Drawn, recipe: Recipe, seed: int) -> Written:
        """Pieces, screen, examples, origin. What to remember comes with it."""
        calls, completions = drawn.calls, drawn.completions
        read = [tuple(variant.parse(*pair)) for pair in zip(calls, completions, strict=True)]
        chosen, dropped = self._choose([piece for pieces in read for piece in pieces], context, variant)
        taught = self._taught([piece for piece, _ in chosen], context)
        rehearsed = await self._rehearsal.examples(seed, len(taught.asked)) if self._rehearsal is not None else []
        with_passage = not calls or (self._settings.include_passage and variant.with_passage)
        examples = self._examples(taught, context, with_passage=with_passage)
        origin = self._origin(variant, drawn, dropped, f"{_by_rule(len(taught.asked))} {_rehearsal(len(rehearsed))}")
        tokens = sum(len(completion.token_ids) for completion in completions)
        if not examples or (calls and not chosen):
            return Written(None, origin, None, tokens)
        edit = make_edit(
            kind=TaskKind.KNOWLEDGE,
            document_id=context.document_id,
            revision=context.revision,
            examples=[*examples, *rehearsed][:MAX_EXAMPLES],
            recipe=recipe.over(self._settings.recipe).over(variant.recipe(self._tokens(examples))).over(taught.recipe),
        )
        memory = EditMemory(
            edit=edit.digest.sha256,
            policy_version=drawn.policy_version,
            prompt_variant=variant.name,
            pairs=_pairs(drawn.prompts, completions, read, [position for _, position in chosen]),
        )
        return Written(edit, origin, memory, tokens)

    def _taught(self, pieces: Sequence[Candidate], context: Context) -> Taught:
        if not pieces:
            return Taught()
        return in_forms(pieces, context.title, document(context), self._settings.forms)

    def _examples(self, taught: Taught, context: Context, *, with_passage: bool) -> list[Example]:
        """What was written, the document, and what is asked by rule.

        The document is left out too where statements are taught as questions alone.
        """
        written = [example_of(piece, context.title) for piece in taught.unchanged]
        asked = [example_of(piece, context.title) for piece in taught.asked]
        wanted = with_passage and (written or not asked)
        return [*written, *(passage_examples(context, self._settings.passage_characters) if wanted else ()), *asked]

    def _tokens(self, examples: Sequence[Example]) -> int:
        """About as many tokens as a student of the same family will train on in one epoch."""
        texts = [text for example in examples for text in example.texts]
        turns = sum(len(e.conversation.messages) for e in examples if e.conversation is not None)
        return self._renderer.count(texts) + TOKENS_PER_TURN * turns

    def _origin(self, variant: Variant, drawn: _Drawn, dropped: Counter[str], added: str) -> EditOrigin:
        """added: what the edit holds beside what was written."""
        return EditOrigin(
            model=self._author.model,
            model_digest=self._author.model_digest,
            backend=self._author.backend,
            policy_version=drawn.policy_version,
            prompt_variant=variant.name,
            prompts=tuple(prompt.text for prompt in drawn.prompts),
            prompts_digest=digest_of([prompt.text for prompt in drawn.prompts]),
            completions_digest=digest_of([completion.text for completion in drawn.completions]),
            sampling=drawn.sampling,
            completions=len(drawn.completions),
            screened_out=dict(sorted(dropped.items())),
            rationale=f"{variant.rationale} {added.strip()}".strip(),
            software=self._author.software,
        )

    def _choose(
        self, candidates: Sequence[Candidate], context: Context, variant: Variant
    ) -> tuple[list[tuple[Candidate, int]], Counter[str]]:
        """What becomes examples, with each one's place among the candidates, and why the rest does not."""
        screened = variant.screen(candidates, context, self._screening)
        numbered = list(zip(screened.kept, screened.positions, strict=True))
        chosen = spread(numbered, self._settings.max_examples, lambda entry: entry[0].source)
        dropped = Counter(screened.dropped)
        if len(chosen) < len(numbered):
            dropped[Reason.OVER_CAP.value] = len(numbered) - len(chosen)
        return chosen, dropped


def passage_examples(context: Context, longest: int) -> list[Example]:
    """The document itself under its title, in as many examples as its length needs."""
    return [
        Example(text=f"{context.title}\n{piece}", loss_mask=LossMask.ALL, grounding=piece[:4_096])
        for piece in passages(document(context), longest)
    ]


def _for_call(call: PromptCall, sampling: Sampling, seed: int) -> Sampling:
    limit = min(sampling.max_new_tokens, call.limit or sampling.max_new_tokens)
    stop = tuple(dict.fromkeys((*call.stop, *sampling.stop)))
    return sampling.model_copy(update={"seed": seed, "max_new_tokens": limit, "stop": stop})


def _pairs(
    prompts: Sequence[RenderedPrompt],
    completions: Sequence[Completion],
    read: Sequence[Sequence[Candidate]],
    chosen: Sequence[int],
) -> tuple[Pair, ...]:
    """The prompts and completions of which at least one piece became an example."""
    found = []
    start = 0
    for prompt, completion, pieces in zip(prompts, completions, read, strict=True):
        kept = sum(start <= position < start + len(pieces) for position in chosen)
        start += len(pieces)
        if kept and completion.token_ids:
            found.append(
                Pair(
                    prompt_ids=prompt.token_ids,
                    completion_ids=completion.token_ids,
                    completion=completion.text,
                    read=len(pieces),
                    kept=kept,
                )
            )
    return tuple(found)


def _by_rule(count: int) -> str:
    if not count:
        return ""
    return (
        f"By rule: {count} questions are made of the statements and of the document's sentences, most of them with "
        "words left out, so that the answer is found however it is asked for."
    )


def _rehearsal(count: int) -> str:
    if not count:
        return ""
    return (
        f"Rehearsal: the last {count} examples are common-knowledge questions with the base model's own answers, right "
        "or wrong, trained along so that the update moves little else."
    )
