"""How long a regular expression becomes when its counted repeats are written out: `(ab){3}` is ababab.

The `regex` module writes them out when it compiles, at about 250 bytes a character: the key a{9999999} takes gigabytes.
auditor/keys.py refuses what is over the limit before it is compiled.
"""

from __future__ import annotations

import re

MOST_CHARACTERS = 5_000
# An escape, a set, a count, a bracket, or any other character.
PIECE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(\d+)(?:,\d*)?\}|[()]|.", re.DOTALL)


def written_out(pattern: str) -> int:
    """Characters at most: a count is taken to repeat the longest piece before it in its group.

    So comments, flags and spaces between a piece and its count (in a verbose pattern they mean nothing) hide nothing.
    """
    sizes, longest = [0], [0]
    for piece in PIECE.finditer(pattern):
        if piece[0] == "(":
            sizes.append(0)
            longest.append(0)
        elif piece[0] == ")" and len(sizes) > 1:
            size = sizes.pop()
            longest.pop()
            sizes[-1] += size
            longest[-1] = max(longest[-1], size)
        elif piece[1] is not None:
            times = max(1, int(piece[1]))
            sizes[-1] += longest[-1] * (times - 1)
            longest[-1] *= times
        else:
            sizes[-1] += 1
            longest[-1] = max(longest[-1], 1)
    return sum(sizes)
