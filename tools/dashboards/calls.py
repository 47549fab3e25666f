"""What every service's own dashboard ends with: its calls, its process, its certificate."""

from __future__ import annotations

from tools.dashboards.panels import RATE, Panel, Query, Row, Unit, m


def calls(service: str) -> Row:
    """service: as in seal.v1.TeacherService."""
    handled = m("grpc_server_handled_total", grpc_service=service)
    seconds = m("grpc_server_handling_seconds_bucket", grpc_service=service)
    return Row(
        "Calls and process",
        [
            Panel(
                "Calls by method",
                "Calls that ended, a second.",
                Unit.PER_SECOND,
                [Query(f"sum by (grpc_method) (rate({handled}{RATE}))", "{{grpc_method}}")],
                least=0,
            ),
            Panel(
                "Time of calls, 95 of 100",
                "So long or shorter took 95 of 100 calls within the window, by method.",
                Unit.SECONDS,
                [
                    Query(
                        f"histogram_quantile(0.95, sum by (le, grpc_method) (increase({seconds}[$window])))",
                        "{{grpc_method}}",
                    )
                ],
                least=0,
            ),
            Panel(
                "Calls under way",
                "By method; a stream is under way until its last message.",
                Unit.NUMBER,
                [Query(f"sum by (grpc_method) ({m('seal_rpcs_in_flight', grpc_service=service)})", "{{grpc_method}}")],
                least=0,
            ),
            Panel(
                "Memory",
                "Resident memory of each process; what is on a GPU is not in it.",
                Unit.BYTES,
                [Query(f"{_own('process_resident_memory_bytes', service)}", "{{instance}}")],
                least=0,
            ),
            Panel(
                "Processor cores in use",
                "Of each process.",
                Unit.NUMBER,
                [Query(f"rate({_own('process_cpu_seconds_total', service, RATE)}", "{{instance}}")],
                least=0,
            ),
            Panel(
                "Calls by status",
                "Calls that ended within the window, by the status that their callers got.",
                Unit.NUMBER,
                [Query(f"sum by (grpc_code) (increase({handled}[$window]))", "{{grpc_code}}")],
                kind="bars",
            ),
        ],
    )


def _own(metric: str, service: str, window: str = "") -> str:
    """A metric that every process has, of those that serve `service`."""
    serves = f"group by (instance) ({m('grpc_server_started_total', grpc_service=service)})"
    return f"{m(metric)}{window}{')' if window else ''} * on (instance) group_left () {serves}"
