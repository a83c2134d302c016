"""Jobs along a time, beside what the databases show (tests/integration/test_along.py)."""

from life import Life, wanted

AHEAD = 200
"""Seconds by which a row is ahead of the clock, and is counted."""


def test_row_ahead_is_deleted_before_a_change(life: Life) -> None:
    """A minute above captured that has lost all its rows stops no job. Mutant: read no second of it."""
    life.source.rows.clear()
    life.source.now = lambda: life.now
    life.insert((AHEAD, "login", "ok"), (-AHEAD, "login", "ok"))
    life.ship(wanted(id="created_at"))
    del life.source.rows[1]
    life.ship(wanted(id="created_at"))
    life.ship(wanted(id="created_at", template="new.{action}.{measure}"))
    life.insert((0, "login", "ok"))
    life.ship(wanted(id="created_at", template="new.{action}.{measure}"))

    assert life.sums() == {"events.login.count": 2, "new.login.count": 1}
