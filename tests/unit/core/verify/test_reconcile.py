"""Comparison of the source with Graphite: equal, different, left out; on a real state and Whisper files."""

from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from builders import NOW, horizon, points
from fakes import FakeWeb
from life import ARCHIVES, Life, wanted

from shipper.core.ledger import Name
from shipper.core.measures import COUNT, Kind, Measure, Value, exact
from shipper.core.model import Condition, Job, SeriesData, Span
from shipper.core.paths import Directory
from shipper.core.retention import Part
from shipper.core.rows.start import by_end, position_behind
from shipper.core.verify.reconcile import MOST_CELLS, Comparison, Counted, Difference, compare_job, compare_series
from shipper.state.queries import read_snapshot

DAY = 86_400
HOUR = 3600
LOGIN, TOTP = "events.login.count", "events.totp.count"


def look(
    life: Life, job: Job, *, ago: int = DAY, until: int | None = None, cells: int = MOST_CELLS, knows_ids: bool = False
) -> Comparison:
    """Compare a job, by default the last day; ago and until are seconds before now."""
    start = life.now - ago
    end = None if until is None else life.now - until
    known = read_snapshot(life.state.path, job.name, Span(start, life.now), knows_ids=knows_ids)
    assert known is not None
    start = max(start, known.progress.since) if ago == DAY else start
    ends = (life.source, FakeWeb(life.carbon))
    return compare_job(job, known, start, end, source=ends[0], graphite=ends[1], now=life.now, cells=cells)


def differences(comparison: Comparison) -> list[tuple[int, str, object, object]]:
    """Return the differences, with slots as seconds before NOW."""
    return sorted((NOW - one.slot, one.path, one.source, one.graphite) for one in comparison.differences)


@pytest.fixture
def shipped(life: Life) -> Life:
    """Provide a life with the five rows shipped, once their minutes are complete."""
    life.now += 120
    life.ship(wanted())
    return life


def test_equal(shipped: Life) -> None:
    """All shipped values are equal; empty slots do not count."""
    comparison = look(shipped, wanted())

    assert (comparison.equal, comparison.differences, comparison.left_out) == (4, [], Counter())
    assert comparison.parts[-1].span.end == NOW + 120


def test_more_and_less_in_graphite(shipped: Life) -> None:
    """Slots differ where Graphite has more, less, or a value without rows; adjoining ones are one span."""
    shipped.carbon.deliver(points(f"{LOGIN} 9 {NOW - 60}\n{TOTP} 0 {NOW}\n{TOTP} 4 {NOW - 120}\n".encode()))
    shipped.carbon.flush()
    comparison = look(shipped, wanted())

    assert differences(comparison) == [(0, TOTP, 1, 0), (60, LOGIN, 1, 9), (120, TOTP, None, 4)]
    assert comparison.spans == [Span(NOW - 120, NOW + 60)]
    assert comparison.equal == 2


def test_series_that_is_missing(shipped: Life) -> None:
    """A series that Graphite does not know differs in each slot with rows."""
    (shipped.carbon._root / f"{TOTP}.wsp").unlink()

    assert differences(look(shipped, wanted())) == [(0, TOTP, 1, None), (60, TOTP, 1, None)]


def test_rows_that_were_missed(shipped: Life) -> None:
    """A row that no capture has seen differs, even if its group has no series or its id is below those of its slot.

    A row above captured is not compared. Mutants: read from the lowest id that the state has for the slot; leave out
    groups that have no series; read beyond captured.
    """
    shipped.source.rows[-1]["id"] = 6
    shipped.state._connection.execute("UPDATE watermark SET captured = '6', value = '6'")
    shipped.state._connection.execute("UPDATE slot SET after = '3' WHERE slot = ?", (NOW,))
    shipped.source.insert(5, shipped.created(120), "sso")
    shipped.source.rows[0]["created_at"] = shipped.created(120)
    shipped.source.insert(7, shipped.created(120), "login")
    comparison = look(shipped, wanted(), ago=120)

    assert (0, "events.sso.count", 1, None) in differences(comparison)
    assert (0, LOGIN, 1, None) in differences(comparison)


def test_zero_and_nothing(shipped: Life) -> None:
    """Zero equals no value in counts and sums, not in extremes. Mutant: in all of them."""
    part, comparison = Part(Span(0, 60), 60), Comparison([], Counter())
    for kind, ours, theirs in [
        (Kind.COUNT, None, 0.0),
        (Kind.SUM, 0, None),
        (Kind.MAX, None, 0.0),
        (Kind.MIN, 0, None),
    ]:
        counted: dict[int, Value] = {} if ours is None else {0: ours}
        compare_series(part, kind, Counted(kind, counted), SeriesData(0, 60, [theirs]), into=comparison, purged_upto=-1)

    assert comparison.equal == 2
    assert [one.path for one in comparison.differences] == ["max", "min"]


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
    comparison = Comparison([], Counter())
    counted = Counted(Kind.SUM, {0: ours})
    compare_series(Part(Span(0, 60), 60), "a", counted, SeriesData(0, 60, [theirs]), into=comparison, purged_upto=-1)

    assert (comparison.equal == 1) == is_equal


@pytest.mark.parametrize(
    ("parts", "is_equal"),
    [
        (["0.1"] * 10, True),
        (["0.1", "0.2", "-0.3"], True),
        (["1000000.1", "-1000000", "0.2"], True),
        (["0.1"] * 9 + ["1.1"], False),
        (["0.1"] * 9 + ["0.1000001"], False),
    ],
)
def test_decimals_that_add_up(parts: list[str], is_equal: bool) -> None:  # noqa: FBT001 - a table
    """Decimals are compared with the sum of their doubles in a coarser archive, whatever they add up to.

    Mutants: require a whole number exactly; allow a part of the sum, which may be 0.
    """
    values: dict[int, Value] = {60 * minute: exact(Decimal(part)) for minute, part in enumerate(parts)}
    held = sum(map(float, parts if is_equal else ["0.1"] * 10))
    comparison = Comparison([], Counter())
    data = SeriesData(0, 600, [held])
    compare_series(Part(Span(0, 600), 600), "a", Counted(Kind.SUM, values), data, into=comparison, purged_upto=-1)

    assert (comparison.equal == 1) == is_equal


@pytest.mark.parametrize(
    ("kind", "kept", "expected"),
    [
        (Kind.COUNT, SeriesData(0, 300, [15.0]), []),
        (Kind.COUNT, SeriesData(0, 300, [5.0]), [Difference(0, 300, "a", 15, 5.0, Kind.COUNT)]),
        (Kind.MAX, SeriesData(0, 300, [5.0]), []),
        (Kind.MIN, SeriesData(0, 300, [1.0]), []),
        (Kind.COUNT, SeriesData(0, 30, [1.0, None, 1.0, 1.0, 3.0, None, 2.0, 2.0, 5.0]), []),
        (Kind.COUNT, SeriesData(-240, 240, [7.0, 10.0]), []),
    ],
)
def test_other_steps(kind: Kind, kept: SeriesData, expected: list[Difference]) -> None:
    """Where Graphite's step is not the configured one, both sides are combined; slots that are cut are left out.

    Mutants: use the configured step; compare slots that are cut.
    """
    comparison = Comparison([], Counter())
    counted = Counted(kind, {minute * 60: minute + 1 for minute in range(5)})
    compare_series(Part(Span(0, 300), 60), "a", counted, kept, into=comparison, purged_upto=-1)

    assert comparison.differences == expected


def test_compared_from_the_start_of_a_job(life: Life) -> None:
    """A job that started in the middle of a table is compared from its first complete slot on.

    Mutant: from anywhere.
    """
    life.ship(wanted(start="now"))
    life.insert((120, "login", "ok"))
    life.now += 120
    life.ship(wanted(start="now"))
    comparison = look(life, wanted(start="now"), ago=HOUR)

    assert (comparison.equal, comparison.differences) == (1, [])
    assert comparison.left_out == {"not_whole": (HOUR - 120) // 60}
    assert comparison.parts[0].span.start == NOW


def test_changed_definition(shipped: Life) -> None:
    """A job with a changed definition is compared where its slots were recounted.

    With changed names, it is compared from its first complete slot on. Mutant: forget which slots are complete.
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
    comparison = look(shipped, named)

    assert (comparison.equal, comparison.differences) == (1, [])


def test_measure_that_is_gone(life: Life) -> None:
    """Values of a measure that the job no longer has are not compared: nothing counts its rows.

    Mutant: compare all series of the job; --fix then sets these values to 0.
    """
    life.now += 120
    life.ship(wanted(measures=(COUNT, Measure("ids", Kind.SUM, "id"))))
    life.ship(wanted())
    comparison = look(life, wanted())

    assert (comparison.equal, differences(comparison)) == (4, [])


def test_skipped_rows(shipped: Life) -> None:
    """A job that has skipped rows is compared from where it continues; from further back after a backfill.

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
    """Old slots are compared hour by hour; slots that are about to leave an archive are left out and counted.

    Mutants: ask for the finest step only; compare across the end of an archive.
    """
    job, week = wanted(measures=(COUNT, Measure("ids", Kind.SUM, "id"))), ARCHIVES[0].duration
    life.insert(*((week + 5 * HOUR - 600 * n, "login", "ok") for n in range(10)), (week - 3 * HOUR, "totp", "ok"))
    life.now += 120
    life.ship(job)
    comparison = look(life, job, ago=week + DAY)
    coarse, fine = comparison.parts

    assert comparison.differences == []
    assert (coarse.step, fine.step) == (3600, 60)
    assert HOUR <= fine.span.start - coarse.span.end <= 2 * HOUR
    assert comparison.left_out["cut"] * 60 >= fine.span.start - coarse.span.end
    assert comparison.equal > 4
    life.carbon.deliver(points(f"{LOGIN} 7 {coarse.span.end - 3600}\n".encode()))
    life.carbon.flush()
    assert [(one.step, one.graphite) for one in look(life, job, ago=week + DAY).differences] == [(3600, 7.0)]


def test_without_time(life: Life) -> None:
    """Without a time column a slot is compared by its range of ids; a pruned slot has none, and is left out.

    Mutant: compare a pruned slot with nothing.
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
    comparison = look(life, job)
    assert comparison.differences == []
    assert comparison.left_out["pruned"] == 1


def test_late_rows_that_are_not_counted_yet(life: Life) -> None:
    """Late rows that the job has yet to count are no difference, and are reported. Mutant: leave them out silently."""
    life.source.begin(6, life.created(60), "login")
    life.source.begin(7, life.created(7200), "login")
    life.source.insert(8, life.created(60), "login")
    life.now += 120
    life.ship(wanted())
    life.source.commit()

    assert look(life, wanted(), ago=HOUR, knows_ids=True).late_rows == 1
    assert not look(life, wanted(), ago=HOUR, knows_ids=True).differences
    assert len(look(life, wanted(), ago=HOUR).differences) == 1


def test_late_rows_without_time(life: Life) -> None:
    """Without a time column late rows are compared only in the slot in which they were counted.

    Mutants: by the range of their ids; in both.
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
    """Purged rows are no difference in slots up to that of the oldest row that is left. Mutant: compare them."""
    shipped.source.rows = [row for row in shipped.source.rows if row["id"] > 2]
    comparison = look(shipped, wanted())
    assert (comparison.equal, comparison.purged, comparison.differences) == (3, 1, [])

    # a deleted row between others is a difference
    shipped.source.rows = [row for row in shipped.source.rows if row["id"] != 5]
    assert differences(look(shipped, wanted())) == [(0, TOTP, None, 1.0)]
    shipped.source.rows.clear()
    assert look(shipped, wanted()).purged == 4


def test_purged_extremes(life: Life) -> None:
    """A minute that has lost rows may have lost its minimum. Mutant: expect larger values in Graphite only."""
    least = wanted(measures=(Measure("min", Kind.MIN, "id"),))
    life.carbon.kinds["min"] = "min"
    life.now += 120
    life.ship(least)
    life.source.rows = [row for row in life.source.rows if row["id"] > 1]

    assert (look(life, least).purged, look(life, least).differences) == (1, [])


def test_incomplete(shipped: Life) -> None:
    """The current minute and slots that wait for a recount are left out."""
    shipped.insert((0, "login", "ok"))
    shipped.now += 30
    shipped.ship(wanted())
    comparison = look(shipped, wanted(), ago=HOUR, until=0)
    assert comparison.differences == []
    assert comparison.left_out["incomplete"] == 0
    shipped.state._connection.execute("UPDATE job SET recount_from = ?", (NOW - 60,))

    assert look(shipped, wanted()).equal == 1


def test_other_groups(life: Life) -> None:
    """Groups beyond the limit are compared together; those with one sanitized path, by the digits of a hash."""
    life.insert((0, "a b", "ok"), (0, "a/b", "ok"), (0, "x", "ok"), (0, "y", "ok"), (0, "y", "ok"))
    job = wanted(max_groups=4)
    life.now += 120
    life.ship(job)
    comparison = look(life, job)

    assert comparison.differences == []
    assert comparison.equal == 7
    assert "events._other.count" in life.carbon.sums()


def test_extremes_and_sums(life: Life) -> None:
    """Each measure is compared by its own aggregation."""
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


def test_half_by_half(shipped: Life) -> None:
    """A part with too many cells is counted in halves, down to a slot. Mutants: stop there; count a half twice."""
    halves = look(shipped, wanted(), cells=1)

    assert (halves.equal, halves.differences) == (4, [])


def test_directory(tmp_path: Path) -> None:
    """A group has the paths that the state gives it, or else those that it would get.

    Mutant: leave a path to the former name of its measure.
    """
    job = wanted()
    names = [
        Name("events.a_b.count", ("a b",), COUNT),
        Name("events.a_b-c14cdd.count", ("a/b",), COUNT),
        Name("events.old.count", ("gone",), COUNT),
        Name("events.c.count", ("c",), COUNT._replace(name="n")),
    ]
    directory = Directory(job, names)

    assert directory.paths(("a b",)) == ["events.a_b.count"]
    assert directory.paths(("a/b",)) == ["events.a_b-c14cdd.count"]
    assert directory.paths(("gone",)) == ["events.gone.count"]
    assert directory.paths(("new",)) == ["events.new.count"]
    assert directory.paths(("c",)) == ["events.c.count"]
    assert directory.paths(("a.b",))[0].startswith("events.a_b-")
    other = Directory(job, [*names, Name("events._other.count", ("_other",), COUNT)])
    assert other.paths(("new",)) == ["events._other.count"]
