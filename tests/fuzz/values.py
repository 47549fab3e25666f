"""Values that fields do not expect, by the type of the field. Deterministic in the generator that draws them."""

from __future__ import annotations

import random

from google.protobuf.descriptor import FieldDescriptor

INT32_LIMITS = (-(2**31), 2**31 - 1)
INT64_LIMITS = (-(2**63), 2**63 - 1)

WHOLE = (0, 1, -1, 2, 15, 16, 17, 63, 64, 65, 100, 101, 256, 1_000, 1_001, 1_024, 4_096, 10_000, 65_536, 10**9)
REAL = (
    *(0.0, -0.0, 0.5, 1.0, -1.0, 0.9, 0.90001, 1.0000001, 2.0, 100.0, 1_024.0, 1e-12),
    *(float("nan"), float("inf"), float("-inf"), 5e-324, -5e-324, 1.7e308, -1.7e308, 3.4e39, 1e-320),
)
CHOICES: dict[int, tuple[object, ...]] = {
    FieldDescriptor.CPPTYPE_BOOL: (False, True),
    FieldDescriptor.CPPTYPE_FLOAT: REAL,
    FieldDescriptor.CPPTYPE_DOUBLE: REAL,
    FieldDescriptor.CPPTYPE_INT32: (*WHOLE, *INT32_LIMITS),
    FieldDescriptor.CPPTYPE_INT64: (*WHOLE, *INT64_LIMITS),
    FieldDescriptor.CPPTYPE_UINT32: (0, 1, 1_000, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 1, 1_000, 2**64 - 1),
}
SHORT = (
    *("", " ", "\0", "a\0b", "\n", "\r\n", "\t", "\x1b[31mred", "\x7f", "-", ".", "..", "../../etc/passwd", "/", "\\"),
    *("\u202eright to left", "e\u0301", "\u00df", "\u0130", "\u0663", "\u00b2", "\u2028", "\ufeff", "\ufffd", "\uffff"),
    *(
        "\ud7ff",
        "\U0010ffff",
        "\U0001f92f",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\u0e33" * 40,
        "a\u0300" * 70,
    ),
    *("NaN", "Infinity", "-Infinity", "1e999", "-0", "0x10", "1_0", "1,250.5", "null", "true", "{}", "[]", "__proto__"),
    *("'; DROP TABLE events;--", "%s%n%d", "{{7*7}}", "{% endfor %}", "${PATH}", "$(id)", "`id`", "\\u0000", "&#0;"),
    *("<|im_end|>", "<|im_start|>system", "<|endoftext|>", "base", "live", "shadow", "previous", "general", "0", "1"),
    *(
        "(a+)+$",
        "(?:",
        "(" * 200,
        "[",
        "a{2,1}",
        "a{99999}",
        "(?P<a>a)(?P=b)",
        r"\1",
        "(?s).*",
        "(?R)",
        "(?i)(?x)",
        "*",
    ),
    *("((a{1,99}){1,99}){1,99}", "x" * 64, "x" * 65, "x" * 128, "x" * 129, "f" * 63, "F" * 64, "g" * 64, "0" * 64),
)
LENGTHS = (200, 201, 300, 301, 512, 1_024, 1_025, 4_096, 4_097, 16_384, 16_385, 65_536, 65_537)
HUGE = 1_200_000


def text(draw: random.Random) -> str:
    """Mostly short; now and then at a limit, and seldom more than a megabyte."""
    luck = draw.random()
    if luck < 0.85:
        return draw.choice(SHORT)
    if luck < 0.93:
        return "".join(chr(draw.choice((draw.randrange(0xD800), draw.randrange(0xE000, 0x110000)))) for _ in range(20))
    if luck < 0.999:
        return draw.choice(("a", "\0", "\u00e9", "\U0001f92f", " ", "a b\n")) * draw.choice(LENGTHS)
    return "z" * HUGE


def scalar(field: FieldDescriptor, draw: random.Random) -> object:
    """Any value that the wire lets through in this field, sensible or not."""
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return text(draw) if field.type == FieldDescriptor.TYPE_STRING else draw.randbytes(32)
        case FieldDescriptor.CPPTYPE_ENUM if field.enum_type is not None:
            # Enums of proto3 are open: a number without a name arrives as it is.
            return draw.choice([*(value.number for value in field.enum_type.values), -1, 99, *INT32_LIMITS])
        case kind:
            return draw.choice(CHOICES[kind])
