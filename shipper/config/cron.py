"""Lines of cron, with the meaning of crontab(5) and, where a clock changes, of Debian's cron(8).

Where a clock is set forward, a line with fixed times runs right after the change instead of at a time that does not
exist. Where it is set back, such a line runs once. A line whose minute or hour begins with a star means an interval,
so it runs at all moments whose local time matches.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
LONGEST = timedelta(days=8 * 366)
"""Longest wait: a leap day is up to eight years away."""
_SOME_DAY = datetime(2000, 1, 1, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)
_SHIFT = timedelta(hours=3)
"""No clock is set back by more."""


class _Field(NamedTuple):
    name: str
    first: int
    last: int
    names: Sequence[str] = ()
    """Names of the numbers from `first` on."""
    note: str = ""


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    _Field("weekday", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat"), ", where 0 and 7 are Sunday,"),
)


class Cron:
    """Five fields of cron in a time zone."""

    def __init__(self, line: str, zone: str) -> None:
        """Read the fields minute, hour, day of the month, month, weekday.

        Raises:
            ValueError: the line is not one of cron, or no date matches it.
        """
        texts = NICKNAMES.get(line, line).split()
        if len(texts) != len(_FIELDS):
            raise ValueError("cron has five fields: minute, hour, day of the month, month, weekday")
        minute, hour, day, _, weekday = texts
        self._minutes, self._hours, self._days, self._months, days = map(_numbers, texts, _FIELDS)
        self._weekdays = {number % 7 for number in days}
        # crontab(5): on either day if both are restricted; a field that begins with a star is not
        self._needs_both = day.startswith("*") or weekday.startswith("*")
        self._is_fixed = not minute.startswith("*") and not hour.startswith("*")
        self._zone = ZoneInfo(zone)
        if self.first_from(_SOME_DAY) is None:
            raise ValueError("no date matches this line")

    def first_from(self, start: datetime) -> datetime | None:
        """Return the first time at or after `start`, in UTC; None if there is none for eight years."""
        local = start.astimezone(self._zone).replace(tzinfo=None)
        found: list[datetime] = []
        end = local + LONGEST
        for wall in self._walls(local - _SHIFT):
            if wall > end:
                break
            moments = [moment for moment in self._moments(wall) if moment >= start]
            if moments and not found:  # where a clock was set back, a later local time may come first
                end = wall + _SHIFT
            found += moments
        return min(found, default=None)

    def _walls(self, start: datetime) -> Iterator[datetime]:
        """Yield the matching local times from `start` on, in order, for as long as the longest wait."""
        for number in range(LONGEST.days + 1):
            day = start.date() + timedelta(days=number)
            if not self._is_on(day):
                continue
            for hour in self._hours:
                if number or hour >= start.hour:
                    yield from (datetime.combine(day, time(hour, minute)) for minute in self._minutes)

    def _is_on(self, day: date) -> bool:
        is_day, is_weekday = day.day in self._days, day.isoweekday() % 7 in self._weekdays
        is_either = (is_day and is_weekday) if self._needs_both else (is_day or is_weekday)
        return is_either and day.month in self._months

    def _moments(self, wall: datetime) -> list[datetime]:
        """Return when the line runs for a local time: usually once, where a clock changes perhaps twice or not."""
        moments = _moments_of(wall, self._zone)
        if not self._is_fixed:
            return moments
        while not moments:  # the clock skips this time
            wall += _MINUTE
            moments = _moments_of(wall, self._zone)
        return moments[:1]


def _moments_of(wall: datetime, zone: ZoneInfo) -> list[datetime]:
    """Return the moments at which a zone's clock shows a time."""
    moments = {wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    return sorted(moment for moment in moments if moment.astimezone(zone).replace(tzinfo=None) == wall)


def _numbers(text: str, field: _Field) -> list[int]:
    """Return the numbers of a field, in order."""
    return sorted({number for part in text.lower().split(",") for number in _range(part, field)})


def _range(part: str, field: _Field) -> Iterable[int]:
    match = re.fullmatch(r"(\*|(?P<first>\w+)(-(?P<last>\w+))?)(/(?P<step>[1-9]\d*))?", part)
    if match is None:
        raise ValueError(f'"{part}" is not a {field.name}')
    step = int(match["step"] or 1)
    # 7 is Sunday, too, but a star does not mean it twice
    most = field.first + len(field.names) - 1 if field.names else field.last
    if match["first"] is None:
        return range(field.first, most + 1, step)
    first = _number(match["first"], field)
    last = _number(match["last"], field) if match["last"] else most if match["step"] else first
    if last >= first:
        return range(first, last + 1, step)
    if not field.names:
        raise ValueError(f'"{part}" is not a range: it ends before it begins')
    # sat-sun, nov-feb: across the end of the week or the year
    return [
        (number - field.first) % len(field.names) + field.first
        for number in range(first, last + len(field.names) + 1, step)
    ]


def _number(text: str, field: _Field) -> int:
    if text in field.names:
        return field.first + field.names.index(text)
    if re.fullmatch(r"[0-9]{1,2}", text) and field.first <= int(text) <= field.last:
        return int(text)
    names = f"{field.note} or {field.names[0]} to {field.names[-1]}" if field.names else ""
    raise ValueError(f'"{text}" is not a {field.name} ({field.first} to {field.last}{names})')
