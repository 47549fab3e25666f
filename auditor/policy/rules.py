"""The rules of a policy as objects: what edits may teach, and what a version must go on answering.

Expressions come from people and texts from models, and together they can take for ever: an expression that does on
texts made to provoke it is refused with the file, and a search that is not over in time ends the run with the rule's
name. A search cannot be awaited, so whoever is in an event loop applies rules on a thread.

They are written in a YAML file (auditor/policy/rules_file.py), recorded with each run as one payload, and applied by
auditor/gates/. Nothing here ever leaves the auditor but a protected behaviour's questions, which the student is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

import regex
from pydantic import Field, field_validator, model_validator

from auditor.graders import lexical, patterns
from common.errors import NotPossible
from common.prompting import ask
from common.types import Conversation, Domain, Example

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:\[\]-]{1,64}$")]
Text = Annotated[str, Field(min_length=1, max_length=1_024)]
Texts = tuple[Text, ...]


def one_or_more(value: object) -> object:
    """A file may say one text where several are possible."""
    return (value,) if isinstance(value, str) else value


def compiles(expressions: Texts) -> Texts:
    """The same expressions; raises ValueError for one that is no regular expression."""
    for place, expression in enumerate(expressions):
        try:
            regex.compile(expression)
        except regex.error as error:
            raise ValueError(f"expression {place + 1} is not a regular expression: {error.msg}") from None
    return expressions


def found(name: str, expression: str, text: str) -> bool:
    """Whether a rule's expression is found in a text. Raises NotPossible(RULE_TOO_SLOW) that names the rule."""
    try:
        return patterns.matches(text, [expression], patterns.SECONDS)
    except TimeoutError:
        raise NotPossible(
            f"an expression of rule {name} took more than {patterns.SECONDS:g} s on a text; make it stricter",
            reason="RULE_TOO_SLOW",
            ids={"rule": name},
        ) from None


class Rule(Domain):
    """On the training examples of an edit. forbid: no example may match any of these; require: each must be matched.

    A requirement is met by one example, for every edit also rehearses what has nothing to do with its document; `every`
    asks it of each.
    """

    name: Name
    forbid: Texts = Field(default=(), max_length=256)
    require: Texts = Field(default=(), max_length=256)
    every: bool = False

    _one_or_more = field_validator("forbid", "require", mode="before")(one_or_more)
    _compiles = field_validator("forbid", "require")(compiles)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.forbid and not self.require:
            raise ValueError("says neither what it forbids nor what it requires")
        if self.every and not self.require:
            raise ValueError("every says how many examples must match what is required; nothing is")
        return self

    def offence(self, examples: Sequence[Example]) -> str:
        """What breaks this rule, without a word of it; empty: nothing. Raises NotPossible(RULE_TOO_SLOW)."""
        said = []
        if forbidden := sum(any(self._in(example, pattern) for pattern in self.forbid) for example in examples):
            said.append(f"{forbidden} of {len(examples)} examples match what it forbids")
        missed = 0
        for pattern in self.require:
            meeting = sum(self._in(example, pattern) for example in examples)
            missed += meeting < len(examples) if self.every else meeting == 0
        if missed:
            whom = "every example" if self.every else "an example"
            said.append(f"{missed} of {len(self.require)} required expressions are not matched by {whom}")
        return ", ".join(said)

    @property
    def expressions(self) -> dict[str, Texts]:
        """All regular expressions of it, by key."""
        return {"forbid": self.forbid, "require": self.require}

    def _in(self, example: Example, expression: str) -> bool:
        return any(found(self.name, expression, text) for text in example.texts)


class Protected(Domain):
    """A behaviour that no update may change: questions, and what must hold of the answer to each.

    must_contain, must_not_contain: all of these texts, none of them; case and runs of white space do not matter.
    must_match, must_not_match: regular expressions, on the answer as it is. same_answer: its words must stay the
    same. if_held: an answer that did not hold before need not hold after.
    """

    name: Name
    topic: str = Field(default="", max_length=300)
    questions: tuple[Annotated[str, Field(min_length=1, max_length=4_096)], ...] = Field(min_length=1, max_length=256)
    must_contain: Texts = Field(default=(), max_length=64)
    must_not_contain: Texts = Field(default=(), max_length=64)
    must_match: Texts = Field(default=(), max_length=64)
    must_not_match: Texts = Field(default=(), max_length=64)
    same_answer: bool = False
    if_held: bool = False

    _one_or_more = field_validator(
        "questions", "must_contain", "must_not_contain", "must_match", "must_not_match", mode="before"
    )(one_or_more)
    _compiles = field_validator("must_match", "must_not_match")(compiles)

    @model_validator(mode="after")
    def _asserts_something(self) -> Self:
        asserted = self.must_contain or self.must_not_contain or self.must_match or self.must_not_match
        if not asserted and not self.same_answer:
            raise ValueError("asserts nothing of the answer")
        if self.if_held and not asserted:
            raise ValueError("if_held is about must_...; there is none")
        return self

    @property
    def conversations(self) -> list[Conversation]:
        """Its questions as the student is asked them."""
        return [ask(self.topic, question) for question in self.questions]

    @property
    def expressions(self) -> dict[str, Texts]:
        """All regular expressions of it, by key."""
        return {"must_match": self.must_match, "must_not_match": self.must_not_match}

    def holds(self, answer: str) -> bool:
        """Whether everything but `same_answer` holds of an answer. Raises NotPossible(RULE_TOO_SLOW)."""
        plain = _plain(answer)
        return (
            all(_plain(text) in plain for text in self.must_contain)
            and not any(_plain(text) in plain for text in self.must_not_contain)
            and all(found(self.name, pattern, answer) for pattern in self.must_match)
            and not any(found(self.name, pattern, answer) for pattern in self.must_not_match)
        )

    def breach(self, before: str, after: str) -> str:
        """What is wrong with the answer after an update, without a word of it; empty: nothing."""
        if not self.holds(after):
            if self.holds(before):
                return "held before and does not after"
            if not self.if_held:
                return "does not hold, nor did it before"
        if self.same_answer and lexical.words(before) != lexical.words(after):
            return "the answer changed"
        return ""


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


class WrittenRules(Domain):
    """Everything that a rules file says."""

    rules: tuple[Rule, ...] = Field(default=(), max_length=1_000)
    protected: tuple[Protected, ...] = Field(default=(), max_length=1_000)

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        names = [*(rule.name for rule in self.rules), *(rule.name for rule in self.protected)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two rules are named {name}")
        return self


class Rules(WrittenRules):
    """Everything that a run goes by; recorded when it starts.

    max_answer_tokens: of an answer to a protected question. Not a run's to say: an answer cut short breaks few rules.
    0: the run's own bound, in ledgers from before this was recorded.
    """

    max_answer_tokens: int = Field(default=0, ge=0, le=1_024)


def forbidding(patterns: Sequence[str]) -> tuple[Rule, ...]:
    """The rules that policy.forbidden stands for, each named by its place there."""
    return tuple(Rule(name=f"policy.forbidden[{i}]", forbid=(pattern,)) for i, pattern in enumerate(patterns))
