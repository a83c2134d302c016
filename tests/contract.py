"""What each end promises: one suite an interface, inherited by the tests of the fake and of every real one.

A fake that does not pass it is not a fake.
"""

import time
from collections.abc import Callable
from typing import Protocol

import pytest
from builders import query

from shipper.errors import DeliveryFailed, QueryRefused
from shipper.model import Condition, Observation, Query, Row, Window

FAR = Window(0, 10**12)


class Table(Protocol):
    """An audit_trail somewhere, seen from both sides."""

    def insert(self, id: int, created_at: str | None, action: str | None, outcome: str = "ok") -> None:  # noqa: A002
        """Add a row in a session of its own, committed."""

    def observe(self, query: Query) -> Observation:
        """See shipper.source.Source."""

    def first_id(self, query: Query, after: int, upto: int) -> int:
        """See shipper.source.Source."""

    def read(self, query: Query, window: Window) -> list[Row]:
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

        assert table.read(query(time=None), FAR) == [Row(None, ("login",), 2)]

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            ((), 3),
            ((Condition("outcome", ("ok",)),), 1),
            ((Condition("outcome", ("ok", "bad")),), 2),
            ((Condition("outcome", ("ok", "bad")), Condition("action", ("login",))), 1),
            ((Condition("id", (2,)),), 1),
        ],
    )
    def test_read_where(self, table: Table, where: tuple[Condition, ...], expected: int) -> None:
        """Conditions all hold; a list of values is any of them."""
        table.insert(1, "2026-11-01 00:00:00", "login", "ok")
        table.insert(2, "2026-11-01 00:00:00", "logout", "bad")
        table.insert(3, "2026-11-01 00:00:00", "logout", "odd")

        assert expected == sum(row.rows for row in table.read(query(where=where), FAR))

    def test_read_sees_other_sessions(self, table: Table) -> None:
        """What another session has committed since the last read is in the next one."""
        table.insert(1, "2026-11-01 00:00:00", "login")
        table.read(query(), FAR)
        table.insert(2, "2026-11-01 00:00:00", "login")

        assert table.observe(query()).id == 2
        assert [row.rows for row in table.read(query(), FAR)] == [2]

    @pytest.mark.parametrize("changed", [{"time": "nowhen"}, {"by": ("nobody",)}, {"where": (Condition("no", (1,)),)}])
    def test_read_unknown_column(self, table: Table, changed: dict[str, object]) -> None:
        """A name that the table lacks is refused, not taken for a database that is down."""
        with pytest.raises(QueryRefused):
            table.read(query(**changed), FAR)


class Carbon(Protocol):
    """A Carbon somewhere, seen from both sides."""

    def deliver(self, lines: bytes) -> None:
        """See shipper.courier.Carrier."""

    def is_alive(self) -> bool:
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

        assert carbon.is_alive()

    def test_deliver_carbon_down(self, carbon: Carbon) -> None:
        """A Carbon that is down confirms nothing, and is delivered to again once it is up."""
        carbon.kill()
        with pytest.raises(DeliveryFailed):
            carbon.deliver(b"a.count 1 1790000040\n")
        carbon.start()

        carbon.deliver(b"a.count 1 1790000040\n")

    def test_witness_dies_with_carbon(self, carbon: Carbon) -> None:
        """A Carbon that was killed since is not alive, also when another has taken its place."""
        carbon.deliver(b"a.count 1 1790000040\n")
        assert carbon.is_alive()
        carbon.kill()
        carbon.start()

        assert not carbon.is_alive()

    def test_witness_is_of_the_process_that_confirmed_first(self, carbon: Carbon) -> None:
        """A delivery to the successor does not hide that the predecessor died: that is said once."""
        carbon.deliver(b"a.count 1 1790000040\n")
        carbon.kill()
        carbon.start()
        carbon.deliver(b"a.count 1 1790000040\n")

        assert not carbon.is_alive()
        carbon.deliver(b"a.count 1 1790000040\n")
        assert carbon.is_alive()
