"""Messages as JSON with stable keys: every field is there, numbers are numbers.

protobuf's own mapping writes 64-bit integers as strings and leaves fields out; a script wants neither.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from datetime import UTC
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from common.contract.seal.v1 import auditor_pb2 as pb


def plain(message: Message) -> dict[str, Any]:
    """Every field by its name; a message that is not set is null, a timestamp RFC 3339 in UTC."""
    fields: Iterable[Any] = message.DESCRIPTOR.fields  # its type differs with protobuf's implementation
    return {field.name: _field(message, field) for field in fields}


def event_object(event: pb.RunEvent) -> dict[str, Any]:
    """An event as `{seq, time, run_id, type, data}`; `type` is the name of what happened."""
    kind = event.WhichOneof("event") or "unknown"
    data = plain(getattr(event, kind)) if kind != "unknown" else {}
    return {"seq": event.seq, "time": _time(event.time), "run_id": event.run_id, "type": kind, "data": data}


def emit(value: Any) -> None:
    """One JSON value on one line of standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def _field(message: Message, field: FieldDescriptor) -> Any:
    value = getattr(message, field.name)
    if field.is_repeated:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return {str(key): _single(field.message_type.fields_by_name["value"], value[key]) for key in sorted(value)}
        return [_single(field, item) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _single(field, value)


def _single(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, Timestamp):
        return _time(value)
    if isinstance(value, Message):
        return plain(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known is not None else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _time(stamp: Timestamp) -> str | None:
    if not stamp.seconds:
        return None
    return stamp.ToDatetime(tzinfo=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
