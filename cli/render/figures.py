"""Figures that a person can read: counts before shares, short digests, durations."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from common.contract.seal.v1 import auditor_pb2 as pb

SHORT = 10
NOTHING = "-"


def count(score: pb.Score | None) -> str:
    """ "7 of 14", with the empty answers if there were any; "-" where nothing was asked."""
    if score is None or not score.questions:
        return NOTHING
    text = f"{number(score.correct)} of {score.questions}"
    return f"{text} ({score.empty} empty)" if score.empty else text


def share(score: pb.Score) -> float:
    """Right answers as a share, 0..1; 0 where nothing was asked."""
    return score.correct / score.questions if score.questions else 0.0


def percent(score: pb.Score) -> str:
    return f"{share(score):.0%}" if score.questions else NOTHING


def change(before: pb.Score, after: pb.Score) -> str:
    """ "0 of 7 → 3 of 7"; "-" where neither was asked."""
    return f"{count(before)} → {count(after)}" if before.questions or after.questions else NOTHING


def number(value: float) -> str:
    """Whole numbers without a point, others with as many digits as tell something."""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else f"{value:.3g}"


def signed(value: float) -> str:
    return f"{value:+.2f}"


def short(version: str) -> str:
    """A digest's first characters, enough to name it in a command; "base" stays."""
    return version[:SHORT] if len(version) == 64 else version or NOTHING


def seconds(value: float) -> str:
    """ "8.4 s", "3 min 05 s", "2 h 10 min"."""
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3_600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3_600} h {whole % 3_600 // 60:02d} min"


def size(count_of_bytes: int) -> str:
    value = float(count_of_bytes)
    for unit in ("B", "KiB", "MiB"):
        if value < 1_024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1_024
    return f"{value:.1f} GiB"


def moment(stamp: Timestamp) -> str:
    """Local time, to the second."""
    if not stamp.seconds:
        return NOTHING
    return datetime.fromtimestamp(stamp.seconds, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def elapsed(run: pb.Run) -> str:
    """How long a run took, or has taken so far."""
    if not run.start_time.seconds:
        return NOTHING
    end = run.end_time.seconds or int(datetime.now(tz=UTC).timestamp())
    return seconds(float(max(0, end - run.start_time.seconds)))


def name(enum: str, prefix: str) -> str:
    """EDIT_STATE_ROLLED_BACK -> "rolled back"."""
    return enum.removeprefix(prefix).lower().replace("_", " ")


def clip(text: str, characters: int) -> str:
    """The text on one line, with "..." where it was cut off; "(empty)" if there is none."""
    line = " ".join(text.split())
    if len(line) > characters:
        line = line[: characters - 3].rstrip() + "..."
    return line or "(empty)"


def right(score: float) -> bool:
    """Whether a grader's score counts as a right answer."""
    return score >= 0.5


def plural(quantity: int, noun: str) -> str:
    return f"{quantity:,} {noun}" if quantity == 1 else f"{quantity:,} {noun}s"


def state_of_edit(state: pb.EditState.ValueType) -> str:
    return name(pb.EditState.Name(state), "EDIT_STATE_")


def state_of_run(state: pb.RunState.ValueType) -> str:
    return name(pb.RunState.Name(state), "RUN_STATE_")


def gate_kind(kind: pb.GateKind.ValueType) -> str:
    return name(pb.GateKind.Name(kind), "GATE_KIND_")
