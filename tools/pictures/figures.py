"""Figures as people read them, by Grafana's unit. Pure; tools/pictures/chart.py calls it."""

from __future__ import annotations

import math

from tools.dashboards.panels import Unit

SPANS = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "min"), (1.0, "s"))
SIZES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
AFTER = {
    Unit.PER_SECOND: "/s",
    Unit.TOKENS_PER_SECOND: " tok/s",
    Unit.NATS: " nats",
    Unit.BITS: " bits",
}


def spoken(value: float, unit: Unit) -> str:
    """At most three digits that count."""
    if math.isnan(value):
        return "none"
    match unit:
        case Unit.BOOLEAN:
            return "yes" if value else "no"
        case Unit.SHARE:
            return f"{short(100 * value)} %"
        case Unit.SECONDS:
            size, name = next(((size, name) for size, name in SPANS if abs(value) >= 2 * size), (1.0, "s"))
            return f"{short(value / size)} {name}"
        case Unit.BYTES:
            bytes_, name = next(((size, name) for size, name in SIZES if value >= size), (1, "B"))
            return f"{short(value / bytes_)} {name}"
        case _:
            return short(value) + AFTER.get(unit, "")


def short(value: float) -> str:
    if value == 0 or abs(value) >= 1_000:
        return f"{value:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Round values within low..high, in even steps of 1, 2, 2.5 or 5 times a power of ten."""
    if high <= low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [place * step for place in range(first, math.floor(high / step + 1e-9) + 1)]
