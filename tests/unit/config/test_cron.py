"""Lines of cron with the meaning of crontab(5)."""

from datetime import UTC, datetime, timedelta

import pytest

from shipper.config.cron import trigger_of

MONDAY = datetime(2026, 9, 21, 0, 0, tzinfo=UTC)


def times(line: str, count: int, zone: str = "UTC", start: datetime = MONDAY) -> list[str]:
    """Return the first times of a line, from midnight of a Monday."""
    trigger, moments, previous = trigger_of(line, zone), [], None
    now = start
    for _ in range(count):
        previous = trigger.get_next_fire_time(previous, now)
        assert previous is not None
        moments.append(previous.astimezone(UTC).strftime("%a %d %H:%M"))
        now = previous + timedelta(microseconds=1)
    return moments


@pytest.mark.parametrize(
    ("weekdays", "expected"),
    [
        ("1", ["Mon 21"]),
        ("0", ["Sun 27"]),
        ("7", ["Sun 27"]),
        ("sun", ["Sun 27"]),
        ("1-5", ["Mon 21", "Tue 22", "Wed 23", "Thu 24", "Fri 25", "Mon 28"]),
        ("mon-fri", ["Mon 21", "Tue 22", "Wed 23", "Thu 24", "Fri 25", "Mon 28"]),
        ("SAT,SUN", ["Sat 26", "Sun 27"]),
        ("6-7", ["Sat 26", "Sun 27"]),
        ("fri-mon", ["Mon 21", "Fri 25", "Sat 26", "Sun 27", "Mon 28"]),
        ("*/2", ["Tue 22", "Thu 24", "Sat 26", "Sun 27"]),
        ("1-5/2", ["Mon 21", "Wed 23", "Fri 25"]),
        ("5/1", ["Fri 25", "Sat 26", "Fri 02"]),
    ],
)
def test_weekdays(weekdays: str, expected: list[str]) -> None:
    """Sunday is 0 and 7, as in crontab(5). Mutant: leave the numbers to APScheduler, whose 0 is Monday."""
    assert [f"{day} 06:00" for day in expected] == times(f"0 6 * * {weekdays}", len(expected))


def test_day_or_weekday() -> None:
    """A line with both days matches either, as in crontab(5). Mutant: both must hold."""
    assert times("0 0 23 * 5", 3) == ["Wed 23 00:00", "Fri 25 00:00", "Fri 02 00:00"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0 0 */2 * 5", ["Fri 25 00:00", "Fri 09 00:00", "Fri 23 00:00"]),  # Fridays with an odd date
        ("0 0 23 * */2", ["Sat 23 00:00", "Tue 23 00:00"]),  # 2027: Sunday, Tuesday, Thursday or Saturday
        ("0 0 * * 5", ["Fri 25 00:00", "Fri 02 00:00"]),
        ("0 0 23 * *", ["Wed 23 00:00", "Fri 23 00:00"]),
        ("0 0 1-7 * 1", ["Mon 21 00:00", "Mon 28 00:00", "Thu 01 00:00", "Fri 02 00:00"]),
        ("0 0 */2 * *", ["Mon 21 00:00", "Wed 23 00:00"]),
    ],
)
def test_day_and_weekday(line: str, expected: list[str]) -> None:
    """If one of the two days begins with a star, both must match, as in crontab(5). Mutant: only a lone star."""
    assert times(line, len(expected)) == expected


def test_zone() -> None:
    """A line follows the clock of its zone, also when that changes."""
    autumn = datetime(2026, 10, 24, tzinfo=UTC)

    assert times("30 6 * * *", 2, "Europe/Berlin", autumn) == ["Sat 24 04:30", "Sun 25 05:30"]


def test_nickname() -> None:
    """@hourly is the first minute of an hour."""
    assert times("@hourly", 2) == ["Mon 21 00:00", "Mon 21 01:00"]


@pytest.mark.parametrize(
    "line", ["", "* * * *", "* * * * * *", "60 * * * *", "* * * * 8", "* * * * 1-", "0 0 30 2 *", "* * * * noday"]
)
def test_rejected(line: str) -> None:
    """A text that is no line of cron is an error."""
    with pytest.raises(ValueError, match=r"."):
        trigger_of(line, "UTC")
