"""The report of machines with one state: of the leader, of a machine that stands by, and without a service."""

from dataclasses import replace
from typing import Any

import click
import pytest
from reports import LEADER, LEADING, NOW, TROUBLE, report

from shipper.cli.status import exit_code, status_text
from shipper.status.leader import Machine
from shipper.status.page.html import page
from shipper.status.page.server import answer
from shipper.status.report import EndpointReport, Report

SINCE = "2027-01-15T07:00:00Z"
DATABASE = EndpointReport("state database", "postgresql db1/shipper", NOW - 1)


def standing_by(**fields: Any) -> Report:
    """Return the report of a machine that stands by."""
    leader = LEADER._replace(is_here=False, standing_by=(Machine("web2", has_same_configuration=True),))
    known: dict[str, Any] = {
        "leader": leader,
        "is_standing_by": True,
        "endpoints": (DATABASE,),
        "deliveries": None,
        "loaded_at": None,
    }
    return replace(report(), jobs=(), **(known | fields))


def plain(of: Report) -> str:
    """Return the text without its colours."""
    return click.unstyle(status_text(of.document()))


@pytest.mark.parametrize(
    ("of", "code", "is_ready", "last"),
    [
        (standing_by(), 0, False, f"stands by; web1 leads since {SINCE}"),
        (standing_by(leader=LEADER._replace(host=None, is_here=False)), 0, False, "stands by; no machine leads"),
        (standing_by(leader=None), 0, False, "stands by; no machine leads"),
        (
            standing_by(leader=LEADER._replace(is_here=False, has_same_configuration=False)),
            0,
            False,
            f"stands by; web1 leads since {SINCE}; configuration differs from the leader's",
        ),
        (
            standing_by(endpoints=(replace(DATABASE, failure=TROUBLE),)),
            1,
            False,
            "unhealthy: state database does not answer",
        ),
        (report(**LEADING), 0, True, "healthy"),
        (
            report(leader=LEADER._replace(standing_by=(Machine("web2", has_same_configuration=False),))),
            0,
            True,
            "healthy; configuration differs on web2",
        ),
    ],
)
def test_verdict(of: Report, code: int, last: str, *, is_ready: bool) -> None:
    """A machine that stands by is healthy and not ready; the leader says whose configuration differs.

    Mutants: judge it as ready; exit with 1.
    """
    assert (exit_code(of.document()), of.is_ready) == (code, is_ready)
    assert plain(of).splitlines()[-1] == last
    assert answer("/livez", "", lambda **_: of).status == 200
    assert answer("/readyz", "", lambda **_: of).status == (200 if is_ready else 503)
    assert last.partition(";")[0].removeprefix("healthy") in page(of)
    assert f"shipper_leader {int(is_ready)}\n" in answer("/metrics", "", lambda **_: of).body


def test_who_leads() -> None:
    """The report says who leads, since when, in which term and when it was last heard, and who stands by."""
    assert plain(standing_by()).splitlines()[1:3] == [
        "leader: web1 since 2027-01-15 07:00:00 UTC, term 7, last heard 2s ago; same configuration",
        "stands by: web2; same configuration",
    ]
    vacant = standing_by(leader=LEADER._replace(host=None, is_here=False))
    assert plain(vacant).splitlines()[1] == (
        "leader: none; the last one led since 2027-01-15 07:00:00 UTC, term 7, last heard 2s ago"
    )
    leading = report(leader=LEADER._replace(standing_by=(Machine("web2", has_same_configuration=False),)))
    assert plain(leading).splitlines()[1:3] == [
        "leader: web1 (this process) since 2027-01-15 07:00:00 UTC, term 7, last heard 2s ago",
        "stands by: web2; its configuration differs from this machine's",
    ]
    stopped = replace(report(leader=LEADER._replace(is_here=False)), pid=None)
    assert "leader: web1 since" in plain(stopped)
    assert exit_code(stopped.document()) == 3


def test_numbers_of_the_leader() -> None:
    """Prometheus gets the term, the duration of commits and late slots; nothing of it if the state is a file."""
    numbers = answer("/metrics", "", lambda **_: report(**LEADING)).body
    for line in ("shipper_term 7", "shipper_state_push_seconds 0.004", "shipper_late_slots_total 3"):
        assert f"\n{line}\n" in numbers

    for name in ("shipper_leader", "shipper_term", "shipper_state_push", "shipper_late_slots"):
        assert name not in answer("/metrics", "", report).body
