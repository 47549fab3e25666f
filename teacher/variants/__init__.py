"""The prompt variants by name. A new one is added here and nowhere else."""

from __future__ import annotations

from teacher.variants.base import Variant
from teacher.variants.documents import (
    IMPLICATIONS,
    IMPLICATIONS_LONG,
    IMPLICATIONS_VERY_LONG,
    NONE,
    REWRITE,
    SELF_QA,
)
from teacher.variants.sentences import SELF_QA_SENTENCES

VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (IMPLICATIONS, IMPLICATIONS_LONG, IMPLICATIONS_VERY_LONG, REWRITE, SELF_QA, SELF_QA_SENTENCES, NONE)
}
