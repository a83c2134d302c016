"""Contracts: one suite for each Protocol, inherited by the tests of the fake and of every real implementation.

A fake that does not pass the suite is no fake.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import pytest
from builders import points, query
from harness import wait_for

from shipper.core.errors import DeliveryFailed, QueryRefused
from shipper.core.id_set import Gaps, IdSet, Words, ids_of, words_of
from shipper.core.measures import COUNT, Kind, Measure
from shipper.core.model import Condition, Datapoint, Observation, Query, Row, SeriesData, Span, Window
from shipper.core.rows.table import Source
from shipper.core.verify.reconcile import Graphite
from shipper.source import present

FAR = Window(0, 10**12)
NOVEMBER = 1793491200  # 2026-11-01 00:00:00 UTC


class Table(Source, Protocol):
    """An audit_trail, with the methods of the source and of the application that writes it."""

    def insert(
        self,
        id: int | None,  # noqa: A002
        created_at: str | None,
        action: str | None,
        outcome: str = "ok",
        duration_ms: int | None = None,
    ) -> None:
        """Add a row in a separate session, and commit it."""

    def loosen(self) -> None:
        """Allow ids that are duplicate, NULL, 0 or negative."""

    def observe(self, query: Query) -> Observation:
        """See shipper.source.database.Source."""


def ids_by(words_by: Mapping[int | None, Words]) -> dict[int | None, list[int]]:
    """Return the ids of words, by bucket."""
    return {bucket: ids_of(words) for bucket, words in words_by.items()}


class SourceContract:
    """Contract of a source; a subclass needs a fixture `table`."""

    def test_observe_empty_table(self, table: Table) -> None:
        """The largest id of an empty table is 0."""
        assert table.observe(query()).id == 0

    def test_observe_largest_id(self, table: Table) -> None:
        """An observation has the largest id, in whatever order ids were inserted."""
        for number in (3, 9, 5):
            table.insert(number, "2026-11-01 00:00:00", "login")

        assert table.observe(query()).id == 9

    @pytest.mark.parametrize(
        ("after", "upto", "expected"), [(0, 99, 5), (4, 99, 5), (5, 99, 70), (5, 70, 70), (5, 69, 69)]
    )
    def test_first_id(self, table: Table, after: int, upto: int, expected: int) -> None:
        """The first id of a range is the smallest above its lower end; without rows it is the upper end."""
        for number in (5, 70):
            table.insert(number, "2026-11-01 00:00:00", "login")

        assert table.first_id(query(), after, upto) == expected

    def test_read_window_half_open(self, table: Table) -> None:
        """A window excludes its lower end and includes its upper end."""
        for number in range(1, 7):
            table.insert(number, "2026-11-01 00:00:00", "login")

        assert [row.rows for row in table.read(query(), Window(2, 5))] == [3]

    @pytest.mark.parametrize("time", ["created_at", None])
    @pytest.mark.parametrize("by", [("action",), ()])
    def test_read_nothing_found(self, table: Table, time: str | None, by: tuple[str, ...]) -> None:
        """A window without rows has no groups, rather than one with 0 rows."""
        assert table.read(query(time=time, by=by), FAR) == []

    def test_read_groups_byte_by_byte(self, table: Table) -> None:
        """Groups differ if their bytes differ: no collation, no padding; NULL is not empty."""
        actions = ["Login", "login", "login ", "lógin", "", None]
        for number, action in enumerate(actions, start=1):
            table.insert(number, "2026-11-01 00:00:00", action)

        assert {(action,) for action in actions} == {row.group for row in table.read(query(), FAR)}

    def test_read_several_columns(self, table: Table) -> None:
        """Groups are combinations of values, in the order of the query."""
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
        """A row belongs to the bucket of its time, in UTC, rounded down; without a time it has no bucket."""
        table.insert(1, created_at, "login")

        assert [bucket] == [row.bucket for row in table.read(query(), FAR)]

    def test_read_without_time(self, table: Table) -> None:
        """Without a time column rows have no bucket."""
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
        """All conditions must hold; a list of values matches any of them."""
        table.insert(1, "2026-11-01 00:00:00", "login", "ok", 10)
        table.insert(2, "2026-11-01 00:00:00", "logout", "bad", 20)
        table.insert(3, "2026-11-01 00:00:00", "logout", "odd")

        assert expected == sum(row.rows for row in table.read(query(where=where), FAR))

    def test_read_measures(self, table: Table) -> None:
        """Measures are exact numbers of a group in a bucket; NULL adds nothing, and only NULLs give NULL."""
        for number, duration in enumerate((5, None, 7, -1), start=1):
            table.insert(number, "2026-11-01 00:00:00", "login", "ok", duration)
        table.insert(5, "2026-11-01 00:00:00", "logout", "ok", None)
        measures = [Measure(kind.value, kind, "duration_ms") for kind in (Kind.SUM, Kind.MAX, Kind.MIN)]

        rows = table.read(query(measures=(COUNT, *measures)), FAR)

        assert {row.group[0]: row.values for row in rows} == {"login": (4, 11, 7, -1), "logout": (1, None, None, None)}

    def test_read_undivided(self, table: Table) -> None:
        """An indivisible measure is read by bucket and group, of all rows in the span; reads of windows leave it out.

        Mutants: read it with the others; count NULL; leave out the conditions; cut a bucket at the end of the span.
        """
        ok = [("00:00:00", 5), ("00:04:59", 7), ("00:05:00", 5), ("00:05:30", None), ("00:09:59", 5)]
        for number, (created, duration) in enumerate(ok, start=1):
            table.insert(number, f"2026-11-01 {created}", "login", "ok", duration)
        table.insert(6, "2026-11-01 00:05:00", "login", "bad", 8)
        table.insert(7, None, "login", "ok", 9)
        table.insert(8, "2026-11-01 00:05:00", "logout", "ok", None)
        measures = (COUNT, Measure("values", Kind.DISTINCT, "duration_ms"))
        wanted = query(bucket=300, measures=measures, where=(Condition("outcome", "in", ("ok",)),))

        first, second = Span(NOVEMBER, NOVEMBER + 60), Span(NOVEMBER + 300, NOVEMBER + 360)
        assert table.read_undivided(wanted, FAR, first) == [Row(NOVEMBER, ("login",), 0, (None, 2))]
        assert table.read_undivided(wanted, Window(0, 1), first) == [Row(NOVEMBER, ("login",), 0, (None, 1))]
        assert sorted(table.read_undivided(wanted, FAR, second)) == [
            Row(NOVEMBER + 300, ("login",), 0, (None, 1)),
            Row(NOVEMBER + 300, ("logout",), 0, (None, 0)),
        ]
        assert {row.values for row in table.read(wanted, FAR) if row.bucket == NOVEMBER} == {(2, None)}

    def test_read_span(self, table: Table) -> None:
        """With a span only rows in its buckets are counted, and rows without a time."""
        for number, created in enumerate(("00:00:59", "00:01:00", "00:02:59", "00:03:00"), start=1):
            table.insert(number, f"2026-11-01 {created}", "login")
        table.insert(5, None, "login")

        rows = table.read(query(), FAR, Span(NOVEMBER + 60, NOVEMBER + 180))

        assert {row.bucket: row.rows for row in rows} == {NOVEMBER + 60: 1, NOVEMBER + 120: 1, None: 1}

    def test_read_span_within_a_bucket(self, table: Table) -> None:
        """A bucket that begins in the span counts completely: a recount may read one slot, which may be shorter."""
        for number, created in enumerate(("00:04:59", "00:05:00", "00:09:59", "00:10:00"), start=1):
            table.insert(number, f"2026-11-01 {created}", "login")
        wanted, span = query(bucket=300), Span(NOVEMBER + 300, NOVEMBER + 360)

        assert {row.bucket: row.rows for row in table.read(wanted, FAR, span)} == {NOVEMBER + 300: 2}
        assert table.first_in(wanted, Window(2, 9), span) == 3
        assert table.read(wanted, FAR, Span(NOVEMBER + 360, NOVEMBER + 420)) == []
        assert table.first_in(wanted, FAR, Span(NOVEMBER + 360, NOVEMBER + 420)) is None

    def test_newest(self, table: Table) -> None:
        """The newest row up to an id is the one with the largest id."""
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
        """The first row of a span of time is found regardless of conditions; a row without a time is in no span."""
        for number, created in enumerate((None, "2026-11-01 00:00:00", "2026-11-01 00:01:00", None), start=1):
            table.insert(number, created, "login")
        wanted = query(where=(Condition("action", "in", ("nothing",)),))

        assert table.first_in(wanted, Window(0, 9), span) == expected

    @pytest.mark.parametrize(
        ("window", "start", "end", "expected"),
        [
            (Window(0, 9), 0, 60, (Window(1, 5), 3)),
            (Window(0, 4), 0, 60, (Window(1, 3), 2)),
            (Window(3, 9), 0, 60, (Window(4, 5), 1)),
            (Window(0, 9), 60, 120, (Window(3, 4), 1)),
            (Window(0, 9), -60, 0, None),
            (Window(5, 9), 0, 3600, None),
        ],
    )
    def test_ids_in(
        self, table: Table, window: Window, start: int, end: int, expected: tuple[Window, int] | None
    ) -> None:
        """The ids of a span of time are found regardless of conditions, from its first second to its last fraction."""
        times = (None, "2026-11-01 00:00:00", "2026-11-01 00:00:59.9", "2026-11-01 00:01:00", "2026-11-01 00:00:30")
        for number, created in enumerate(times, start=1):
            table.insert(number, created, "login")
        wanted = query(where=(Condition("action", "in", ("nothing",)),))

        assert table.ids_in(wanted, window, Span(NOVEMBER + start, NOVEMBER + end)) == expected

    def test_times(self, table: Table) -> None:
        """The span of a window's times is found regardless of conditions, wide enough where clocks go back."""
        for number, created in enumerate((None, "2026-11-01 00:00:07", "2026-11-01 00:01:00.5", None), start=1):
            table.insert(number, created, "login")
        wanted = query(where=(Condition("action", "in", ("nothing",)),))

        assert table.times(wanted, Window(0, 9)) == Span(NOVEMBER + 7, NOVEMBER + 61)
        assert table.times(wanted, Window(2, 3)) == Span(NOVEMBER + 60, NOVEMBER + 61)
        assert table.times(wanted, Window(3, 9)) is None
        there = table.times(query(time_zone="Europe/Berlin"), Window(0, 9))
        assert there is not None
        assert there.start <= NOVEMBER + 7 - 3600
        assert there.end >= NOVEMBER + 61 - 3600

    def test_time_of_one_row(self, table: Table) -> None:
        """The time of a single row is exact in each zone: else backfills would take a day of rows for purged.

        Mutant: a margin for clocks that go back.
        """
        for number, created in ((1, None), (3, "2026-11-01 00:01:00.5")):
            table.insert(number, created, "login")
        wanted = query(time_zone="Europe/Berlin")

        assert table.times(wanted, Window(2, 3)) == Span(NOVEMBER - 3540, NOVEMBER - 3539)
        assert [table.times(wanted, Window(one - 1, one)) for one in (1, 2, 4)] == [None, None, None]

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
        """The ids of a window are exact, regardless of conditions, also where a word of 64 ends.

        Mutants: `id >= after`; a word of 63 ids; the bit of the sign left out; with the conditions.
        """
        for number in (1, 62, 63, 64, 65, 127, 128, 191, 192):
            table.insert(number, "2026-11-01 00:00:00", "login")
        wanted = query(where=(Condition("action", "in", ("nothing",)),))

        assert ids_of(table.words(wanted, Window(after, upto))) == expected

    def test_words_of_listed_ids(self, table: Table) -> None:
        """The existing ones of listed ids are found, however many are listed.

        Mutant: ask for the first thousand only.
        """
        for number in (4, 5, 999, 1000, 1001, 1500, 1600):
            table.insert(number, "2026-11-01 00:00:00", "login")

        assert ids_of(table.words(query(), tuple(range(5, 1501)))) == [5, 999, 1000, 1001, 1500]
        assert table.words(query(), (3, 6)) == {}

    @pytest.mark.parametrize("by", [("action",), ()])
    @pytest.mark.parametrize("time", ["created_at", None])
    @pytest.mark.parametrize("listed", [[], [3, 4, 300]])
    def test_read_at_once(self, table: Table, listed: list[int], time: str | None, by: tuple[str, ...]) -> None:
        """One statement gives the counts of a window, and the ids of the window and of gaps, whatever it counts.

        Mutants: count the rows of the gaps, too; the ids of counted rows only; the last range only.
        """
        for number in (1, 3, 62, 63, 64, 191, 192, 200, 201, 300):
            table.insert(number, "2026-11-01 00:00:00", "login", "bad" if number % 2 else "ok", number)
        measures = (COUNT, Measure("sum", Kind.SUM, "duration_ms"))
        wanted = query(time=time, by=by, where=(Condition("outcome", "in", ("bad",)),), measures=measures)
        gaps = Gaps([(0, 2), (62, 64), (150, 191)], listed)

        for window, values, ids in (
            (Window(191, 210), (1, 201), [192, 200, 201]),
            (Window(201, 210), None, []),
            (Window(64, 191), (1, 191), [191]),
        ):
            answer = table.read_at_once(wanted, window, gaps)
            assert answer is not None
            assert [row.values for row in answer[0]] == ([] if values is None else [values])
            assert answer[0] == table.read(wanted, window)
            found = {1, 63, 64, 191, *ids} | ({3, 300} if listed else set())
            assert ids_of(answer[1]) == sorted(found)
        assert table.read_at_once(wanted, Window(0, 300), Gaps([], [])) is not None

    def test_read_at_once_of_duplicate_ids(self, table: Table) -> None:
        """Two rows with one id are rejected. Mutant: no comparison of the bits with the rows."""
        table.loosen()
        for number in (7, 7):
            table.insert(number, "2026-11-01 00:00:00", "login")

        with pytest.raises(QueryRefused):
            table.read_at_once(query(), Window(0, 9), Gaps([], []))

    def test_fingerprint_of_more_rows(self, table: Table) -> None:
        """A fingerprint has more rows if more are wanted. Mutant: always the same number."""
        for number in range(1, 40):
            table.insert(number, "2026-11-01 00:00:00", "login")

        assert [row[0] for row in table.fingerprint(query(), 38, more=5).rows] == [*range(38, 17, -1)]

    @pytest.mark.parametrize("loose", [False, True])
    def test_appeared(self, table: Table, *, loose: bool) -> None:
        """Of ranges and single ids, those have appeared that have a row and are not counted, whether ids are unique.

        Mutants: take what is counted for new; ask for ranges only, or for one; another first bit of a range.
        """
        if loose:
            table.loosen()
        for number in (1, 2, 4, 63, 64, 65, 70, 71, 130, 131, 200, 5000):
            table.insert(number, "2026-11-01 00:00:00", "login", "bad")
        counted = IdSet(0, 2).added(words_of([64, 65, 131]))
        wanted = query(where=(Condition("action", "in", ("nothing",)),))

        for ranges, ids, expected in (
            ([(2, 4)], [], [4]),
            ([(2, 4), (62, 71), (128, 131)], [199, 200], [4, 63, 70, 71, 130, 200]),
            ([(63, 69)], [], []),
            ([(71, 129)], [3], []),
            ([(131, 9000)], [], [200, 5000]),
        ):
            with table.snapshot(query()):
                for _ in range(2):
                    assert ids_of(table.appeared(wanted, counted, Gaps(ranges, ids))) == expected
                assert ids_of(table.appeared(wanted, IdSet(0, 0).added(words_of([4])), Gaps([(2, 4)], []))) == []

    def test_many_have_appeared(self, table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
        """So do more than one answer lists. Mutant: only so many."""
        monkeypatch.setattr(present, "LISTED", 3)
        for number in range(1, 7):
            table.insert(number, "2026-11-01 00:00:00", "login")

        assert ids_of(table.appeared(query(), IdSet(0, 0), Gaps([(0, 9)], []))) == [*range(1, 7)]

    def test_words_by(self, table: Table) -> None:
        """Ids are found by bucket, those of rows without a time under None; a span excludes these.

        Mutants: rows without a time in every span; a span that ends with its last bucket's start.
        """
        for number, created in enumerate(("00:00:59", "00:01:00", "00:01:59", "00:02:00", "00:03:00"), start=62):
            table.insert(number, f"2026-11-01 {created}", "login")
        table.insert(70, None, "login")
        expected = {NOVEMBER: [62], NOVEMBER + 60: [63, 64], NOVEMBER + 120: [65], NOVEMBER + 180: [66], None: [70]}

        assert ids_by(table.words_by(query(), FAR)) == expected
        assert ids_by(table.words_by(query(), (63, 64, 70))) == {NOVEMBER + 60: [63, 64], None: [70]}
        assert ids_of(table.words(query(), FAR, Span(NOVEMBER + 60, NOVEMBER + 180))) == [63, 64, 65]
        assert ids_by(table.words_by(query(time=None), FAR)) == {None: [62, 63, 64, 65, 66, 70]}

    def test_words_in_a_zone(self, table: Table) -> None:
        """Ids have the buckets of their rows, in the time zone of the column, also where its clock goes back.

        Mutant: the zone of the server.
        """
        times = ("2026-11-01 00:30:00", "2026-10-25 01:59:00", "2026-10-25 02:30:00", "2026-10-25 03:10:00")
        for number, created in enumerate(times, start=1):
            table.insert(number, created, "login")
        wanted = query(time_zone="Europe/Berlin", bucket=3600)

        ids = ids_by(table.words_by(wanted, FAR))
        assert ids == {NOVEMBER - 3600: [1], 1792882800: [2], 1792886400: [3], 1792893600: [4]}
        assert set(ids) == {row.bucket for row in table.read(wanted, FAR)}

    def test_largest_ids(self, table: Table) -> None:
        """Ids are exact up to 2^63 - 1, the largest of a signed column."""
        largest = 2**63 - 1
        for number in (largest, largest - 1, largest - 64):
            table.insert(number, "2026-11-01 00:00:00", "login")

        assert table.observe(query()).id == largest
        assert ids_of(table.words(query(), Window(largest - 64, largest))) == [largest - 1, largest]
        assert ids_of(table.words(query(), (largest - 64, largest - 2, largest))) == [largest - 64, largest]
        assert [row.rows for row in table.read(query(), (largest - 64, largest))] == [2]
        assert table.count(query(), Window(largest - 65, largest - 1)) == 2

    def test_count(self, table: Table) -> None:
        """All rows of a window count, regardless of conditions. Mutant: with them."""
        for number in (3, 4, 7):
            table.insert(number, None, "login", "bad")
        wanted = query(where=(Condition("outcome", "in", ("ok",)),))

        assert [table.count(wanted, Window(*ends)) for ends in ((0, 2), (2, 4), (3, 7), (0, 99))] == [0, 2, 2, 3]

    def test_read_listed_ids(self, table: Table) -> None:
        """Rows of listed ids are counted like those of a window: by conditions, span and group.

        Mutants: without the conditions; the first thousand only.
        """
        for number, created in enumerate(("00:00:00", "00:00:30", "00:01:00", "00:02:00"), start=999):
            table.insert(number, f"2026-11-01 {created}", "login", "ok" if number % 2 else "bad", number)
        wanted = query(where=(Condition("outcome", "in", ("ok",)),), measures=(Measure("ms", Kind.SUM, "duration_ms"),))
        listed = (1, 999, *range(1001, 3000))

        rows = table.read(wanted, listed)
        assert sorted(rows) == [Row(NOVEMBER, ("login",), 1, (999,)), Row(NOVEMBER + 60, ("login",), 1, (1001,))]
        assert [row.values for row in table.read(wanted, listed, Span(NOVEMBER + 60, NOVEMBER + 120))] == [(1001,)]
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
        """The n-th row of a window is found from either end, regardless of conditions; None with fewer rows.

        Mutants: skip n rows; ascending both times.
        """
        for number in (70, 5, 9, 8):
            table.insert(number, None, "login")
        wanted, window = query(where=(Condition("action", "in", ("nothing",)),)), Window(after, upto)

        assert table.nth_id(wanted, window, rows) == forward
        assert table.nth_id(wanted, window, rows, is_backward=True) == backward

    def test_is_unique(self, table: Table) -> None:
        """A primary key of the id alone proves that it is unique."""
        assert table.is_unique(query())

    def test_rows_without_an_id(self, table: Table) -> None:
        """Rows whose id is NULL, 0 or negative are counted as rows without an id, and in no window.

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
    def test_duplicate_ids(self, table: Table, twice: tuple[int, ...], time: str | None) -> None:
        """Two rows with one id are rejected where ids are read, instead of counted as one.

        Mutant: no comparison of the bits with the rows.
        """
        table.loosen()
        for number in (*twice, 70):
            table.insert(number, "2026-11-01 00:00:00", "login")

        with pytest.raises(QueryRefused):
            table.words_by(query(time=time), FAR)
        assert ids_of(table.words(query(), Window(65, 70))) == [70]

    def test_snapshot(self, table: Table) -> None:
        """A snapshot, and an inner one that joins it, do not show rows that commit meanwhile; afterwards they show.

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
        """A call joins an open snapshot only if that is new enough for it. Mutant: join it in any case."""
        table.insert(1, "2026-11-01 00:00:00", "login")
        with table.held():
            with table.snapshot(query()):
                assert table.count(query(), FAR) == 1
            table.insert(2, "2026-11-01 00:00:00", "login")
            with table.snapshot(query(), since=time.monotonic()):
                assert table.count(query(), FAR) == 2

    def test_statement_outside_a_snapshot(self, table: Table) -> None:
        """A statement outside a snapshot sees new rows, also on a connection whose snapshot could still be joined.

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
        """A fingerprint has the newest rows up to an id, and the server where that has an identity."""
        for number in range(1, 31):
            table.insert(number, "2026-11-01 00:00:59.9", "login")
        table.insert(40, None, "login")

        known = tuple((number, NOVEMBER + 59) for number in range(30, 14, -1))
        assert table.fingerprint(query(), 39).rows == known
        assert table.fingerprint(query(), 40) == table.fingerprint(query(), 30)._replace(rows=((40, None), *known[:-1]))
        assert table.fingerprint(query(time=None), 2).rows == ((2, None), (1, None))
        assert table.fingerprint(query(), 0).rows == ()

    def test_read_sees_other_sessions(self, table: Table) -> None:
        """A read sees rows that another session has committed since the last one."""
        table.insert(1, "2026-11-01 00:00:00", "login")
        table.read(query(), FAR)
        table.insert(2, "2026-11-01 00:00:00", "login")

        assert table.observe(query()).id == 2
        assert [row.rows for row in table.read(query(), FAR)] == [2]

    @pytest.mark.parametrize(
        "changed", [{"time": "nowhen"}, {"by": ("nobody",)}, {"where": (Condition("no", "in", (1,)),)}]
    )
    def test_read_unknown_column(self, table: Table, changed: dict[str, object]) -> None:
        """An unknown column is reported as a rejected query, not as a database that is down."""
        with pytest.raises(QueryRefused):
            table.read(query(**changed), FAR)


class Carbon(Protocol):
    """A Carbon, with the methods of the sink and of an operator."""

    def deliver(self, datapoints: Sequence[Datapoint]) -> None:
        """See shipper.core.delivery.courier.Sink."""

    def has_died(self) -> bool:
        """See shipper.core.delivery.courier.Sink."""

    def kill(self) -> None:
        """Kill the process with SIGKILL."""

    def start(self) -> None:
        """Start the process again."""


class SinkContract:
    """Contract of a sink; a subclass needs fixtures `carbon` and `stored`."""

    def test_deliver_stores(self, carbon: Carbon, stored: Callable[[str, int], float | None]) -> None:
        """Confirmed values can be read; the last of several values of a slot wins."""
        slot = int(time.time()) // 60 * 60
        carbon.deliver(points(b"a.b.count 5 %d\na.b.count 7 %d\nc.count 1 %d\n" % (slot, slot, slot)))
        carbon.deliver(points(b"c.count 2 %d\n" % slot))

        assert stored("a.b.count", slot) == 7
        assert stored("c.count", slot) == 2

    def test_deliver_nothing(self, carbon: Carbon) -> None:
        """An empty batch asks whether Carbon reads at all."""
        carbon.deliver([])

        assert not carbon.has_died()

    def test_deliver_carbon_down(self, carbon: Carbon) -> None:
        """A Carbon that is down confirms nothing; deliveries work again once it is up."""
        carbon.kill()
        with pytest.raises(DeliveryFailed):
            carbon.deliver(points(b"a.count 1 1790000040\n"))
        carbon.start()

        carbon.deliver(points(b"a.count 1 1790000040\n"))

    def test_has_died_before_any_delivery(self, carbon: Carbon) -> None:
        """A Carbon that has confirmed nothing yet has not died, whether it runs or not."""
        assert not carbon.has_died()
        carbon.kill()

        assert not carbon.has_died()

    def test_has_died_once(self, carbon: Carbon) -> None:
        """A death is reported once, and then not again until another Carbon has confirmed a batch and died."""
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
        """After a failed delivery the death is not reported again."""
        carbon.deliver(points(b"a.count 1 1790000040\n"))
        carbon.kill()
        with pytest.raises(DeliveryFailed):
            carbon.deliver(points(b"a.count 1 1790000040\n"))

        assert not carbon.has_died()

    def test_restart_between_two_checks(self, carbon: Carbon) -> None:
        """A Carbon that restarts between two checks looks like one that closes idle connections."""
        carbon.deliver(points(b"a.count 1 1790000040\n"))
        carbon.kill()
        carbon.start()
        assert not carbon.has_died()
        carbon.kill()

        assert carbon.has_died()


class GraphiteContract:
    """Contract of Graphite; a subclass needs fixtures `web` and `send`, of a Carbon with 1m:1d,1h:30d."""

    def test_held(self, web: Graphite, send: Callable[[str, float, int], None]) -> None:
        """Each slot of the span has a value, or None where nothing was sent; unknown series are missing."""
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
        """The next archive answers for a span that begins before the finest one, with sums, up to the span's end."""
        hour = int(time.time()) // 3600 * 3600 - 2 * 3600
        old = hour - 86_400
        send("sums.count", 7, old)
        for number in range(3):
            send("sums.count", 2, hour + 60 * number)

        def hours() -> Sequence[float | None]:
            return _held(web, ["sums.count"], Span(old, hour + 3600), 3600)["sums.count"]

        wait_for(lambda: list(hours())[-1:] == [6.0], "the sum")
        assert list(hours()) == [7.0, *[None] * 23, 6.0]
        assert [data.step for _, data in web.held(["sums.count"], Span(old, hour + 3600), 60)] == [3600]


def _held(web: Graphite, paths: list[str], span: Span, step: int) -> dict[str, Sequence[float | None]]:
    missing = dict.fromkeys(paths, [None] * 10)
    return {**missing, **{path: data.values for path, data in web.held(paths, span, step)}}
