"""The kinds of panels that the dashboards are made of, each with what all of its kind have in common.

Every panel has a title, a description that says how to read it, and a unit, by the names of Grafana's units: "s",
"bytes", "percentunit" for a ratio of 0 to 1, "short" for a plain number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import (
    DashboardLink,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    Panel,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.grafana.runbooks import runbook_url

PROMETHEUS = DataSourceRef("prometheus", "${datasource}")
"""The one that is chosen at the top of the dashboard."""

WIDTH = 24
"""Columns of Grafana's grid."""

HEIGHT = 8
"""Rows of the grid that a panel with axes has."""


@dataclass(frozen=True)
class Query:
    """What is asked of Prometheus, and how the answers are called: "worker {{worker}}"."""

    expression: str
    legend: str = ""


Step = tuple[float | None, str]
"""From which value on, None for all below the next, and the colour."""


def graph(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    span: int = 8,
    stacked: bool = False,
    bars: bool = False,
    logarithmic: bool = False,
    most: float | None = None,
    thresholds: Sequence[Step] = (),
    runbook: str = "",
) -> Builder[Panel]:
    """Lines over time; `most` is the end of the axis where it is known, `thresholds` are drawn across."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .targets(_targets(queries))
        .unit(unit)
        .span(span)
        .height(HEIGHT)
        .draw_style(options.GraphDrawStyle.BARS if bars else options.GraphDrawStyle.LINE)
        .fill_opacity(60 if stacked or bars else 0)
        .show_points(options.VisibilityMode.NEVER)
        .legend(common.VizLegendOptions().display_mode(options.LegendDisplayMode.LIST).show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING))
        .links(_links(runbook))
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL).group("A"))
    if logarithmic:
        panel.scale_distribution(common.ScaleDistributionConfig().type(options.ScaleDistribution.LOG).log(10))
    else:
        panel.axis_soft_min(0)
    if most is not None:
        panel.max(most)
    if thresholds:
        panel.thresholds(_thresholds(thresholds)).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.DASHED)
        )
    return panel


def number(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str = "short",
    span: int = 3,
    decimals: int | None = None,
    thresholds: Sequence[Step] = ((None, "text"),),
    by_name: bool = False,
    absent: str = "none",
    runbook: str = "",
) -> Builder[Panel]:
    """The newest value, large; `by_name` its label instead. `absent` is what stands there if there is no value."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .targets(_targets([query], instant=True))
        .unit(unit)
        .span(span)
        .height(4)
        .graph_mode(options.BigValueGraphMode.NONE)
        .color_mode(options.BigValueColorMode.VALUE)
        .text_mode(options.BigValueTextMode.NAME if by_name else options.BigValueTextMode.VALUE)
        .thresholds(_thresholds(thresholds))
        .no_value(absent)
        .links(_links(runbook))
    )
    return panel if decimals is None else panel.decimals(decimals)


def rows_of_colour(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str = "short",
    span: int = 12,
    scheme: str = "Turbo",
    runbook: str = "",
) -> Builder[Panel]:
    """A heat map with a row for each series, coloured by its value."""
    return _heatmap(title, description, query, PromQueryFormat.TIME_SERIES, scheme, span, runbook).cell_values(
        heatmap.CellValues().unit(unit)
    )


def distribution(title: str, description: str, query: Query, *, unit: str = "s", span: int = 12) -> Builder[Panel]:
    """A heat map of how often each of a histogram's buckets was met; `unit` is that of the buckets."""
    return _heatmap(title, description, query, PromQueryFormat.HEATMAP, "Oranges", span, "").y_axis(
        heatmap.YAxisConfig().unit(unit).axis_placement(options.AxisPlacement.LEFT)
    )


def timeline(title: str, description: str, query: Query, *, words: Mapping[str, tuple[str, str]]) -> Builder[Panel]:
    """A band for each series, over the whole width; `words` has a text and a colour for each value."""
    mappings: list[ValueMapping] = [ValueMap({value: ValueMappingResult(*word) for value, word in words.items()})]
    return (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .targets(_targets([query]))
        .unit("short")
        .span(WIDTH)
        .height(HEIGHT + 1)
        .mappings(mappings)
        .show_value(options.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
        .legend(common.VizLegendOptions().display_mode(options.LegendDisplayMode.LIST).show_legend(True))
    )


@dataclass(frozen=True)
class Column:
    """A column of a table, and the unit of its values. `url` makes them links, with `${__value.text}` for the value."""

    title: str
    unit: str = "short"
    url: str = ""


def table(
    title: str, description: str, *queries: Query, columns: Mapping[str, Column], span: int = WIDTH
) -> Builder[Panel]:
    """Rows of what the queries have in common, such as a job.

    `columns` are by label, or by query, "Value #A" being the first's; all others are left out.
    """
    panel = (
        tables.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .targets(_targets(queries, instant=True, kind=PromQueryFormat.TABLE))
        .span(span)
        .height(HEIGHT)
        .unit("short")
        .with_transformation(DataTransformerConfig("merge", options={}))
        .with_transformation(DataTransformerConfig("filterFieldsByName", options={"include": {"names": list(columns)}}))
        .with_transformation(
            DataTransformerConfig(
                "organize",
                options={
                    "indexByName": {name: index for index, name in enumerate(columns)},
                    "renameByName": {name: column.title for name, column in columns.items()},
                },
            )
        )
    )
    for column in columns.values():
        properties = [DynamicConfigValue("unit", column.unit)]
        if column.url:
            properties.append(DynamicConfigValue("links", [{"title": "Open", "url": column.url}]))
        panel.override_by_name(column.title, properties)
    return panel


def _heatmap(
    title: str, description: str, query: Query, kind: PromQueryFormat, scheme: str, span: int, runbook: str
) -> heatmap.Panel:
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .targets(_targets([query], kind=kind))
        .span(span)
        .height(HEIGHT)
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(HeatmapColorMode.SCHEME)
            .scheme(scheme)
            .fill("dark-orange")
            .scale(HeatmapColorScale.LINEAR)
            .exponent(0.5)
            .steps(64)
        )
        .show_value(options.VisibilityMode.NEVER)
        .cell_gap(1)
        .show_legend()
        .mode(options.TooltipDisplayMode.SINGLE)
        .show_color_scale(True)
        .links(_links(runbook))
    )


def _targets(
    queries: Sequence[Query], *, instant: bool = False, kind: PromQueryFormat = PromQueryFormat.TIME_SERIES
) -> list[Builder[Dataquery]]:
    return [_target(query, "ABCDEFGH"[index], instant, kind) for index, query in enumerate(queries)]


def _target(query: Query, letter: str, instant: bool, kind: PromQueryFormat) -> prometheus.Dataquery:
    target = prometheus.Dataquery().ref_id(letter).expr(query.expression).legend_format(query.legend)
    return target.instant().format(kind) if instant else target.range().format(kind)


def _thresholds(steps: Sequence[Step]) -> dashboard.ThresholdsConfig:
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([Threshold(*step) for step in steps])


def _links(runbook: str) -> list[Builder[DashboardLink]]:
    return [dashboard.DashboardLink(f"Runbook: {runbook}").url(runbook_url(runbook))] if runbook else []
