"""Makes requests from the contract's descriptors, and spoils valid ones: field by field, and byte by byte.

`Maker.anything` walks a message type and fills it at random, so that every field of every request is reached without
anybody listing them; `Maker.spoilt` changes a few places of a valid request and leaves the rest as it was.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.fuzz.values import scalar

MAX_DEPTH = 8
LIST_LENGTHS = (0, 0, 1, 1, 1, 2, 3, 5, 17)
# Long lists of small things: over every limit of the contract, and cheap to send.
LONG_LISTS = (33, 65, 513, 1_025, 4_097)
REQUEST_IDS = tuple(f"id-{number}" for number in range(48))
RUN_IDS = tuple(f"run-{number}" for number in range(48))


class Maker:
    """One per worker: draws from its own generator, and remembers names that answers told it."""

    def __init__(self, draw: random.Random, names: deque[str]) -> None:
        self._draw = draw
        self._names = names

    def anything(self, message: Message, depth: int = 0) -> None:
        """Fills a message: some fields are left out, some are plausible, some are not."""
        for field in fields_of(message):
            if self._draw.random() < 0.55:
                self._put(message, field, depth)

    def spoilt(self, message: Message) -> None:
        """Changes one to four places anywhere in a message."""
        for _ in range(self._draw.choice((1, 1, 1, 2, 4))):
            holder = self._draw.choice(list(_every(message)))
            if not (fields := fields_of(holder)):
                continue
            field = self._draw.choice(fields)
            if self._draw.random() < 0.25:
                holder.ClearField(field.name)
            elif field.is_repeated and not _is_map(field) and self._draw.random() < 0.5:
                self._rearranged(getattr(holder, field.name))
            else:
                self._put(holder, field, depth=2)

    def bytes_of(self, data: bytes) -> bytes:
        """Serialized bytes, flipped, cut, doubled or stirred."""
        draw, spoilt = self._draw, bytearray(data)
        for _ in range(draw.choice((1, 1, 2, 8))):
            place = draw.randrange(len(spoilt) + 1)
            match draw.randrange(5):
                case 0 if spoilt:
                    spoilt[min(place, len(spoilt) - 1)] ^= 1 << draw.randrange(8)
                case 1:
                    del spoilt[place:]
                case 2:
                    spoilt[place:place] = draw.randbytes(draw.choice((1, 2, 9)))
                case 3:
                    other = draw.randrange(len(spoilt) + 1)
                    spoilt[place:place] = spoilt[min(place, other) : max(place, other)][:4_096]
                case _:
                    # A tag with a length that the bytes do not have.
                    spoilt[place:place] = b"\x0a\xff\xff\xff\xff\x07"
        return bytes(spoilt)

    def _put(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        if _is_map(field):
            for _ in range(self._draw.choice(LIST_LENGTHS)):
                self._put_entry(message, field)
        elif field.is_repeated:
            self._fill(getattr(message, field.name), field, depth)
        elif field.message_type is not None:
            child = getattr(message, field.name)
            child.SetInParent()
            if depth < MAX_DEPTH:
                self.anything(child, depth + 1)
        else:
            setattr(message, field.name, self._value(field))

    def _fill(self, entries: Any, field: FieldDescriptor, depth: int) -> None:
        length = self._draw.choice(LONG_LISTS if self._draw.random() < 0.03 else LIST_LENGTHS)
        del entries[:]
        if field.message_type is None:
            entries.extend(self._value(field) for _ in range(length))
        elif depth < MAX_DEPTH:
            for _ in range(length):
                # The entries of a long list are alike: what is wanted is its length.
                entries.add() if length > max(LIST_LENGTHS) else self.anything(entries.add(), depth + 2)

    def _put_entry(self, message: Message, field: FieldDescriptor) -> None:
        entry: Any = field.message_type
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        entries: Any = getattr(message, field.name)
        if value.message_type is None:
            entries[self._value(key)] = self._value(value)
        else:
            entries[self._value(key)].SetInParent()

    def _value(self, field: FieldDescriptor) -> Any:
        """Half of the names are ones that mean something somewhere: used before, or told by an answer."""
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING and self._draw.random() < 0.5:
            if field.name == "request_id":
                return self._draw.choice(REQUEST_IDS)
            if field.name == "run_id":
                return self._draw.choice(RUN_IDS)
            if self._names and field.name in {"version", "versions", "sha256", "edit", "policy_version", "page_token"}:
                name = self._draw.choice(self._names)
                return name if self._draw.random() < 0.8 else name[: self._draw.randrange(64)]
        return scalar(field, self._draw)

    def _rearranged(self, entries: Any) -> None:
        """A list with one entry more, fewer, twice, or many times."""
        kept = list(entries)
        if not kept:
            return
        place = self._draw.randrange(len(kept))
        copies = self._draw.choice((0, 2, 2, 70, 600 if len(kept) < 20 else 3))
        del entries[:]
        entries.extend([*kept[:place], *[kept[place]] * copies, *kept[place + 1 :]])


def fields_of(message: Message) -> list[Any]:
    """Descriptors of a message's fields: with upb, of another class than the one that is documented."""
    return list(message.DESCRIPTOR.fields)


def _every(message: Message) -> Iterable[Message]:
    """The message and all that are set in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None or _is_map(field):
            continue
        for child in value if field.is_repeated else (value,):
            yield from _every(child)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)
