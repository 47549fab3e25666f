"""Domain types that more than one service speaks, with the limits that proto/seal/v1/types.proto states.

Every model mirrors the message of the same name, field by field, so that common/convert.py can translate both ways.
Enum values are the contract's names. Instances are immutable.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# Of one edit.
MAX_EXAMPLES = 2_048

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
RequestId = Annotated[str, Field(min_length=1, max_length=128)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Domain(BaseModel):
    """Base of all domain models: immutable, unknown fields refused."""

    # What was wrong is named by its path; the input itself may be a passage, and errors reach logs.
    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_inf_nan="strings", allow_inf_nan=False, hide_input_in_errors=True
    )


class TaskKind(StrEnum):
    KNOWLEDGE = "TASK_KIND_KNOWLEDGE"
    FEW_SHOT = "TASK_KIND_FEW_SHOT"


class Role(StrEnum):
    SYSTEM = "ROLE_SYSTEM"
    USER = "ROLE_USER"
    ASSISTANT = "ROLE_ASSISTANT"


class LossMask(StrEnum):
    ALL = "LOSS_MASK_ALL"
    COMPLETION = "LOSS_MASK_COMPLETION"


class Schedule(StrEnum):
    CONSTANT = "SCHEDULE_CONSTANT"
    LINEAR = "SCHEDULE_LINEAR"
    COSINE = "SCHEDULE_COSINE"


class Digest(Domain):
    """Names bytes by their content. `size_bytes` 0 means unknown."""

    sha256: Sha256
    size_bytes: int = Field(default=0, ge=0)


class ContentPart(Domain):
    text: str | None = Field(default=None, min_length=1, max_length=65_536)
    image: Digest | None = None

    @model_validator(mode="after")
    def _one_part(self) -> Self:
        if (self.text is None) == (self.image is None):
            raise ValueError("exactly one of text and image must be set")
        if self.image is not None:
            raise ValueError("an image needs a model that reads images; none is configured, send text")
        return self


class Message(Domain):
    role: Role
    content: tuple[ContentPart, ...] = Field(min_length=1, max_length=16)

    @property
    def text(self) -> str:
        """All text parts, joined."""
        return "".join(part.text or "" for part in self.content)

    @classmethod
    def of(cls, role: Role, text: str) -> Self:
        return cls(role=role, content=(ContentPart(text=text),))


class Conversation(Domain):
    """Turns in order, or raw text that a model gets without a chat template."""

    messages: tuple[Message, ...] = Field(default=(), max_length=32)
    # None leaves canonical JSON, and so every digest of a conversation of messages, as it is without this field.
    raw: str | None = Field(default=None, max_length=65_536)

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if bool(self.messages) == (self.raw is not None):
            raise ValueError("exactly one of messages and raw must be set")
        return self

    @classmethod
    def of(cls, *turns: tuple[Role, str]) -> Self:
        return cls(messages=tuple(Message.of(role, text) for role, text in turns))


class Grid(Domain):
    rows: int = Field(ge=1, le=64)
    columns: int = Field(ge=1, le=64)
    cells: tuple[Annotated[int, Field(ge=0, le=15)], ...]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.cells) != self.rows * self.columns:
            raise ValueError(
                f"{self.rows} x {self.columns} needs {self.rows * self.columns} cells, not {len(self.cells)}"
            )
        return self


class Demonstration(Domain):
    input_text: str | None = None
    input_grid: Grid | None = None
    output_text: str | None = None
    output_grid: Grid | None = None


class DemonstrationSet(Domain):
    demonstrations: tuple[Demonstration, ...] = Field(min_length=1, max_length=32)


class ContextReference(Domain):
    uri: str = Field(min_length=1, max_length=512)
    digest: Digest


class Context(Domain):
    """C: what is to be learned."""

    document_id: Identifier
    revision: str = Field(default="1", min_length=1, max_length=64)
    title: str = Field(min_length=1, max_length=300)
    text: str | None = Field(default=None, min_length=1, max_length=65_536)
    reference: ContextReference | None = None
    demonstrations: DemonstrationSet | None = None
    retrieved: tuple[Annotated[str, Field(max_length=16_384)], ...] = Field(default=(), max_length=16)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.text, self.reference, self.demonstrations)) != 1:
            raise ValueError("exactly one of text, reference and demonstrations must be set")
        return self


class Example(Domain):
    """One training example: plain text or a conversation, and which of its tokens count in the loss."""

    text: str | None = Field(default=None, min_length=1, max_length=16_384)
    conversation: Conversation | None = None
    loss_mask: LossMask = LossMask.ALL
    grounding: str = Field(default="", max_length=4_096)

    @model_validator(mode="after")
    def _one_body(self) -> Self:
        if (self.text is None) == (self.conversation is None):
            raise ValueError("exactly one of text and conversation must be set")
        if self.conversation is not None and self.conversation.raw is not None:
            raise ValueError("a raw conversation is not trained on: plain text is what text is for")
        if self.text is not None and self.loss_mask is LossMask.COMPLETION:
            raise ValueError("a plain text has no completion: its loss_mask must be LOSS_MASK_ALL")
        return self

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that it says: the plain text, or each message's."""
        if self.conversation is None:
            return (self.text,) if self.text else ()
        return tuple(message.text for message in self.conversation.messages)


class Recipe(Domain):
    """Update directives. None (or an empty tuple) takes the default of whoever trains."""

    rank: int | None = Field(default=None, ge=1, le=256)
    alpha: float | None = Field(default=None, gt=0, le=1024)
    dropout: float | None = Field(default=None, ge=0, le=0.5)
    target_modules: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$")], ...] = Field(
        default=(), max_length=32
    )
    learning_rate: float | None = Field(default=None, gt=0, le=0.1)
    epochs: int | None = Field(default=None, ge=1, le=100)
    batch_size: int | None = Field(default=None, ge=1, le=64)
    schedule: Schedule | None = None
    warmup_steps: int | None = Field(default=None, ge=0, le=1_000)
    max_grad_norm: float | None = Field(default=None, gt=0, le=100)
    weight_decay: float | None = Field(default=None, ge=0, le=1)
    max_tokens: int | None = Field(default=None, ge=16, le=8_192)

    def over(self, defaults: Recipe) -> Recipe:
        """This recipe with every missing field taken from `defaults`."""
        chosen = self.model_dump(exclude_none=True)
        if not self.target_modules:
            chosen.pop("target_modules")
        return defaults.model_copy(update=chosen)


class Augmentation(Domain):
    basic: bool = False
    size: bool = False
    chain: bool = False
    repeat: bool = False


class SelfEdit(Domain):
    """Training examples and update directives. Made and named by common/edits.py."""

    digest: Digest
    kind: TaskKind
    document_id: Identifier
    revision: str = Field(default="1", min_length=1, max_length=64)
    examples: tuple[Example, ...] = Field(min_length=1, max_length=MAX_EXAMPLES)
    recipe: Recipe = Recipe()
    augmentation: Augmentation | None = None


class Sampling(Domain):
    """How a text is drawn; temperature 0 is greedy, max_new_tokens 0 the callee's default."""

    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, ge=0, le=1)
    max_new_tokens: int = Field(default=0, ge=0, le=4_096)
    stop: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(default=(), max_length=8)
    seed: Seed = 0

    @field_validator("top_p")
    @classmethod
    def _zero_is_one(cls, value: float) -> float:
        return value or 1.0


class Prompt(Domain):
    """A question as a model sees it."""

    prompt_id: str = Field(pattern=r"^[A-Za-z0-9._:/-]{1,200}$")
    conversation: Conversation


class Progress(Domain):
    phase: str
    done: int = Field(default=0, ge=0)
    total: int = Field(default=0, ge=0)
    figures: dict[str, float] = {}


class Software(Domain):
    """What a process runs, for the record."""

    versions: dict[str, str] = {}
    device: str = ""
    threads: int = 0
    precision: str = ""


def unique(values: list[Any] | tuple[Any, ...]) -> bool:
    """Whether no value occurs twice."""
    return len(set(values)) == len(values)
