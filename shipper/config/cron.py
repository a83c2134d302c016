"""Lines of cron, as APScheduler triggers with the meaning of crontab(5).

Strategy: APScheduler counts weekdays from Monday = 0, cron from Sunday = 0 (and 7); therefore weekdays become names.
With both a day of the month and a weekday, cron runs on either (crontab(5)), APScheduler only on days that match both.
"""

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger

_SOME_DAY = datetime(2000, 1, 1, tzinfo=UTC)
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def trigger_of(line: str, zone: str) -> BaseTrigger:
    """Return the trigger of five fields: minute, hour, day of the month, month, weekday.

    Raises:
        ValueError: the line is not one of cron.
    """
    fields = NICKNAMES.get(line, line).split()
    if len(fields) != 5:  # noqa: PLR2004 - crontab(5)
        raise ValueError("cron has five fields: minute, hour, day of the month, month, weekday")
    minute, hour, day, month, weekday = fields
    days = _weekdays(weekday)
    at = {"minute": minute, "hour": hour, "month": month, "timezone": ZoneInfo(zone)}
    if day.startswith("*") or weekday.startswith("*"):
        trigger = CronTrigger(day=day, day_of_week=days, **at)
    else:
        trigger = OrTrigger([CronTrigger(day=day, **at), CronTrigger(day_of_week=days, **at)])
    if trigger.get_next_fire_time(None, _SOME_DAY) is None:
        raise ValueError("no date matches this line")
    return trigger


def _weekdays(field: str) -> str:
    """Return a field of weekdays as single names."""
    if field == "*":
        return field
    numbers = {number % 7 for part in field.lower().split(",") for number in _range(part)}
    return ",".join(DAYS[number] for number in sorted(numbers))


def _range(part: str) -> range:
    match = re.fullmatch(r"(\*|(?P<first>\w+)(-(?P<last>\w+))?)(/(?P<step>[1-9]\d*))?", part)
    if match is None:
        raise ValueError(f'"{part}" is not a weekday')
    step = int(match["step"] or 1)
    if match["first"] is None:
        return range(0, 7, step)
    first = _number(match["first"])
    last = _number(match["last"]) if match["last"] else 6 if match["step"] else first
    if last < first:  # sat-sun, fri-mon: across the end of the week
        last += 7
    return range(first, last + 1, step)


def _number(day: str) -> int:
    if day in DAYS:
        return DAYS.index(day)
    if re.fullmatch("[0-7]", day):
        return int(day)
    raise ValueError(f'"{day}" is not a weekday: 0 to 7, where 0 and 7 are Sunday, or sun to sat')
