"""Shell. Times and durations as people write and read them: local, or UTC where `--utc` says so."""

import re
import time
from datetime import UTC, datetime, timedelta, tzinfo

import click

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_UTC = "shipper.utc"


class Duration(click.ParamType):
    """A duration as the configuration has it, 90s or 1h30m; becomes seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it, or fail with what is expected."""
        if isinstance(value, int):
            return value
        seconds = duration(str(value))
        if not seconds:
            self.fail(f"{value!r} is not a duration: write 90s, 15m, 2h, 1d or 1h30m.", param, ctx)
        return seconds


class Instant(click.ParamType):
    """A time as people write it; becomes epoch seconds."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it, or fail with what is expected."""
        if isinstance(value, int):
            return value
        found = instant(str(value))
        if found is None:
            expected = "write 06:15, '2026-11-23 06:15', 2026-11-23T06:15Z, now, or how long ago: 2h."
            self.fail(f"{value!r} is not a time: {expected}", param, ctx)
        return found


def keep_utc(context: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click calls it so
    """Remember whether times are UTC."""
    context.meta[_UTC] = value


def zone() -> tzinfo | None:
    """Return the zone of the times that this command reads and shows; None is the machine's."""
    context = click.get_current_context(silent=True)
    return UTC if context is not None and context.meta.get(_UTC) else None


def duration(text: str) -> int:
    """Read a duration, seconds; 0 where it is none."""
    found = _DURATION.fullmatch(text)
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0, 0)
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def instant(text: str) -> int | None:
    """Read a time, epoch seconds; a time of day is the latest that has been, a duration is so long ago."""
    now = time.time()
    if text == "now":
        return int(now)
    if ago := duration(text):
        return int(now) - ago
    today = datetime.fromtimestamp(now, zone())
    try:
        if re.fullmatch(r"\d?\d:\d\d(:\d\d)?", text):
            hour, minute, *second = (int(part) for part in text.split(":"))
            found = today.replace(hour=hour, minute=minute, second=second[0] if second else 0, microsecond=0)
            return int((found if found <= today else found - timedelta(days=1)).timestamp())
        written = datetime.fromisoformat(text)
        return int((written if written.tzinfo else written.replace(tzinfo=zone())).timestamp())
    except (ValueError, OverflowError):
        return None


def shown(at: float | None) -> str:
    """Show a time, epoch seconds, to the second and with its zone; "-" where there is none."""
    if at is None:
        return "-"
    found = datetime.fromtimestamp(at, UTC)
    if zone() is UTC:
        return found.strftime("%Y-%m-%d %H:%M:%SZ")
    return found.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
