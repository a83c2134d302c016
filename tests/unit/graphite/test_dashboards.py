"""Dashboards generated from jobs."""

from itertools import combinations
from typing import Any

import pytest
from builders import job

from shipper.core.measures import COUNT, Kind, Measure
from shipper.core.model import Job
from shipper.core.paths import COUNTS, GAUGES
from shipper.graphite.dashboards import grafana
from shipper.graphite.dashboards import graphite_web as graphite
from shipper.graphite.dashboards.panels import Dashboard, own_panels, panels_of

MEASURES = (COUNT, Measure("ms", Kind.SUM, "duration_ms"), Measure("slowest", Kind.MAX, "duration_ms"))
JOBS = (
    job("events", title="Events, by action"),
    job("timed", measures=MEASURES, by=("action", "outcome"), template="a.{outcome}.{measure}.x-{action}", bucket=300),
    job("total", by=(), template="a.total.{measure}"),
    job("fewest", by=(), template="a.fewest", measures=(Measure("n", Kind.MIN, "id"),)),
    job("users", by=(), template="a.users", measures=(Measure("n", Kind.DISTINCT, "user_id"),), bucket=86400),
    job("own", sql="SELECT ...", by=("country",), template="own.{country}.{measure}"),
    job("tagged", template="a.b.{measure};action={action};dc=eu"),
    job("sharded@eu", template="eu.{action}.{measure}"),
    job("name_tagged", template="a.{action}.{measure};dc=e.u"),
    job("value_tagged", template="a.b;action=x.{action}"),
)


def targets(of: Job) -> list[str]:
    """Return the targets of a job's panels."""
    return [str(target) for panel in panels_of(of, 60) for target in panel.targets]


@pytest.mark.parametrize(
    ("of", "expected"),
    list(
        zip(
            JOBS,
            [
                ["aliasByNode(consolidateBy(events.*.count,'sum'),1)"],
                [
                    "aliasByNode(consolidateBy(summarize(a.*.count.x-*,'300s','sum'),'sum'),1,3)",
                    "aliasByNode(consolidateBy(summarize(a.*.ms.x-*,'300s','sum'),'sum'),1,3)",
                    "aliasByNode(consolidateBy(summarize(a.*.slowest.x-*,'300s','max'),'max'),1,3)",
                ],
                ["alias(consolidateBy(a.total.count,'sum'),'count')"],
                ["alias(consolidateBy(a.fewest,'min'),'n')"],
                ["alias(consolidateBy(summarize(a.users,'86400s','max'),'max'),'n')"],
                ["aliasByNode(consolidateBy(own.*.*,'sum'),1,2)"],
                ["aliasByNode(consolidateBy(seriesByTag('name=a.b.count','action=~^[^.]+$','dc=eu'),'sum'),'action')"],
                ["aliasByNode(consolidateBy(eu.*.count,'sum'),1)"],
                ["aliasByNode(consolidateBy(seriesByTag('name=~^a[.][^.]+[.]count$','dc=e.u'),'sum'),1)"],
                ["aliasByNode(consolidateBy(seriesByTag('name=a.b','action=~^x[.][^.]+$'),'sum'),'action')"],
            ],
            strict=True,
        )
    ),
    ids=[of.name for of in JOBS],
)
def test_targets(of: Job, expected: list[str]) -> None:
    """Each measure has a panel with all of its series, named by the columns of `by`, and with the right zoom."""
    assert targets(of) == expected


def test_titles() -> None:
    """A panel has the job's title, or its name and `by`; then the measure, if there are several, and the source."""
    titles = [panel.title for of in JOBS[:3] + JOBS[7:8] for panel in panels_of(of, 60)]
    timed = [f"timed, by action, outcome: {name}" for name in ("count", "ms", "slowest")]

    assert titles == ["Events, by action", *timed, "total", "sharded, by action (app)"]
    assert [panel.unit for panel in panels_of(JOBS[1], 60)] == ["", "ms", "ms"]
    assert [panel.adds_up for panel in panels_of(JOBS[1], 60)] == [True, True, False]


def test_own_panels() -> None:
    """Each of shipper's own metrics has a panel, which zooms as Carbon aggregates."""
    targets = "".join(str(target) for panel in own_panels("a.b") for target in panel.targets)

    for name in (*GAUGES, *COUNTS):
        method = "sum" if name in COUNTS else "min" if name == "up" else "max"
        assert f"aliasByNode(consolidateBy(a.b.shipper.*.*.{name},'{method}'),4,3" in targets
    assert [str(target) for target in own_panels(None)[0].targets] == [
        "aliasByNode(consolidateBy(shipper.*.*.complete_until_age,'max'),2,1)"
    ]


MANY = Dashboard("shipper-" + "x" * 60, "Many", [panel for of in JOBS for panel in panels_of(of, 60)] + own_panels("a"))


def test_grafana_structure() -> None:
    """Grafana requires unique ids, panels that do not overlap, and a datasource that users choose on the page."""
    document = grafana.document(MANY)
    panels: list[dict[str, Any]] = document["panels"]
    (variable,) = document["templating"]["list"]

    assert document["schemaVersion"] == 39
    assert (variable["type"], variable["query"]) == ("datasource", "graphite")
    assert len(document["uid"]) <= 40
    assert len({panel["id"] for panel in panels}) == len(panels) == len(MANY.panels)
    for panel in panels:
        place, queries = panel["gridPos"], panel["targets"]
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
        assert len({query["refId"] for query in queries}) == len(queries)
        assert {panel["datasource"]["uid"], *(query["datasource"]["uid"] for query in queries)} == {"${datasource}"}
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        is_beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert is_beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]


def test_graphite_state_shows_changes() -> None:
    """The mark shows every change by a user. Mutant: a mark that is a constant."""
    state = graphite.state(MANY)

    assert state[graphite.MARK] == graphite.digest(state)
    state["graphs"].pop()
    assert state[graphite.MARK] != graphite.digest(state)
