"""The one place where messages become domain objects and back.

Domain models mirror messages field by field (common/types.py), so both directions go through protobuf's own JSON
mapping. A message that breaks a limit raises InvalidRequest with every violation named by its path.
"""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from pydantic import BaseModel, ValidationError

from common.errors import InvalidRequest, Violation

ModelT = TypeVar("ModelT", bound=BaseModel)
MessageT = TypeVar("MessageT", bound=Message)


def from_proto(model: type[ModelT], message: Message) -> ModelT:
    """Validates `message` as `model`. Raises InvalidRequest."""
    return validate(model, MessageToDict(message, preserving_proto_field_name=True))


def validate(model: type[ModelT], data: object) -> ModelT:
    """Validates plain data as `model`. Raises InvalidRequest; inputs are never quoted in it."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        violations = violations_of(error)
    # Out here, so that pydantic's error is no context of ours: it holds the validators' errors, whose frames hold the
    # whole request, out of the garbage collector's sight. Every refused request would stay in memory.
    raise InvalidRequest(violations)


def violations_of(error: ValidationError) -> list[Violation]:
    """One violation a field, without the offending input."""
    entries = error.errors(include_input=False, include_url=False, include_context=False)
    places = [entry["loc"] for entry in entries]

    def only_follows(kind: str, place: tuple[int | str, ...]) -> bool:
        # pydantic counts valid items only, so a list whose single item is bad is called too short as well.
        return kind == "too_short" and any(len(p) > len(place) and p[: len(place)] == place for p in places)

    return [
        Violation(path_of(entry["loc"]) or "request", str(entry["msg"]).removeprefix("Value error, "))
        for entry in entries
        if not only_follows(entry["type"], entry["loc"])
    ]


def path_of(location: tuple[int | str, ...]) -> str:
    """`("tau", 3, "answers")` -> `tau[3].answers`."""
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def to_proto(message: type[MessageT], model: BaseModel) -> MessageT:
    """The message that mirrors `model`."""
    return ParseDict(model.model_dump(mode="json", exclude_none=True), message())
