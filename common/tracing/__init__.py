"""OpenTelemetry traces of one edit's way over the three services, by setting (tracing.endpoint).

Off by default: then nothing of OpenTelemetry is imported and a span costs one look at a variable. Attributes are ids,
counts, seconds; what is not shaped like an id never leaves as it is.
"""

from common.tracing.settings import TracingSettings
from common.tracing.spans import Root, note, root_of, span

__all__ = ["Root", "TracingSettings", "note", "root_of", "span"]
