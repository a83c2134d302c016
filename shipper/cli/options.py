"""Options of several commands, and times as people write and read them: local, or UTC with `--utc`."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import click

from shipper.core import durations


def _jobs(context: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the configured jobs that begin with a word: quickly, without checks, and despite errors in the files."""
    import tomllib
    from contextlib import suppress
    from pathlib import Path

    from shipper.config.files import UnreadableError, read_text

    names: list[str] = []
    file = Path(context.params["file"])
    for path in (file, *file.parent.glob("conf.d/*.toml")):
        with suppress(UnreadableError, ValueError, AttributeError, RecursionError):
            for name, job in tomllib.loads(read_text(path)).get("job", {}).items():
                several = job.get("source")
                names += [name, *(f"{name}@{one}" for one in several)] if isinstance(several, list) else [name]
    return sorted(name for name in names if name.startswith(incomplete))


_UTC = "shipper.utc"


def keep_utc(context: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    """Store whether times are UTC."""
    context.meta[_UTC] = value


Decorator = Callable[[Callable[..., None]], Callable[..., None]]

configured: Decorator = click.option(
    "--config",
    "file",
    default="/etc/shipper/shipper.toml",
    show_default=True,
    envvar="SHIPPER_CONFIG",
    type=click.Path(),
    metavar="FILE",
    help="Configuration file.",
)
logging: Decorator = click.option(
    "--log-format",
    type=click.Choice(["logfmt", "json"]),
    default="logfmt",
    show_default=True,
    envvar="SHIPPER_LOG_FORMAT",
    help="Format of the log.",
)
output: Decorator = click.option(
    "-o", "output", type=click.Choice(["table", "json"]), default="table", help="Output format."
)
utc: Decorator = click.option(
    "--utc",
    is_flag=True,
    is_eager=True,  # before the times that depend on it
    expose_value=False,
    callback=keep_utc,
    help="Read and show times in UTC instead of local time.",
)
yes: Decorator = click.option("--yes", "-y", "is_sure", is_flag=True, help="Do not ask for confirmation.")
job: Decorator = click.argument("job", shell_complete=_jobs)
jobs: Decorator = click.argument("jobs", nargs=-1, metavar="[JOB]...", shell_complete=_jobs)
some_jobs: Decorator = click.argument("jobs", nargs=-1, required=True, metavar="JOB...", shell_complete=_jobs)


def limit(default: int, text: str, *, least: int = 0) -> Decorator:
    """Return the option that limits how much is shown."""
    number = click.IntRange(least)
    return click.option("--limit", type=number, default=default, show_default=True, metavar="N", help=text)


def command(
    short_help: str, *, name: str | None = None, epilog: str | None = None, has_output: bool = False
) -> Callable[[Callable[..., None]], click.Command]:
    """Return the decorator of a command with the option --config, and with -o if it may print JSON."""

    def decorate(function: Callable[..., None]) -> click.Command:
        function = configured(output(function) if has_output else function)
        return click.command(name, short_help=short_help, epilog=epilog)(function)

    return decorate


AHEAD = timedelta(hours=1)
"""How far ahead a time of day may be: at 06:10, "--until 07:00" is not the one of yesterday."""
TIMES = "06:15, '2026-11-23 06:15', 2026-11-23T06:15Z, now, or how long ago: 2h."
TIME_HELP = f"TIME is {TIMES}"
_TIME_OF_DAY = re.compile(r"\d?\d:\d\d(?::\d\d)?")


def zone() -> tzinfo | None:
    """Return the time zone of this command; None for the machine's."""
    context = click.get_current_context(silent=True)
    return UTC if context is not None and context.meta.get(_UTC) else None


def duration(text: str) -> int:
    """Return a duration in seconds. The type of an option."""
    seconds = durations.parse(text)
    if seconds is None:
        raise click.BadParameter(f"{text!r} is not a duration: write 90s, 15m, 2h, 1d or 1h30m.")
    return seconds


def instant(text: str) -> int:
    """Return a time, epoch seconds; a duration counts back from now.

    A time of day is its last occurrence, or the next one if that is at most AHEAD away. The type of an option.
    """
    now = time.time()
    if text == "now":
        return int(now)
    if ago := durations.parse(text):
        if ago > now:
            raise click.BadParameter(f"{text!r} is before 1970.")
        return int(now) - ago
    try:
        if not _TIME_OF_DAY.fullmatch(text):
            return int(_exact(text).timestamp())
        today, form = datetime.fromtimestamp(now, zone()), "%H:%M:%S" if text.count(":") > 1 else "%H:%M"
        moment = datetime.combine(today, datetime.strptime(text, form).time(), zone())  # noqa: DTZ007 - combine adds the zone
        if moment.timestamp() > now + AHEAD.total_seconds():
            moment -= timedelta(days=1)
        elif moment.timestamp() <= now - timedelta(days=1).total_seconds() + AHEAD.total_seconds():
            moment += timedelta(days=1)  # just before midnight, a time just after it
        return int(moment.timestamp())
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{text!r} is not a time: write {TIMES}") from error


def _exact(text: str) -> datetime:
    """Return a time with a date, also in the form that is printed, with the name of a time zone."""
    plain, _, name = text.rpartition(" ")
    if name == "UTC":
        return datetime.fromisoformat(f"{plain}Z")
    if name.isalpha():  # twice a year, the name tells which of two hours
        both = (datetime.fromisoformat(plain).replace(fold=fold).astimezone() for fold in (0, 1))
        if (named := next((one for one in both if one.tzname() == name), None)) is None:
            raise ValueError(f"no time zone {name}")
        return named
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=zone())


def moment(*names: str, text: str, **settings: Any) -> Decorator:
    """Return an option for a time."""
    return click.option(*names, type=instant, metavar="TIME", help=text, **settings)


def format_time(at: float | None) -> str:
    """Return a time, epoch seconds, to the second and with its zone; "-" for None."""
    if at is None:
        return "-"
    try:
        moment = datetime.fromtimestamp(at, UTC)
    except (OverflowError, ValueError, OSError):  # after the year 9999
        return str(at)
    if zone() is UTC:
        return moment.strftime("%Y-%m-%d %H:%M:%SZ")
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
