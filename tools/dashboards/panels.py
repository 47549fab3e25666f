"""What a dashboard of ours is made of, and how grafana-foundation-sdk writes it down for Grafana 10 and later.

A query names metrics with `m(...)`, which adds the dashboard's choice of namespace and job. Every panel has a unit and
says what it shows; a level from which a figure is bad is a threshold, drawn as a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as styles
from grafana_foundation_sdk.models import dashboard as models

SELECTED = 'namespace=~"$namespace", job=~"$job"'
# As far back as the dashboard's window goes, and as far as a rate needs.
WINDOW, RATE = "[$window]", "[$__rate_interval]"
HEIGHTS = {"stat": 4, "bars": 7, "lines": 7}
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")


class Unit(StrEnum):
    """Grafana's names of units."""

    NUMBER = "short"
    SHARE = "percentunit"
    SECONDS = "s"
    BYTES = "bytes"
    PER_SECOND = "cps"
    TOKENS_PER_SECOND = "tok/s"
    NATS = "suffix: nats"
    BITS = "suffix: bits"
    COST = "suffix: (currency of the settings)"
    BOOLEAN = "bool_yes_no"


def m(name: str, **labels: str) -> str:
    """A selector; a label's value that begins with ~ or ! is a matcher: code="!OK"."""
    chosen = [SELECTED, *(_matcher(label, value) for label, value in labels.items())]
    return f"{name}{{{', '.join(chosen)}}}"


def _matcher(label: str, value: str) -> str:
    operator = {"~": "=~", "!": "!="}.get(value[:1], "=")
    return f'{label}{operator}"{value.lstrip("~!")}"'


def quantile(share: float, histogram: str, by: str = "") -> str:
    """Of what a histogram observed within the window."""
    grouped = f"le, {by}" if by else "le"
    return f"histogram_quantile({share:g}, sum by ({grouped}) (increase({m(f'{histogram}_bucket')}{WINDOW})))"


def mean(histogram: str) -> str:
    """Of what a histogram of positive values observed within the window."""
    return f"sum(increase({m(f'{histogram}_sum')}{WINDOW})) / sum(increase({m(f'{histogram}_count')}{WINDOW}))"


@dataclass(frozen=True)
class Query:
    """PromQL, and what a series is called; {{label}} stands for its value."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Bad:
    """From where a figure is worth a look, and from where it is bad. below: it is bad when small."""

    watch: float
    bad: float
    below: bool = False


@dataclass(frozen=True)
class Panel:
    """kind: lines over time, bars (the newest values side by side), or stat (one newest value).

    named: a stat shows the series' name, not its value, which is always 1.
    """

    title: str
    tells: str
    unit: Unit
    queries: Sequence[Query]
    kind: str = "lines"
    bad: Bad | None = None
    width: int = 8
    named: bool = False
    stacked: bool = False
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Row:
    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Board:
    uid: str
    title: str
    tells: str
    rows: Sequence[Row]

    def panels(self) -> list[Panel]:
        return [panel for row in self.rows for panel in row.panels]


def as_json(board: Board) -> str:
    """The dashboard as Grafana imports it."""
    built = (
        build.Dashboard(board.title)
        .uid(board.uid)
        .description(board.tells)
        .tags(["seal"])
        .editable()
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .refresh("30s")
        .link(build.DashboardLink("SEAL").type(models.DashboardLinkType.DASHBOARDS).tags(["seal"]).keep_time(True))
    )
    for variable in _variables():
        built = built.with_variable(variable)
    number = 0
    for row in board.rows:
        built = built.with_row(build.Row(row.title))
        for panel in row.panels:
            number += 1
            built = built.with_panel(_panel(panel).id(number))
    return JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"


def _variables() -> list[Any]:
    """Everything is chosen at first. A series without a namespace, outside Kubernetes, is of `All` too."""
    everything = models.VariableOption(text="All", value="$__all", selected=True)

    def chosen(name: str) -> Any:
        return (
            build.QueryVariable(name)
            .label(name.capitalize())
            .datasource(SOURCE)
            .query(f"label_values(seal_build_info, {name})")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(everything)
        )

    return [
        build.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        chosen("namespace"),
        chosen("job"),
        build.IntervalVariable("window")
        .label("Window")
        .description("What increases and quantiles are taken over")
        .values("15m,1h,6h,1d,7d")
        .current(models.VariableOption(text="1h", value="1h", selected=True)),
    ]


def _panel(panel: Panel) -> Any:
    makers = {"stat": _stat, "bars": _bars, "lines": _lines}
    made = makers[panel.kind](panel)
    made = made.title(panel.title).description(panel.tells).unit(panel.unit.value).datasource(SOURCE)
    made = made.span(panel.width).height(HEIGHTS[panel.kind]).thresholds(_thresholds(panel.bad))
    if panel.least is not None:
        made = made.min(panel.least)
    if panel.most is not None:
        made = made.max(panel.most)
    for place, query in enumerate(panel.queries):
        target = Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + place))
        made = made.with_target(target.range() if panel.kind == "lines" else target.instant())
    return made


def _thresholds(bad: Bad | None) -> Any:
    steps = [models.Threshold(color="green")]
    if bad is not None and bad.below:
        steps = [
            models.Threshold(color="red"),
            models.Threshold(value=bad.bad, color="orange"),
            models.Threshold(value=bad.watch, color="green"),
        ]
    elif bad is not None:
        steps += [models.Threshold(value=bad.watch, color="orange"), models.Threshold(value=bad.bad, color="red")]
    return build.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _stat(panel: Panel) -> Any:
    mode = styles.BigValueTextMode.NAME if panel.named else styles.BigValueTextMode.AUTO
    colour = styles.BigValueColorMode.VALUE if panel.bad else styles.BigValueColorMode.NONE
    made = stat.Panel().text_mode(mode).color_mode(colour).graph_mode(styles.BigValueGraphMode.NONE)
    return made.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def _bars(panel: Panel) -> Any:
    made = bargauge.Panel().orientation(styles.VizOrientation.HORIZONTAL)
    made = made.display_mode(styles.BarGaugeDisplayMode.BASIC).value_mode(styles.BarGaugeValueMode.TEXT)
    return made.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def _lines(panel: Panel) -> Any:
    legend = common.VizLegendOptions().display_mode(styles.LegendDisplayMode.LIST).show_legend(True)
    legend = legend.placement(styles.LegendPlacement.BOTTOM)
    made = timeseries.Panel().legend(legend).line_width(2).show_points(styles.VisibilityMode.NEVER)
    made = made.tooltip(common.VizTooltipOptions().mode(styles.TooltipDisplayMode.MULTI))
    made = made.fill_opacity(30 if panel.stacked else 8)
    if panel.stacked:
        made = made.stacking(common.StackingConfig().mode(styles.StackingMode.NORMAL))
    if panel.bad is not None:
        line = common.GraphThresholdsStyleConfig().mode(styles.GraphTresholdsStyleMode.DASHED)
        made = made.thresholds_style(line)
    return made
