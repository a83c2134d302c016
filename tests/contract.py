"""What each end promises: one suite an interface, inherited by the tests of the fake and of every real one.

A fake that does not pass it is not a fake.
"""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import pytest
from builders import query
from harness import wait_for

from shipper.compare import Graphite
from shipper.errors import DeliveryFailed, QueryRefused
from shipper.model import (
    COUNT,
    NOTHING,
    Condition,
    Evidence,
    Kept,
    Kind,
    Measure,
    Observation,
    Query,
    Row,
    Span,
    Window,
)
from shipper.scan import Source
from shipper.seen import Seen

FAR = Window(0, 10**12)
NOVEMBER = 1793491200  # 2026-11-01 00:00:00 UTC


class Table(Source, Protocol):
    """An audit_trail somewhere, seen from both sides."""

    def insert(
        self,
        id: int,  # noqa: A002
        created_at: str | None,
        action: str | None,
        outcome: str = "ok",
        duration_ms: int | None = None,
    ) -> None:
        """Add a row in a session of its own, committed."""

    def observe(self, query: Query) -> Observation:
        """See shipper.source.Source."""


class SourceContract:
    """What capture may rely on; give a fixture `table` to inherit it."""

    def test_observe_empty_table(self, table: Table) -> None:
        """The largest id of an empty table is 0."""
        assert table.observe(query()).id == 0

    def test_observe_largest_id(self, table: Table) -> None:
        """An observation is the largest id, whatever the order of arrival."""
        for number in (3, 9, 5):
            table.insert(number, "2026-11-01 00:00:00", "login")

        assert table.observe(query()).id == 9

    @pytest.mark.parametrize(
        ("after", "upto", "expected"), [(0, 99, 5), (4, 99, 5), (5, 99, 70), (5, 70, 70), (5, 69, 69)]
    )
    def test_first_id(self, table: Table, after: int, upto: int, expected: int) -> None:
        """The first id of a range is the smallest above its lower end; without one, its upper end."""
        for number in (5, 70):
            table.insert(number, "2026-11-01 00:00:00", "login")

        assert table.first_id(query(), after, upto) == expected

    def test_read_window_half_open(self, table: Table) -> None:
        """A window leaves out its lower end and holds its upper one."""
        for number in range(1, 7):
            table.insert(number, "2026-11-01 00:00:00", "login")

        assert [row.rows for row in table.read(query(), Window(2, 5))] == [3]

    @pytest.mark.parametrize("time", ["created_at", None])
    @pytest.mark.parametrize("by", [("action",), ()])
    def test_read_nothing_found(self, table: Table, time: str | None, by: tuple[str, ...]) -> None:
        """A window without rows has no groups, not one of 0."""
        assert table.read(query(time=time, by=by), FAR) == []

    def test_read_groups_byte_by_byte(self, table: Table) -> None:
        """Groups differ where their bytes do: no collation, no padding; NULL is not empty."""
        actions = ["Login", "login", "login ", "lógin", "", None]
        for number, action in enumerate(actions, start=1):
            table.insert(number, "2026-11-01 00:00:00", action)

        assert {(action,) for action in actions} == {row.group for row in table.read(query(), FAR)}

    def test_read_several_columns(self, table: Table) -> None:
        """Groups are combinations of values, in the order asked."""
        table.insert(1, "2026-11-01 00:00:00", "login", "ok")
        table.insert(2, "2026-11-01 00:00:00", "login", "bad")
        table.insert(3, "2026-11-01 00:00:00", "login", "bad")

        rows = table.read(query(by=("outcome", "action")), FAR)

        assert {row.group: row.rows for row in rows} == {("ok", "login"): 1, ("bad", "login"): 2}

    @pytest.mark.parametrize(
        ("created_at", "bucket"),
        [
            ("2026-11-01 12:34:56", 1793536440),
            ("2026-11-01 12:34:00", 1793536440),
            ("2026-11-01 12:34:59.999999", 1793536440),
            ("1970-01-01 00:00:00", 0),
            ("1969-12-31 23:59:59.5", -60),
            ("1901-01-01 00:00:30", -2177452800),
            ("2038-01-19 03:14:08", 2147483640),
            ("2106-02-07 06:28:16", 4294967280),
            (None, None),
        ],
    )
    def test_read_bucket(self, table: Table, created_at: str | None, bucket: int | None) -> None:
        """A row belongs to the bucket of its own time, UTC, rounded down; no time, no bucket."""
        table.insert(1, created_at, "login")

        assert [bucket] == [row.bucket for row in table.read(query(), FAR)]

    def test_read_without_time(self, table: Table) -> None:
        """Without a time column nothing is said about buckets."""
        table.insert(1, "2026-11-01 00:00:00", "login")
        table.insert(2, "2026-11-02 00:00:00", "login")

        assert table.read(query(time=None), FAR) == [Row(None, ("login",), 2, (2,))]

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            ((), 3),
            ((Condition("outcome", "in", ("ok",)),), 1),
            ((Condition("outcome", "in", ("ok", "bad")),), 2),
            ((Condition("outcome", "in", ("ok", "bad")), Condition("action", "in", ("login",))), 1),
            ((Condition("id", "in", (2,)),), 1),
            ((Condition("outcome", "not", ("ok",)),), 2),
            ((Condition("outcome", "not", ("ok", "bad")),), 1),
            ((Condition("action", "not", ("login",)),), 2),
            ((Condition("action", "like", ("log%",)),), 3),
            ((Condition("action", "like", ("%out",)),), 2),
            ((Condition("id", "ge", (2,)),), 2),
            ((Condition("id", "gt", (2,)),), 1),
            ((Condition("id", "le", (2,)),), 2),
            ((Condition("id", "lt", (2,)),), 1),
            ((Condition("id", "ge", (2,)), Condition("id", "lt", (3,))), 1),
            ((Condition("duration_ms", "null", (True,)),), 1),
            ((Condition("duration_ms", "null", (False,)),), 2),
            ((Condition("duration_ms", "not", (10,)),), 1),
            ((Condition("created_at", "ge", ("2026-11-01 00:00:00",)),), 3),
        ],
    )
    def test_read_where(self, table: Table, where: tuple[Condition, ...], expected: int) -> None:
        """Conditions all hold; a list of values is any of them."""
        table.insert(1, "2026-11-01 00:00:00", "login", "ok", 10)
        table.insert(2, "2026-11-01 00:00:00", "logout", "bad", 20)
        table.insert(3, "2026-11-01 00:00:00", "logout", "odd")

        assert expected == sum(row.rows for row in table.read(query(where=where), FAR))

    def test_read_measures(self, table: Table) -> None:
        """Measures are exact numbers of a group in a bucket; NULL adds nothing, and only NULL is none."""
        for number, duration in enumerate((5, None, 7, -1), start=1):
            table.insert(number, "2026-11-01 00:00:00", "login", "ok", duration)
        table.insert(5, "2026-11-01 00:00:00", "logout", "ok", None)
        measures = [Measure(kind.value, kind, "duration_ms") for kind in (Kind.SUM, Kind.MAX, Kind.MIN)]

        rows = table.read(query(measures=(COUNT, *measures)), FAR)

        assert {row.group[0]: row.values for row in rows} == {"login": (4, 11, 7, -1), "logout": (1, None, None, None)}

    def test_read_span(self, table: Table) -> None:
        """Within a span only its buckets are counted, and rows that have no time."""
        for number, created in enumerate(("00:00:59", "00:01:00", "00:02:59", "00:03:00"), start=1):
            table.insert(number, f"2026-11-01 {created}", "login")
        table.insert(5, None, "login")

        rows = table.read(query(), FAR, Span(NOVEMBER + 60, NOVEMBER + 180))

        assert {row.bucket: row.rows for row in rows} == {NOVEMBER + 60: 1, NOVEMBER + 120: 1, None: 1}

    def test_read_span_within_a_bucket(self, table: Table) -> None:
        """A bucket that begins in the span counts as a whole: slots may be shorter, and a repair reads one of them."""
        for number, created in enumerate(("00:04:59", "00:05:00", "00:09:59", "00:10:00"), start=1):
            table.insert(number, f"2026-11-01 {created}", "login")
        asked, span = query(bucket=300), Span(NOVEMBER + 300, NOVEMBER + 360)

        assert {row.bucket: row.rows for row in table.read(asked, FAR, span)} == {NOVEMBER + 300: 2}
        assert table.first_in(asked, Window(2, 9), span) == 3
        assert table.read(asked, FAR, Span(NOVEMBER + 360, NOVEMBER + 420)) == []
        assert table.first_in(asked, FAR, Span(NOVEMBER + 360, NOVEMBER + 420)) is None

    def test_newest(self, table: Table) -> None:
        """The row that stands at an id is the one with the largest id up to it."""
        assert table.newest(query(), 99) == (0, None)
        table.insert(5, "2026-11-01 00:00:59.9", "login")
        table.insert(70, None, "login")

        assert table.newest(query(), 4) == (0, None)
        assert table.newest(query(), 69) == (5, NOVEMBER + 59)
        assert table.newest(query(), 70) == (70, None)
        assert table.newest(query(time=None), 69) == (5, None)

    @pytest.mark.parametrize(
        ("span", "open_above", "expected"),
        [
            (Span(NOVEMBER, NOVEMBER + 600), None, 2),
            (Span(NOVEMBER + 60, NOVEMBER + 600), None, 3),
            (Span(NOVEMBER + 600, NOVEMBER + 900), None, None),
            (Span(NOVEMBER + 60, NOVEMBER + 600), 0, 1),
            (Span(NOVEMBER + 60, NOVEMBER + 600), 1, 3),
            (Span(NOVEMBER + 600, NOVEMBER + 900), 1, 4),
        ],
    )
    def test_first_in(self, table: Table, span: Span, open_above: int | None, expected: int | None) -> None:
        """The first row of a span of time is found whatever the conditions, or one that has no time yet."""
        for number, created in enumerate((None, "2026-11-01 00:00:00", "2026-11-01 00:01:00", None), start=1):
            table.insert(number, created, "login")
        asked = query(where=(Condition("action", "in", ("nothing",)),))

        assert table.first_in(asked, Window(0, 9), span, open_above=open_above) == expected

    def test_times(self, table: Table) -> None:
        """The times of a window's rows are known whatever the conditions, wide enough where clocks go back."""
        for number, created in enumerate((None, "2026-11-01 00:00:07", "2026-11-01 00:01:00.5", None), start=1):
            table.insert(number, created, "login")
        asked = query(where=(Condition("action", "in", ("nothing",)),))

        assert table.times(asked, Window(0, 9)) == Span(NOVEMBER + 7, NOVEMBER + 61)
        assert table.times(asked, Window(2, 3)) == Span(NOVEMBER + 60, NOVEMBER + 61)
        assert table.times(asked, Window(3, 9)) is None
        there = table.times(query(zone="Europe/Berlin"), Window(0, 9))
        assert there is not None
        assert there.start <= NOVEMBER + 7 - 3600
        assert there.end >= NOVEMBER + 61 - 3600

    def test_checksum(self, table: Table) -> None:
        """A checksum knows ids from others, holes or not; those of two windows make that of both."""
        for number in (3, 4, 7):
            table.insert(number, None, "login", "bad")
        asked = query(where=(Condition("outcome", "in", ("ok",)),))

        assert table.checksum(asked, Window(0, 2)) == NOTHING
        assert table.checksum(asked, Window(0, 9)).rows == 3
        assert len({table.checksum(asked, Window(after, after + 2)) for after in range(7)}) == 5
        together = table.checksum(asked, Window(0, 3)) + table.checksum(asked, Window(3, 9))
        assert together == table.checksum(asked, Window(0, 9))

    def test_evidence(self, table: Table) -> None:
        """A window that lacks no row has nothing to be looked at later; another one has its checksum."""
        for number in (3, 4, 7):
            table.insert(number, None, "login")

        assert table.evidence(query(), Window(2, 4)) == Evidence(None)
        assert table.evidence(query(), Window(2, 5)) == Evidence(table.checksum(query(), Window(2, 5)))

    @pytest.mark.parametrize("has_gaps", [False, True])
    @pytest.mark.parametrize("where", [(), (Condition("outcome", "in", ("ok",)),)])
    def test_read_with_evidence(self, table: Table, where: tuple[Condition, ...], has_gaps: bool) -> None:  # noqa: FBT001
        """The rows of a window come with what is to be recorded of it: all, the end, or nothing.

        Mutant: take one window without holes for all later ones.
        """
        for number in (3, 4, 7):
            table.insert(number, None, "login")
        table.insert(8, None, "login", "bad")
        asked = query(where=where)
        for after, upto, begins, recorded in (
            (2, 4, 2, None),
            (2, 9, 2, Window(2, 9)),
            (2, 9, 5, Window(5, 9)),
            (2, 9, 9, None),
            (6, 8, 6, None),
            (4, 8, 4, Window(4, 8)),
        ):
            window = Window(after, upto)
            rows, evidence = Seen(table, has_gaps=has_gaps).read(asked, window, begins)

            assert rows == table.read(asked, window)
            assert evidence == Evidence(table.checksum(asked, recorded) if recorded else None)

    def test_fingerprint(self, table: Table) -> None:
        """A table is known by its newest rows up to an id, and by its server where that has a name."""
        for number in range(1, 31):
            table.insert(number, "2026-11-01 00:00:59.9", "login")
        table.insert(40, None, "login")

        known = tuple((number, NOVEMBER + 59) for number in range(30, 14, -1))
        assert table.fingerprint(query(), 39).rows == known
        assert table.fingerprint(query(), 40) == table.fingerprint(query(), 30)._replace(rows=((40, None), *known[:-1]))
        assert table.fingerprint(query(time=None), 2).rows == ((2, None), (1, None))
        assert table.fingerprint(query(), 0).rows == ()

    def test_read_sees_other_sessions(self, table: Table) -> None:
        """What another session has committed since the last read is in the next one."""
        table.insert(1, "2026-11-01 00:00:00", "login")
        table.read(query(), FAR)
        table.insert(2, "2026-11-01 00:00:00", "login")

        assert table.observe(query()).id == 2
        assert [row.rows for row in table.read(query(), FAR)] == [2]

    @pytest.mark.parametrize(
        "changed", [{"time": "nowhen"}, {"by": ("nobody",)}, {"where": (Condition("no", "in", (1,)),)}]
    )
    def test_read_unknown_column(self, table: Table, changed: dict[str, object]) -> None:
        """A name that the table lacks is refused, not taken for a database that is down."""
        with pytest.raises(QueryRefused):
            table.read(query(**changed), FAR)


class Carbon(Protocol):
    """A Carbon somewhere, seen from both sides."""

    def deliver(self, lines: bytes) -> None:
        """See shipper.courier.Carrier."""

    def has_died(self) -> bool:
        """See shipper.courier.Carrier."""

    def kill(self) -> None:
        """End the process with SIGKILL."""

    def start(self) -> None:
        """Run it again."""


class CarrierContract:
    """What the courier may rely on; give fixtures `carbon` and `stored` to inherit it."""

    def test_deliver_stores(self, carbon: Carbon, stored: Callable[[str, int], float | None]) -> None:
        """What was confirmed can be read; of several values of a slot the last."""
        slot = int(time.time()) // 60 * 60
        carbon.deliver(b"a.b.count 5 %d\na.b.count 7 %d\nc.count 1 %d\n" % (slot, slot, slot))
        carbon.deliver(b"c.count 2 %d\n" % slot)

        assert stored("a.b.count", slot) == 7
        assert stored("c.count", slot) == 2

    def test_deliver_nothing(self, carbon: Carbon) -> None:
        """An empty batch is a question whether Carbon reads at all."""
        carbon.deliver(b"")

        assert not carbon.has_died()

    def test_deliver_carbon_down(self, carbon: Carbon) -> None:
        """A Carbon that is down confirms nothing, and is delivered to again once it is up."""
        carbon.kill()
        with pytest.raises(DeliveryFailed):
            carbon.deliver(b"a.count 1 1790000040\n")
        carbon.start()

        carbon.deliver(b"a.count 1 1790000040\n")

    def test_has_died_before_any_delivery(self, carbon: Carbon) -> None:
        """A Carbon that has confirmed nothing yet has not died, whether it is there or not."""
        assert not carbon.has_died()
        carbon.kill()

        assert not carbon.has_died()

    def test_has_died_once(self, carbon: Carbon) -> None:
        """A Carbon that was killed since is told once, and then not again until another has confirmed and died."""
        carbon.deliver(b"a.count 1 1790000040\n")
        assert not carbon.has_died()
        carbon.kill()
        assert [carbon.has_died(), carbon.has_died()] == [True, False]
        carbon.start()
        assert not carbon.has_died()
        carbon.deliver(b"a.count 1 1790000040\n")
        assert not carbon.has_died()
        carbon.kill()

        assert carbon.has_died()

    def test_has_died_after_failed_delivery(self, carbon: Carbon) -> None:
        """A failed delivery says it already."""
        carbon.deliver(b"a.count 1 1790000040\n")
        carbon.kill()
        with pytest.raises(DeliveryFailed):
            carbon.deliver(b"a.count 1 1790000040\n")

        assert not carbon.has_died()

    def test_restart_while_nobody_looks(self, carbon: Carbon) -> None:
        """A Carbon that was restarted between two looks is not told from one that closes idle connections."""
        carbon.deliver(b"a.count 1 1790000040\n")
        carbon.kill()
        carbon.start()
        assert not carbon.has_died()
        carbon.kill()

        assert carbon.has_died()


class GraphiteContract:
    """What a comparison may rely on; give fixtures `web` and `send`, of a Carbon that keeps 1m:1d,1h:30d."""

    def test_held(self, web: Graphite, send: Callable[[str, float, int], None]) -> None:
        """A value for each slot of the span, none where nothing was sent, and nothing of a series that is not there."""
        slot = int(time.time()) // 60 * 60 - 600
        for number in (0, 1, 3, 4):
            send("held.count", number + 1, slot + 60 * number)
        paths = ["held.count", "held.never"]

        wait_for(lambda: _held(web, paths, Span(slot, slot + 300), 60)["held.count"][4] == 5, "the last value")
        assert dict(web.held(paths, Span(slot + 60, slot + 240), 60)) == {
            "held.count": Kept(slot + 60, 60, [2.0, None, 4.0])
        }
        assert dict(web.held(paths, Span(slot, slot + 60), 60)) == {"held.count": Kept(slot, 60, [1.0])}

    def test_held_by_the_coarser_archive(self, web: Graphite, send: Callable[[str, float, int], None]) -> None:
        """What begins before the finest archive is answered by the next, up to its end, with its sums."""
        hour = int(time.time()) // 3600 * 3600 - 2 * 3600
        old = hour - 86_400
        send("sums.count", 7, old)
        for number in range(3):
            send("sums.count", 2, hour + 60 * number)

        def hours() -> Sequence[float | None]:
            return _held(web, ["sums.count"], Span(old, hour + 3600), 3600)["sums.count"]

        wait_for(lambda: list(hours())[-1:] == [6.0], "the sum")
        assert list(hours()) == [7.0, *[None] * 23, 6.0]
        assert [kept.step for _, kept in web.held(["sums.count"], Span(old, hour + 3600), 60)] == [3600]


def _held(web: Graphite, paths: list[str], span: Span, step: int) -> dict[str, Sequence[float | None]]:
    missing = dict.fromkeys(paths, [None] * 10)
    return {**missing, **{path: kept.values for path, kept in web.held(paths, span, step)}}
