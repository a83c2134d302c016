"""Lines of cron with the meaning of crontab(5)."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shipper.config.cron import Cron

MONDAY = datetime(2026, 9, 21, 0, 0, tzinfo=UTC)


def times(line: str, count: int, zone: str = "UTC", start: datetime = MONDAY) -> list[str]:
    """Return the first times of a line, from midnight of a Monday."""
    moments = islice(runs(line, zone, start), count)
    return [moment.strftime("%a %d %H:%M") for moment in moments]


def runs(line: str, zone: str, start: datetime) -> Iterator[datetime]:
    """Yield the moments of a line from a moment on."""
    cron = Cron(line, zone)
    while (moment := cron.first_from(start)) is not None:
        yield moment
        start = moment + timedelta(microseconds=1)


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
    """Sunday is 0 and 7, as in crontab(5). Mutant: 0 is Monday."""
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
        Cron(line, "UTC")


PARTS = st.sampled_from(
    ["*", "0", "*/5", "1-5", "7", "0", "29-31", "feb", "sat-sun", "1,2", "*/99999", f"1/{'9' * 5000}"]
)
TEXTS = st.lists(
    PARTS | st.text("*-/,019 abfet\N{SUPERSCRIPT TWO}\N{ARABIC-INDIC DIGIT THREE}", max_size=5), max_size=6
)


@example("0 0 31 jun *", "UTC")
@given(TEXTS.map(" ".join), st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"]))
def test_any_text(line: str, zone: str) -> None:
    """A text is an error, or a line with a next time. Mutant: accept lines that no date matches."""
    try:
        cron = Cron(line, zone)
    except ValueError:
        return
    assert cron.first_from(datetime(2026, 3, 29, 1, tzinfo=UTC)) is not None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("59/1 6 * * *", ["Mon 21 06:59"]),
        ("*/25 6 * * *", ["Mon 21 06:00", "Mon 21 06:25", "Mon 21 06:50", "Tue 22 06:00"]),
        ("10-20/5,50 6 * * *", ["Mon 21 06:10", "Mon 21 06:15", "Mon 21 06:20", "Mon 21 06:50"]),
        ("0 0 1 Nov-feb *", ["Sun 01 00:00", "Tue 01 00:00", "Fri 01 00:00", "Mon 01 00:00", "Mon 01 00:00"]),
        ("0 0 29 2 *", ["Tue 29 00:00"]),
    ],
)
def test_fields(line: str, expected: list[str]) -> None:
    """Steps, ranges, lists and names of crontab(5)."""
    assert times(line, len(expected)) == expected


LINES = (
    "@daily",
    "0 2 * * *",
    "30 2 * * *",
    "15 0,1,2,3 * * *",
    "0 */6 * * *",
    "*/20 2 * * *",
    "40 1-3 * * sun",
    "5 * * * sun",
)
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",  # midnight does not exist once a year
    "America/Santiago",
    "Asia/Beirut",
    "Africa/Casablanca",  # back during Ramadan
    "Australia/Lord_Howe",  # by half an hour
    "Antarctica/Troll",  # by two hours
    "Asia/Kathmandu",
)


def by_minutes(line: str, zone: str, day: date) -> list[datetime]:
    """Return the moments of a line on a local date, by a look at each minute: what crontab(5) and cron(8) say.

    Only lines with the fields minute, hour, and perhaps Sunday.
    """
    minute, hour, _, _, weekday = line.replace("@daily", "0 0 * * *").split()
    if weekday == "sun" and day.weekday() != 6:
        return []
    walls = [datetime.combine(day, clock) for clock in clocks(minute, hour)]
    midnight = datetime.combine(day, time(), UTC)
    offsets = [(midnight + timedelta(hours=hours)).astimezone(ZoneInfo(zone)).utcoffset() for hours in (-48, 72)]
    if offsets[0] == offsets[1]:
        assert offsets[0] is not None
        return [wall.replace(tzinfo=UTC) - offsets[0] for wall in walls]
    shown = shown_around(midnight, zone)
    if minute.startswith("*") or hour.startswith("*"):
        return sorted(moment for wall in walls for moment in shown.get(wall, []))
    return sorted({shown[min(other for other in shown if other >= wall)][0] for wall in walls})


@lru_cache
def clocks(minute: str, hour: str) -> list[time]:
    """Return the times of a day that two fields have."""
    return [
        time(number // 60, number % 60)
        for number in range(1440)
        if holds(minute, number % 60) and holds(hour, number // 60)
    ]


@lru_cache
def shown_around(midnight: datetime, zone: str) -> dict[datetime, list[datetime]]:
    """Return the moments at which a zone's clock shows each local time, for the days around one."""
    shown: dict[datetime, list[datetime]] = {}
    for number in range(-2 * 1440, 3 * 1440):
        moment = midnight + timedelta(minutes=number)
        shown.setdefault(moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None), []).append(moment)
    return shown


def holds(field: str, number: int) -> bool:
    """Return whether a field has a number."""
    if field.startswith("*"):
        return number % int(field[2:] or 1) == 0
    first, _, last = field.partition("-")
    return int(first) <= number <= int(last) if last else str(number) in field.split(",")


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("zone", ZONES)
def test_every_day(line: str, zone: str) -> None:
    """Each run of two years is where cron(8) has it, over all changes of the clock.

    Mutants: a time that does not exist runs an hour later; it does not run; a time that comes twice runs twice.
    """
    days = [date(2025, 1, 1) + timedelta(days=number) for number in range(2 * 365)]
    expected = sorted({moment for day in days for moment in by_minutes(line, zone, day)})
    found = runs(line, zone, expected[0] - timedelta(seconds=30))

    assert list(takewhile(lambda moment: moment <= expected[-1], found)) == expected


def test_day_that_does_not_exist() -> None:
    """Samoa had no 30 December 2011: what is due on it runs when the 31st begins."""
    start = datetime(2011, 12, 29, 9, 30, tzinfo=UTC)

    assert times("0 12 30 * *", 2, "Pacific/Apia", start) == ["Fri 30 10:00", "Sun 29 22:00"]


def test_machine_without_zones() -> None:
    """Zones are known where the machine has no tz database. Mutant: depend on the machine's."""
    program = "from shipper.config.cron import Cron; print(Cron('@daily', 'Europe/Berlin'), Cron('@daily', 'UTC'))"
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONTZPATH": ""}, check=True)
