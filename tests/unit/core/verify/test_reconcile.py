"""The source beside Graphite: what is equal, what differs, what cannot be compared; on a state and Whisper files."""

from collections import Counter
from pathlib import Path

import pytest
from builders import NOW, horizon, points
from fakes import FakeWeb
from life import ARCHIVES, Life, wanted

from shipper.core.ledger import Name
from shipper.core.measures import COUNT, Kind, Measure, Value
from shipper.core.model import Condition, Job, SeriesData, Span
from shipper.core.paths import Directory
from shipper.core.retention import Part
from shipper.core.rows.start import by_end, position_behind
from shipper.core.verify.reconcile import Comparison, Counted, Difference, compare_job, compare_series
from shipper.state.queries import read_snapshot

DAY = 86_400
HOUR = 3600
LOGIN, TOTP = "events.login.count", "events.totp.count"


def look(life: Life, job: Job, *, ago: int = DAY, until: int | None = None) -> Comparison:
    """Compare a job from so many seconds ago on."""
    start = life.now - ago
    end = None if until is None else life.now - until
    known = read_snapshot(life.state.path, job.name, Span(start, life.now))
    assert known is not None
    start = max(start, known.progress.since) if ago == DAY else start
    return compare_job(job, known, start, end, source=life.source, graphite=FakeWeb(life.carbon), now=life.now)


def differences(comparison: Comparison) -> list[tuple[int, str, object, object]]:
    """Return what differs, with slots as seconds ago of NOW."""
    return sorted((NOW - one.slot, one.path, one.source, one.graphite) for one in comparison.differences)


@pytest.fixture
def shipped(life: Life) -> Life:
    """Give the five rows, shipped, once their minutes are complete."""
    life.now += 120
    life.ship(wanted())
    return life


def test_equal(shipped: Life) -> None:
    """What was shipped is equal: values of series, not empty slots."""
    found = look(shipped, wanted())

    assert (found.equal, found.differences, found.left_out) == (4, [], Counter())
    assert found.parts[-1].span.end == NOW + 120


def test_more_and_less_in_graphite(shipped: Life) -> None:
    """A slot of which Graphite has more, less, or what nobody counted, differs; adjoining ones are one span."""
    shipped.carbon.deliver(points(f"{LOGIN} 9 {NOW - 60}\n{TOTP} 0 {NOW}\n{TOTP} 4 {NOW - 120}\n".encode()))
    shipped.carbon.flush()
    found = look(shipped, wanted())

    assert differences(found) == [(0, TOTP, 1, 0), (60, LOGIN, 1, 9), (120, TOTP, None, 4)]
    assert found.spans == [Span(NOW - 120, NOW + 60)]
    assert found.equal == 2


def test_series_that_is_missing(shipped: Life) -> None:
    """A series that Graphite does not know differs in each slot with rows."""
    (shipped.carbon._root / f"{TOTP}.wsp").unlink()

    assert differences(look(shipped, wanted())) == [(0, TOTP, 1, None), (60, TOTP, 1, None)]


def test_rows_that_were_missed(shipped: Life) -> None:
    """A row that no capture has seen differs, though its group has no series, or its id is below those of its slot.

    One above captured is not due.

    Mutants: read from the ids on that the state has for the slot; leave out groups that have no series; read on.
    """
    shipped.source.rows[-1]["id"] = 6
    shipped.state._connection.execute("UPDATE watermark SET captured = '6', value = '6'")
    shipped.state._connection.execute("UPDATE slot SET after = '3' WHERE slot = ?", (NOW,))
    shipped.source.insert(5, shipped.created(120), "sso")
    shipped.source.rows[0]["created_at"] = shipped.created(120)
    shipped.source.insert(7, shipped.created(120), "login")
    found = look(shipped, wanted(), ago=120)

    assert (0, "events.sso.count", 1, None) in differences(found)
    assert (0, LOGIN, 1, None) in differences(found)


def test_zero_and_nothing(shipped: Life) -> None:
    """A zero of a quiet minute is equal to no rows; of an extreme it is not. Mutant: a 0 is always nothing."""
    part, found = Part(Span(0, 60), 60), Comparison([], Counter())
    for kind, ours, theirs in [
        (Kind.COUNT, None, 0.0),
        (Kind.SUM, 0, None),
        (Kind.MAX, None, 0.0),
        (Kind.MIN, 0, None),
    ]:
        counted: dict[int, Value] = {} if ours is None else {0: ours}
        compare_series(part, kind, Counted(kind, counted), SeriesData(0, 60, [theirs]), into=found, purged_upto=-1)

    assert found.equal == 2
    assert [one.path for one in found.differences] == ["max", "min"]


@pytest.mark.parametrize(
    ("ours", "theirs", "is_equal"),
    [
        (3, 3.0, True),
        (2**53 - 1, float(2**53 - 2), False),
        (2**63 + 1, float(2**63), True),
        (10**300, 1e300, True),
        (1, 1 + 1e-10, False),
    ],
)
def test_doubles(ours: int, theirs: float, is_equal: bool) -> None:  # noqa: FBT001 - a table
    """Integers are compared exactly as far as doubles go."""
    found = Comparison([], Counter())
    counted = Counted(Kind.SUM, {0: ours})
    compare_series(Part(Span(0, 60), 60), "a", counted, SeriesData(0, 60, [theirs]), into=found, purged_upto=-1)

    assert (found.equal == 1) == is_equal


@pytest.mark.parametrize(
    ("kind", "kept", "expected"),
    [
        (Kind.COUNT, SeriesData(0, 300, [15.0]), []),
        (Kind.COUNT, SeriesData(0, 300, [5.0]), [Difference(0, 300, "a", 15, 5.0)]),
        (Kind.MAX, SeriesData(0, 300, [5.0]), []),
        (Kind.MIN, SeriesData(0, 300, [1.0]), []),
        (Kind.COUNT, SeriesData(0, 30, [1.0, None, 1.0, 1.0, 3.0, None, 2.0, 2.0, 5.0]), []),
        (Kind.COUNT, SeriesData(-240, 240, [7.0, 10.0]), []),
    ],
)
def test_other_steps(kind: Kind, kept: SeriesData, expected: list[Difference]) -> None:
    """Where Graphite's steps are not the configured ones both sides are put together; a slot that is cut is left out.

    Mutants: keep to the configured step; compare slots that are cut.
    """
    found = Comparison([], Counter())
    counted = Counted(kind, {minute * 60: minute + 1 for minute in range(5)})
    compare_series(Part(Span(0, 300), 60), "a", counted, kept, into=found, purged_upto=-1)

    assert found.differences == expected


def test_from_where_it_counts(life: Life) -> None:
    """A job that began in the middle of a table is compared from its first slot on, which is whole.

    Mutant: from anywhere.
    """
    life.ship(wanted(start="now"))
    life.insert((120, "login", "ok"))
    life.now += 120
    life.ship(wanted(start="now"))
    found = look(life, wanted(start="now"), ago=HOUR)

    assert (found.equal, found.differences) == (1, [])
    assert found.left_out == {"not_whole": (HOUR - 120) // 60}
    assert found.parts[0].span.start == NOW


def test_changed_question(shipped: Life) -> None:
    """When a job counts something else it is compared where its slots were counted again.

    Under other names it is compared from where these are whole. Mutant: forget what is whole.
    """
    failures = wanted(where=(Condition("outcome", "in", ("failure",)),))
    shipped.ship(failures)
    assert differences(look(shipped, failures)) == []
    named = wanted(template="renamed.{action}.{measure}")
    shipped.insert((0, "login", "ok"))
    shipped.ship(named)
    shipped.now += 180
    shipped.insert((60, "login", "ok"), (130, "login", "ok"))
    shipped.ship(named)
    found = look(shipped, named)

    assert (found.equal, found.differences) == (1, [])


def test_passed_rows(shipped: Life) -> None:
    """A job that has passed rows is compared from where it goes on; from further back, once that is counted again.

    Mutants: leave since where it was; take an included span that does not reach it.
    """
    job = wanted()
    shipped.now += HOUR
    shipped.insert((HOUR // 2, "login", "ok"), (0, "login", "ok"))
    progress = shipped.state.progress("events")
    assert progress is not None
    target = by_end(job, progress, horizon(7, time=shipped.now), now=shipped.now)
    shipped.state.seek("events", target, position_behind(job, target.captured, source=shipped.source))
    shipped.ship(job)
    shipped.now += 60
    shipped.ship(job)
    assert (look(shipped, job).equal, look(shipped, job).differences) == (1, [])

    shipped.state.include("events", Span(NOW - DAY, NOW))
    assert look(shipped, job).equal == 1
    begun = Span(NOW - DAY, shipped.now // 60 * 60 - 60)
    shipped.backfill(job, begun)
    shipped.deliver()
    shipped.state.include("events", begun)
    assert (look(shipped, job).equal > 5, look(shipped, job).differences) == (True, [])


def test_coarse_archive(life: Life) -> None:
    """What is old is compared hour by hour, and what is about to leave an archive is left out, and counted.

    Mutants: ask for the finest step only; compare across the edge.
    """
    job, week = wanted(measures=(COUNT, Measure("ids", Kind.SUM, "id"))), ARCHIVES[0].duration
    life.insert(*((week + 5 * HOUR - 600 * n, "login", "ok") for n in range(10)), (week - 3 * HOUR, "totp", "ok"))
    life.now += 120
    life.ship(job)
    found = look(life, job, ago=week + DAY)
    coarse, fine = found.parts

    assert found.differences == []
    assert (coarse.step, fine.step) == (3600, 60)
    assert HOUR <= fine.span.start - coarse.span.end <= 2 * HOUR
    assert found.left_out["cut"] * 60 >= fine.span.start - coarse.span.end
    assert found.equal > 4
    life.carbon.deliver(points(f"{LOGIN} 7 {coarse.span.end - 3600}\n".encode()))
    life.carbon.flush()
    assert [(one.step, one.graphite) for one in look(life, job, ago=week + DAY).differences] == [(3600, 7.0)]


def test_without_time(life: Life) -> None:
    """Of a job without a time column each slot is a range of ids; one that is pruned is not known any more.

    Mutant: compare what is pruned with nothing.
    """
    job = wanted(time=None)
    life.ship(job)
    life.now += 120
    life.insert((0, "login", "ok"))
    life.ship(job)
    life.now += 120
    life.insert((0, "login", "ok"))
    life.ship(job)
    assert (look(life, job).equal, differences(look(life, job))) == (3, [])

    life.source.insert(5_000, None, "login")
    life.source.rows[-1]["id"] = 2
    assert differences(look(life, job)) == [(0, LOGIN, 4, 3.0)]
    life.state._connection.execute("UPDATE slot SET changed = 0")
    life.state._connection.execute("INSERT INTO pruned VALUES ('events', ?, ?)", (NOW - HOUR, NOW + 60))
    life.state._connection.execute("DELETE FROM slot WHERE slot <= ?", (NOW,))
    found = look(life, job)
    assert found.differences == []
    assert found.left_out["pruned"] == 1


def test_late_rows_without_time(life: Life) -> None:
    """Of such a job late rows are compared in the slot in which they were counted, and in no other.

    Mutants: by the range in which their ids are; in both.
    """
    job = wanted(time=None)
    life.given = 7
    life.insert((0, "login", "ok"))
    life.ship(job)
    life.now += 60
    life.source.insert(6, None, "login")
    life.source.insert(7, None, "late")
    life.ship(job)
    life.now += 60
    life.insert((0, "login", "ok"))
    life.ship(job)
    life.now += 60
    life.ship(job)
    assert (look(life, job).equal, differences(look(life, job))) == (5, [])

    life.source.rows = [row for row in life.source.rows if row["id"] != 6]
    assert differences(look(life, job)) == [(-60, LOGIN, None, 1.0)]


def test_purged_rows(shipped: Life) -> None:
    """Rows that the source no longer has are no difference, up to the oldest that is left. Mutant: compare them."""
    shipped.source.rows = [row for row in shipped.source.rows if row["id"] > 2]
    found = look(shipped, wanted())
    assert (found.equal, found.purged, found.differences) == (3, 1, [])

    # a row within is another matter
    shipped.source.rows = [row for row in shipped.source.rows if row["id"] != 5]
    assert differences(look(shipped, wanted())) == [(0, TOTP, None, 1.0)]
    shipped.source.rows.clear()
    assert look(shipped, wanted()).purged == 4


def test_purged_extremes(life: Life) -> None:
    """Of a minute that has lost rows the least may be gone. Mutant: more only."""
    least = wanted(measures=(Measure("min", Kind.MIN, "id"),))
    life.carbon.kinds["min"] = "min"
    life.now += 120
    life.ship(least)
    life.source.rows = [row for row in life.source.rows if row["id"] > 1]

    assert (look(life, least).purged, look(life, least).differences) == (1, [])


def test_incomplete(shipped: Life) -> None:
    """The minute that is not over is left out, and so is what waits for a recount."""
    shipped.insert((0, "login", "ok"))
    shipped.now += 30
    shipped.ship(wanted())
    found = look(shipped, wanted(), ago=HOUR, until=0)
    assert found.differences == []
    assert found.left_out["incomplete"] == 0
    shipped.state._connection.execute("UPDATE job SET recount_from = ?", (NOW - 60,))

    assert look(shipped, wanted()).equal == 1


def test_other_groups(life: Life) -> None:
    """Groups beyond the limit are compared together, those that share a clean path by their digits."""
    life.insert((0, "a b", "ok"), (0, "a/b", "ok"), (0, "x", "ok"), (0, "y", "ok"), (0, "y", "ok"))
    job = wanted(max_groups=4)
    life.now += 120
    life.ship(job)
    found = look(life, job)

    assert found.differences == []
    assert found.equal == 7
    assert "events._other.count" in life.carbon.sums()


def test_extremes_and_sums(life: Life) -> None:
    """Each measure is compared as it is put together."""
    measures = [COUNT, *(Measure(kind.value, kind, "id") for kind in (Kind.SUM, Kind.MAX, Kind.MIN))]
    job = wanted(measures=tuple(measures))
    life.carbon.kinds |= {"max": "max", "min": "min"}
    life.now += 120
    life.ship(job)
    assert (look(life, job).equal, look(life, job).differences) == (16, [])
    life.source.rows[0]["id"] = 9

    assert {one.path for one in look(life, job).differences} <= {
        f"events.login.{name}" for name in ("count", "sum", "min")
    }


def test_half_by_half(shipped: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too much at once is counted in halves, down to a slot. Mutants: stop there; count a half twice."""
    monkeypatch.setattr("shipper.core.verify.reconcile.MOST_CELLS", 1)

    assert (look(shipped, wanted()).equal, look(shipped, wanted()).differences) == (4, [])


def test_directory(tmp_path: Path) -> None:
    """A group is looked up by the paths that the state gives it, else by those it would get."""
    job = wanted()
    names = [
        Name("events.a_b.count", ("a b",), COUNT),
        Name("events.a_b-c14cdd.count", ("a/b",), COUNT),
        Name("events.old.count", ("gone",), COUNT),
    ]
    directory = Directory(job, names)

    assert directory.paths(("a b",)) == ["events.a_b.count"]
    assert directory.paths(("a/b",)) == ["events.a_b-c14cdd.count"]
    assert directory.paths(("gone",)) == ["events.gone.count"]
    assert directory.paths(("new",)) == ["events.new.count"]
    assert directory.paths(("a.b",))[0].startswith("events.a_b-")
    other = Directory(job, [*names, Name("events._other.count", ("_other",), COUNT)])
    assert other.paths(("new",)) == ["events._other.count"]
