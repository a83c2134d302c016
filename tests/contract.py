"""What each end promises: one suite an interface, inherited by the tests of the fake and of every real one.

A fake that does not pass it is not a fake.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import pytest
from builders import points, query
from harness import wait_for

from shipper.core.errors import DeliveryFailed, QueryRefused
from shipper.core.id_set import Words, ids_of
from shipper.core.measures import COUNT, Kind, Measure
from shipper.core.model import Condition, Datapoint, Observation, Query, Row, SeriesData, Span, Window
from shipper.core.rows.table import Source
from shipper.core.verify.reconcile import Graphite

FAR = Window(0, 10**12)
NOVEMBER = 1793491200  # 2026-11-01 00:00:00 UTC


class Table(Source, Protocol):
    """An audit_trail somewhere, seen from both sides."""

    def insert(
        self,
        id: int | None,  # noqa: A002
        created_at: str | None,
        action: str | None,
        outcome: str = "ok",
        duration_ms: int | None = None,
    ) -> None:
        """Add a row in a session of its own, committed."""

    def loosen(self) -> None:
        """Let ids be given twice, be none, and be no numbers from 1 on."""

    def observe(self, query: Query) -> Observation:
        """See shipper.source.database.Source."""


def ids_by(found: Mapping[int | None, Words]) -> dict[int | None, list[int]]:
    """Return the ids of words, by bucket."""
    return {bucket: ids_of(words) for bucket, words in found.items()}


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
        ("span", "expected"),
        [
            (Span(NOVEMBER, NOVEMBER + 600), 2),
            (Span(NOVEMBER + 60, NOVEMBER + 600), 3),
            (Span(NOVEMBER + 600, NOVEMBER + 900), None),
        ],
    )
    def test_first_in(self, table: Table, span: Span, expected: int | None) -> None:
        """The first row of a span of time is found whatever the conditions; one without a time is in none."""
        for number, created in enumerate((None, "2026-11-01 00:00:00", "2026-11-01 00:01:00", None), start=1):
            table.insert(number, created, "login")
        asked = query(where=(Condition("action", "in", ("nothing",)),))

        assert table.first_in(asked, Window(0, 9), span) == expected

    def test_times(self, table: Table) -> None:
        """The times of a window's rows are known whatever the conditions, wide enough where clocks go back."""
        for number, created in enumerate((None, "2026-11-01 00:00:07", "2026-11-01 00:01:00.5", None), start=1):
            table.insert(number, created, "login")
        asked = query(where=(Condition("action", "in", ("nothing",)),))

        assert table.times(asked, Window(0, 9)) == Span(NOVEMBER + 7, NOVEMBER + 61)
        assert table.times(asked, Window(2, 3)) == Span(NOVEMBER + 60, NOVEMBER + 61)
        assert table.times(asked, Window(3, 9)) is None
        there = table.times(query(time_zone="Europe/Berlin"), Window(0, 9))
        assert there is not None
        assert there.start <= NOVEMBER + 7 - 3600
        assert there.end >= NOVEMBER + 61 - 3600

    @pytest.mark.parametrize(
        ("after", "upto", "expected"),
        [
            (0, 200, [1, 62, 63, 64, 65, 127, 128, 191, 192]),
            (63, 127, [64, 65, 127]),
            (62, 128, [63, 64, 65, 127, 128]),
            (64, 126, [65]),
            (65, 126, []),
            (127, 128, [128]),
            (190, 191, [191]),
        ],
    )
    def test_words(self, table: Table, after: int, upto: int, expected: list[int]) -> None:
        """Which ids a window holds is known to the bit, whatever the conditions, also where a word of 64 ends.

        Mutants: `id >= after`; a word of 63 ids; the bit of the sign left out; with the conditions.
        """
        for number in (1, 62, 63, 64, 65, 127, 128, 191, 192):
            table.insert(number, "2026-11-01 00:00:00", "login")
        asked = query(where=(Condition("action", "in", ("nothing",)),))

        assert ids_of(table.words(asked, Window(after, upto))) == expected

    def test_words_of_listed_ids(self, table: Table) -> None:
        """Of ids that are named one by one, however many, those are found that are there.

        Mutant: ask for the first thousand only.
        """
        for number in (4, 5, 999, 1000, 1001, 1500, 1600):
            table.insert(number, "2026-11-01 00:00:00", "login")

        assert ids_of(table.words(query(), tuple(range(5, 1501)))) == [5, 999, 1000, 1001, 1500]
        assert table.words(query(), (3, 6)) == {}

    def test_words_by(self, table: Table) -> None:
        """Ids are known by their bucket, those of rows without a time by None; a span leaves these out.

        Mutants: rows without a time in every span; a span that ends with its last bucket's start.
        """
        for number, created in enumerate(("00:00:59", "00:01:00", "00:01:59", "00:02:00", "00:03:00"), start=62):
            table.insert(number, f"2026-11-01 {created}", "login")
        table.insert(70, None, "login")
        found = {NOVEMBER: [62], NOVEMBER + 60: [63, 64], NOVEMBER + 120: [65], NOVEMBER + 180: [66], None: [70]}

        assert ids_by(table.words_by(query(), FAR)) == found
        assert ids_by(table.words_by(query(), (63, 64, 70))) == {NOVEMBER + 60: [63, 64], None: [70]}
        assert ids_of(table.words(query(), FAR, Span(NOVEMBER + 60, NOVEMBER + 180))) == [63, 64, 65]
        assert ids_by(table.words_by(query(time=None), FAR)) == {None: [62, 63, 64, 65, 66, 70]}

    def test_words_in_a_zone(self, table: Table) -> None:
        """The buckets of ids are those of their rows, in the zone of their column, also where its clock goes back.

        Mutant: the zone of the server.
        """
        times = ("2026-11-01 00:30:00", "2026-10-25 01:59:00", "2026-10-25 02:30:00", "2026-10-25 03:10:00")
        for number, created in enumerate(times, start=1):
            table.insert(number, created, "login")
        asked = query(time_zone="Europe/Berlin", bucket=3600)

        found = ids_by(table.words_by(asked, FAR))
        assert found == {NOVEMBER - 3600: [1], 1792882800: [2], 1792886400: [3], 1792893600: [4]}
        assert set(found) == {row.bucket for row in table.read(asked, FAR)}

    def test_largest_ids(self, table: Table) -> None:
        """Ids are exact up to 2^63 - 1, where a column has no sign to spare."""
        largest = 2**63 - 1
        for number in (largest, largest - 1, largest - 64):
            table.insert(number, "2026-11-01 00:00:00", "login")

        assert table.observe(query()).id == largest
        assert ids_of(table.words(query(), Window(largest - 64, largest))) == [largest - 1, largest]
        assert ids_of(table.words(query(), (largest - 64, largest - 2, largest))) == [largest - 64, largest]
        assert [row.rows for row in table.read(query(), (largest - 64, largest))] == [2]
        assert table.count(query(), Window(largest - 65, largest - 1)) == 2

    def test_count(self, table: Table) -> None:
        """All rows of a window count, whatever the conditions. Mutant: with them."""
        for number in (3, 4, 7):
            table.insert(number, None, "login", "bad")
        asked = query(where=(Condition("outcome", "in", ("ok",)),))

        assert [table.count(asked, Window(*ends)) for ends in ((0, 2), (2, 4), (3, 7), (0, 99))] == [0, 2, 2, 3]

    def test_read_listed_ids(self, table: Table) -> None:
        """Rows that are named by their ids are counted like those of a window: by conditions, span and group.

        Mutants: without the conditions; the first thousand only.
        """
        for number, created in enumerate(("00:00:00", "00:00:30", "00:01:00", "00:02:00"), start=999):
            table.insert(number, f"2026-11-01 {created}", "login", "ok" if number % 2 else "bad", number)
        asked = query(where=(Condition("outcome", "in", ("ok",)),), measures=(Measure("ms", Kind.SUM, "duration_ms"),))
        listed = (1, 999, *range(1001, 3000))

        rows = table.read(asked, listed)
        assert sorted(rows) == [Row(NOVEMBER, ("login",), 1, (999,)), Row(NOVEMBER + 60, ("login",), 1, (1001,))]
        assert [row.values for row in table.read(asked, listed, Span(NOVEMBER + 60, NOVEMBER + 120))] == [(1001,)]
        assert [row.rows for row in table.read(query(by=()), (1000, 1001, 1002))] == [1, 1, 1]

    @pytest.mark.parametrize(
        ("after", "upto", "rows", "forward", "backward"),
        [
            (0, 99, 1, 5, 70),
            (0, 99, 2, 8, 9),
            (0, 99, 4, 70, 5),
            (0, 99, 5, None, None),
            (5, 9, 1, 8, 9),
            (5, 7, 1, None, None),
        ],
    )
    def test_nth_id(
        self, table: Table, after: int, upto: int, rows: int, forward: int | None, backward: int | None
    ) -> None:
        """The so-many-th row of a window is found from either end, whatever the conditions; None with fewer rows.

        Mutants: skip as many as that; ascending both times.
        """
        for number in (70, 5, 9, 8):
            table.insert(number, None, "login")
        asked, window = query(where=(Condition("action", "in", ("nothing",)),)), Window(after, upto)

        assert table.nth_id(asked, window, rows) == forward
        assert table.nth_id(asked, window, rows, is_backward=True) == backward

    def test_is_unique(self, table: Table) -> None:
        """A primary key of the id alone proves that it is unique."""
        assert table.is_unique(query())

    def test_ids_that_are_none(self, table: Table) -> None:
        """Ids that are NULL, 0 or negative are no ids: they are counted where somebody asks, and nowhere else.

        Mutants: without NULL; `< 0`.
        """
        assert table.uncountable(query()) == 0
        table.loosen()
        for number in (None, -1, 0, 1, None, -(2**40)):
            table.insert(number, "2026-11-01 00:00:00", "login")

        assert table.uncountable(query()) == 5
        assert table.count(query(), FAR) == 1
        assert table.words(query(), FAR) == {0: 2}
        assert not table.is_unique(query())

    @pytest.mark.parametrize("twice", [(64, 64), (7, 7, 8, 9), (63, 63, 63)])
    @pytest.mark.parametrize("time", ["created_at", None])
    def test_ids_that_are_given_twice(self, table: Table, twice: tuple[int, ...], time: str | None) -> None:
        """Two rows with one id are refused where ids are asked for, instead of counted as one.

        Mutant: no comparison of the bits with the rows.
        """
        table.loosen()
        for number in (*twice, 70):
            table.insert(number, "2026-11-01 00:00:00", "login")

        with pytest.raises(QueryRefused):
            table.words_by(query(time=time), FAR)
        assert ids_of(table.words(query(), Window(65, 70))) == [70]

    def test_snapshot(self, table: Table) -> None:
        """Within a snapshot, and within one that joins it, nothing that is committed meanwhile is seen; then it is.

        It begins with its first statement at the latest. Mutants: READ COMMITTED; a new snapshot for the inner one.
        """
        table.insert(1, "2026-11-01 00:00:00", "login")
        with table.snapshot(query()):
            assert table.observe(query()).id == 1
            table.insert(2, "2026-11-01 00:00:00", "login")
            assert table.count(query(), FAR) == 1
            with table.snapshot(query()):
                assert ids_of(table.words(query(), FAR)) == [1]
                assert ids_of(table.words(query(), (1, 2))) == [1]
            assert [row.rows for row in table.read(query(), FAR)] == [1]
            assert table.fingerprint(query(), 9).rows == ((1, NOVEMBER),)

        assert ids_of(table.words(query(), FAR)) == [1, 2]
        with table.snapshot(query()):
            assert table.count(query(), FAR) == 2

    def test_snapshot_since(self, table: Table) -> None:
        """A snapshot is coalesced only by who need not see what came after it began. Mutant: join it in any case."""
        table.insert(1, "2026-11-01 00:00:00", "login")
        with table.held():
            with table.snapshot(query()):
                assert table.count(query(), FAR) == 1
            table.insert(2, "2026-11-01 00:00:00", "login")
            with table.snapshot(query(), since=time.monotonic()):
                assert table.count(query(), FAR) == 2

    def test_statement_outside_a_snapshot(self, table: Table) -> None:
        """What is asked outside sees what is new, also on the connection of a snapshot that could be coalesced still.

        Mutant: leave the snapshot open.
        """
        with table.held():
            with table.snapshot(query()):
                assert table.count(query(), FAR) == 0
            table.insert(1, "2026-11-01 00:00:00", "login")
            assert table.count(query(), FAR) == 1
            assert table.observe(query()).id == 1
            with table.snapshot(query()):
                assert ids_of(table.words(query(), FAR)) == [1]

    def test_error_within_a_snapshot(self, table: Table) -> None:
        """An error ends the snapshot, and the next one works. Mutant: keep the connection, with its transaction."""
        with table.held():
            with pytest.raises(QueryRefused), table.snapshot(query()):
                table.read(query(by=("nobody",)), FAR)
            table.insert(1, "2026-11-01 00:00:00", "login")
            with table.snapshot(query()):
                assert table.count(query(), FAR) == 1
                table.insert(2, "2026-11-01 00:00:00", "login")
                assert table.count(query(), FAR) == 1

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

    def deliver(self, datapoints: Sequence[Datapoint]) -> None:
        """See shipper.core.delivery.courier.Sink."""

    def has_died(self) -> bool:
        """See shipper.core.delivery.courier.Sink."""

    def kill(self) -> None:
        """End the process with SIGKILL."""

    def start(self) -> None:
        """Run it again."""


class CarrierContract:
    """What the courier may rely on; give fixtures `carbon` and `stored` to inherit it."""

    def test_deliver_stores(self, carbon: Carbon, stored: Callable[[str, int], float | None]) -> None:
        """What was confirmed can be read; of several values of a slot the last."""
        slot = int(time.time()) // 60 * 60
        carbon.deliver(points(b"a.b.count 5 %d\na.b.count 7 %d\nc.count 1 %d\n" % (slot, slot, slot)))
        carbon.deliver(points(b"c.count 2 %d\n" % slot))

        assert stored("a.b.count", slot) == 7
        assert stored("c.count", slot) == 2

    def test_deliver_nothing(self, carbon: Carbon) -> None:
        """An empty batch is a question whether Carbon reads at all."""
        carbon.deliver([])

        assert not carbon.has_died()

    def test_deliver_carbon_down(self, carbon: Carbon) -> None:
        """A Carbon that is down confirms nothing, and is delivered to again once it is up."""
        carbon.kill()
        with pytest.raises(DeliveryFailed):
            carbon.deliver(points(b"a.count 1 1790000040\n"))
        carbon.start()

        carbon.deliver(points(b"a.count 1 1790000040\n"))

    def test_has_died_before_any_delivery(self, carbon: Carbon) -> None:
        """A Carbon that has confirmed nothing yet has not died, whether it is there or not."""
        assert not carbon.has_died()
        carbon.kill()

        assert not carbon.has_died()

    def test_has_died_once(self, carbon: Carbon) -> None:
        """A Carbon that was killed since is told once, and then not again until another has confirmed and died."""
        carbon.deliver(points(b"a.count 1 1790000040\n"))
        assert not carbon.has_died()
        carbon.kill()
        assert [carbon.has_died(), carbon.has_died()] == [True, False]
        carbon.start()
        assert not carbon.has_died()
        carbon.deliver(points(b"a.count 1 1790000040\n"))
        assert not carbon.has_died()
        carbon.kill()

        assert carbon.has_died()

    def test_has_died_after_failed_delivery(self, carbon: Carbon) -> None:
        """A failed delivery says it already."""
        carbon.deliver(points(b"a.count 1 1790000040\n"))
        carbon.kill()
        with pytest.raises(DeliveryFailed):
            carbon.deliver(points(b"a.count 1 1790000040\n"))

        assert not carbon.has_died()

    def test_restart_while_nobody_looks(self, carbon: Carbon) -> None:
        """A Carbon that was restarted between two looks is not told from one that closes idle connections."""
        carbon.deliver(points(b"a.count 1 1790000040\n"))
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
            "held.count": SeriesData(slot + 60, 60, [2.0, None, 4.0])
        }
        assert dict(web.held(paths, Span(slot, slot + 60), 60)) == {"held.count": SeriesData(slot, 60, [1.0])}

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
