"""Finds words for answers that have none: the parent's answer, or that one's parent's, down to the base.

Only for requests that ask for it; student/answering.py calls it. An ancestor is proven before it is asked, like every
version that answers, and its words are given in its own name. One that cannot be proven ends the search: nothing older
answers in its place, and the answer stays empty.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from common.silence import is_empty
from common.versions import Answer
from student.answer_engine import AnswerEngine
from student.requests import AnswerRequest
from student.versions import Versions


@dataclass(frozen=True)
class _Silent:
    """An answer without a word, and the ancestors that have not been asked yet, nearest first."""

    answer: Answer
    older: Iterator[str]


class Fallback:
    """Asks ancestors, each once a round for all that fell silent."""

    def __init__(self, answers: AnswerEngine, versions: Versions) -> None:
        self._answers = answers
        self._versions = versions

    def answers(
        self,
        silent: Sequence[Answer],
        request: AnswerRequest,
        prove: Callable[[str], bool],
        cancelled: Callable[[], bool],
    ) -> Iterator[Answer]:
        """One answer for each of `silent`, with the version whose words it has. `prove`: whether a version may speak.

        Called on the model's thread, after the engine has ended its answers. Raises what the engine raises.
        """
        waiting = [_Silent(answer, self._versions.ancestors(answer.version)) for answer in silent]
        while waiting:
            by_parent: dict[str, list[_Silent]] = {}
            for one in waiting:
                parent = next(one.older, None)
                if parent is None:
                    yield one.answer
                else:
                    by_parent.setdefault(parent, []).append(one)
            waiting = []
            for parent, children in by_parent.items():
                if not prove(parent):
                    yield from (child.answer for child in children)
                    continue
                for child in self._said(parent, children, request, cancelled):
                    if is_empty(child.answer.text):
                        waiting.append(child)
                    else:
                        yield child.answer

    def _said(
        self, parent: str, children: Sequence[_Silent], request: AnswerRequest, cancelled: Callable[[], bool]
    ) -> Iterator[_Silent]:
        """What a parent says where its children said nothing, whether it has words or not."""
        by_prompt: dict[str, list[_Silent]] = {}
        for child in children:
            by_prompt.setdefault(child.answer.prompt_id, []).append(child)
        prompts = [prompt for prompt in request.prompts if prompt.prompt_id in by_prompt]
        for _, text in self._answers.answer([parent], prompts, request.sampling, cancelled):
            said = {
                "text": text.text,
                "tokens": text.tokens,
                "finish_reason": text.finish_reason,
                "answered_by": parent,
            }
            for child in by_prompt[prompts[text.index].prompt_id]:
                yield _Silent(child.answer.model_copy(update=said), child.older)
