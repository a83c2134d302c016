"""Commands that tell how jobs do and did: `status`, `history`.

The report as a terminal shows it: who runs, the ends, the jobs, and last, where one looks, what is wrong.

A command that tries a job: `preview`.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from shipper.cli import options
from shipper.cli.options import format_time, instant
from shipper.cli.output import in_json, show_json, show_table, table
from shipper.core import durations

_COLORS = {"ok": "green", "new": "yellow", "late": "yellow", "gone": "white"}
_ENDS = ("END", "ADDRESS", "STATE", "REACHED")
_JOBS = ("JOB", "STATE", "WATERMARK", "BEHIND", "LAG", "WAITING", "UNPROVEN", "DELIVERED", "NEXT")


def status_text(document: Mapping[str, Any]) -> str:
    """Return the whole of it."""
    now = document["now"]
    parts = [
        _service(document),
        table(_ENDS, [_end(end, now) for end in document["endpoints"]]),
        f"proof: {document['evidence']}" if document["evidence"] else "",
        table(_JOBS, [_job(job, document) for job in document["jobs"]]),
        "\n".join((*_rows_aside(document), *_troubles(document))),
        _verdict(document),
    ]
    return "\n\n".join(part for part in parts if part)


def _service(document: Mapping[str, Any]) -> str:
    who = f"shipper {document['version']} on {document['host']}"
    if not document["is_running"]:
        return f"{who}: not running; this is what its state and its ends tell"
    started, loaded = document["started_at"], document["loaded_at"]
    since = f" for {durations.show(document['now'] - started)}" if started else ""
    return f"{who}: running{since}, process {document['pid']}; configuration loaded {format_time(loaded)}"


def _end(end: Mapping[str, Any], now: float) -> tuple[str, ...]:
    if end["failure"]:
        state = click.style(end["complaint"], fg="red")
    else:
        state = click.style("answers", fg="green") if end["reached_at"] else click.style("not reached yet", fg="yellow")
    return end["name"], end["address"], state, _ago(end["reached_at"], now)


def _job(job: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the row of a job; "?" where the source does not answer, "-" where there is nothing yet."""
    name, now, age, state = job["job"], document["now"], job["complete_until_age"], job["state"]
    # what does not run is in no state, unless it could not
    state = click.style(state, fg=_COLORS.get(state, "red")) if document["is_running"] or job["failure"] else "-"
    if job["watermark"] is None:
        return name, state, *"------", _ahead(job["next_tick"], now)
    return (
        name,
        state,
        str(job["watermark"]),
        "?" if job["behind"] is None else str(job["behind"]),
        "-" if age is None else durations.show(age),
        str(job["waiting"]),
        str(job["unproven"]),
        _ago(job["delivered_at"], now),
        _ahead(job["next_tick"], now),
    )


def _rows_aside(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield which rows are not where one would look for them."""
    for job in document["jobs"]:
        if job["rejected"]:
            rows = ", ".join(f"{reason} {rows}" for reason, rows in job["rejected"].items())
            yield f"{job['job']}: rows that Graphite cannot show: {rows}"
        if job["late_rows"]:
            yield f"{job['job']}: rows of {job['table']} that came late, and are counted: {job['late_rows']}"


def _troubles(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield what fails, once, though it fails for many jobs, with its remedy."""
    found = [(job["job"], job["failure"]) for job in document["jobs"]]
    found += [(end["name"], end["failure"]) for end in document["endpoints"]]
    told = {trouble["error"]: (name, trouble) for name, trouble in found if trouble}
    for error, (name, trouble) in told.items():
        times = trouble["failures"]
        often = "once" if times == 1 else f"{times} times"
        yield f"{name}: {error}"
        yield f"    {often} since {format_time(trouble['since'])}"
        if trouble["hint"]:
            yield f"    {trouble['hint']}"


def _verdict(document: Mapping[str, Any]) -> str:
    if document["complaints"]:
        return click.style(f"unhealthy: {'; '.join(document['complaints'])}", fg="red")
    return click.style("healthy", fg="green") if document["is_running"] else ""


def _ago(when: float | None, now: float) -> str:
    return "-" if when is None else f"{durations.show(now - when)} ago"


def _ahead(when: float | None, now: float) -> str:
    return "-" if when is None else f"in {durations.show(when - now)}"


NOT_RUNNING = 3
WATCH_SECONDS = 2.0


@click.command(short_help="How each job does, and what fails.")
@options.configured
@options.output
@options.utc
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@options.jobs
def status(file: str, output: str, jobs: tuple[str, ...], *, watch: bool) -> None:
    """Show what runs, how far each job is, and what fails: 0 when all is well, 1 when not, 3 when it does not run."""
    from shipper.cli.status import status_text
    from shipper.config.load import load
    from shipper.diagnostics.status import document

    config = load(file, with_credentials=False)

    def look() -> tuple[str, int]:
        told = document(config, jobs)
        code = NOT_RUNNING if not told["is_running"] else 1 if told["complaints"] else 0
        return in_json(told) if output == "json" else status_text(told), code

    text, code = look()
    click.echo(text)
    sys.exit(_watched(look, code) if watch else code)


@click.command(short_help="The last commits of a job's watermark.")
@options.configured
@options.output
@options.utc
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many to show.")
@click.option("--at", type=instant, metavar="TIME", help="Those around a time, and what the state holds for it.")
@options.job
def history(file: str, output: str, job: str, limit: int, at: int | None) -> None:
    """Show the last commits of a job's watermark, the newest last: when, and how far it moved.

    With --at those before and after a time, and the slots around it: what happened at 06:15?
    """
    from shipper.config.load import load
    from shipper.diagnostics.status import story

    told = story(load(file, with_credentials=False), job, limit=limit, at=at)
    if output == "json":
        show_json(told)
        return
    commits, slots = told["commits"], told["slots"]
    if commits:
        show_table(("COMMITTED", "WATERMARK", "IDS", "DATAPOINTS"), [_commit(one) for one in commits])
    else:
        click.echo(f"{job}: no watermark was committed after a delivery yet", err=True)
    if commits and slots:
        click.echo()
    if slots:
        show_table(("SLOT", "LENGTH", "SERIES", "ROWS", "UNPROVEN", "CHANGED"), [_slot(one) for one in slots])
    elif at is not None:
        click.echo(
            f"{job}: the state holds nothing for {format_time(at)}: never counted, or delivered and forgotten", err=True
        )


def _commit(commit: Mapping[str, int | None]) -> tuple[str, ...]:
    return format_time(commit["committed"]), *(_number(commit[name]) for name in ("watermark", "ids", "datapoints"))


def _slot(slot: Mapping[str, int | None]) -> tuple[str, ...]:
    numbers = (_number(slot[name]) for name in ("series", "rows", "unproven"))
    return format_time(slot["slot"]), durations.show(slot["step"] or 0), *numbers, format_time(slot["changed"])


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _watched(look: Callable[[], tuple[str, int]], code: int) -> int:
    """Look again and again; return the last exit code. In a terminal each look takes the place of the one before."""
    from shipper.core.errors import ShipperError

    try:
        while True:
            time.sleep(WATCH_SECONDS)
            try:
                text, code = look()
            except ShipperError as error:  # as a service that is just being restarted
                text, code = f"{error}", 1
            click.clear()
            click.echo(text if sys.stdout.isatty() else f"\n{text}")
    except KeyboardInterrupt:
        return code


if TYPE_CHECKING:
    from shipper.diagnostics.preview import Preview


@click.command(short_help="What a job would send now.")
@options.configured
@options.output
@options.utc
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="Lines to show; 0 is all of them.")
@options.job
def preview(file: str, output: str, limit: int, job: str) -> None:
    """Show what a job would do now, with one chunk of what is new: its statement and plan, the lines, the watermark.

    Nothing is sent, and nothing is stored; a service that runs does not notice.
    """
    from shipper.config.load import load
    from shipper.diagnostics.preview import preview as preview_of

    config = load(file)
    previews = [preview_of(config, one) for one in config.named(job)]
    if output == "json":
        show_json([one.document(limit or None) for one in previews])
    for one in previews if output == "table" else ():
        _show(one, limit or None)
    click.echo("Nothing was sent, and nothing was stored.", err=True)


def _show(found: "Preview", limit: int | None) -> None:
    """Show it in the order in which it came about."""
    told = [("job", f"{found.job} on {found.source}"), ("window", _window(found))]
    told += [("noticed", _noticed(event, details)) for event, details, _ in found.noticed]
    told += [("sql", found.sql), ("plan", str(found.plan))]
    told += [("rejected", f"{reason}: rows: {rows}") for reason, rows in found.rejected.items()]
    told += [("name", f"{_raw(one.values)} is {one.path}") for one in found.sanitized]
    if found.deferred:
        told.append(("deferred", f"{found.deferred} datapoints wait until their archive may receive them"))
    told += [("lines", str(len(found.datapoints)))]
    for title, text in told:
        click.echo(f"{title:<10}{text.replace(chr(10), chr(10) + ' ' * 10)}")
    lines = [(one.line, format_time(one.slot)) for one in found.datapoints[:limit]]
    click.echo("".join(f"  {line}\n" for line in table((), lines).splitlines()), nl=False)
    if rest := len(found.datapoints) - len(lines):
        click.echo(f"  and {rest} more: --limit 0 shows all")
    click.echo(f"{'watermark':<10}{found.watermark}")


def _window(found: "Preview") -> str:
    if found.window is None:
        return f"no id above {found.watermark} yet"
    left = found.horizon - found.window.upto
    return f"ids {found.window}, rows: {found.rows}" + (
        f"; {left} more ids up to {found.horizon} are left" if left else ""
    )


def _noticed(event: str, details: Mapping[str, object]) -> str:
    return " ".join([event, *(f"{key}={value}" for key, value in details.items())])


def _raw(values: tuple[str | None, ...]) -> str:
    return ", ".join("NULL" if value is None else repr(value) for value in values)
