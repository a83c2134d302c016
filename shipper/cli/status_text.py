"""The report as a terminal shows it: who runs, the ends, the jobs, and last, where one looks, what is wrong."""

from collections.abc import Iterator, Mapping
from typing import Any

import click

from shipper.cli.output import table
from shipper.cli.times import lasting, shown
from shipper.diagnostics.status import complaints

_COLORS = {"ok": "green", "new": "yellow", "late": "yellow", "gone": "white"}
_ENDS = ("END", "ADDRESS", "STATE", "REACHED")
_JOBS = ("JOB", "STATE", "WATERMARK", "BEHIND", "LAG", "WAITING", "UNPROVEN", "DELIVERED", "NEXT")


def status_text(document: Mapping[str, Any]) -> str:
    """Return the whole of it."""
    now = document["now"]
    parts = [
        _service(document),
        table(_ENDS, [_end(end, now) for end in document["ends"]]),
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
    since = f" for {lasting(document['now'] - started)}" if started else ""
    return f"{who}: running{since}, process {document['pid']}; configuration loaded {shown(loaded)}"


def _end(end: Mapping[str, Any], now: float) -> tuple[str, ...]:
    if end["trouble"]:
        state = click.style(end["complaint"], fg="red")
    else:
        state = click.style("answers", fg="green") if end["reached_at"] else click.style("not reached yet", fg="yellow")
    return end["name"], end["address"], state, _ago(end["reached_at"], now)


def _job(job: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the row of a job; "?" where the source does not answer, "-" where there is nothing yet."""
    name, now, age, state = job["job"], document["now"], job["complete_until_age"], job["state"]
    # what does not run is in no state, unless it could not
    state = click.style(state, fg=_COLORS.get(state, "red")) if document["is_running"] or job["trouble"] else "-"
    if job["watermark"] is None:
        return name, state, *"------", _ahead(job["next_tick"], now)
    return (
        name,
        state,
        str(job["watermark"]),
        "?" if job["behind"] is None else str(job["behind"]),
        "-" if age is None else lasting(age),
        str(job["waiting"]),
        str(job["unproven"]),
        _ago(job["delivered_at"], now),
        _ahead(job["next_tick"], now),
    )


def _rows_aside(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield which rows are not where one would look for them."""
    for job in document["jobs"]:
        if job["unshown"]:
            rows = ", ".join(f"{cause} {rows}" for cause, rows in job["unshown"].items())
            yield f"{job['job']}: rows that Graphite cannot show: {rows}"
        if job["late_rows"]:
            yield f"{job['job']}: rows of {job['table']} that came late, and are counted: {job['late_rows']}"


def _troubles(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield what fails, once, though it fails for many jobs, with its remedy."""
    found = [(job["job"], job["trouble"]) for job in document["jobs"]]
    found += [(end["name"], end["trouble"]) for end in document["ends"]]
    told = {trouble["error"]: (name, trouble) for name, trouble in found if trouble}
    for error, (name, trouble) in told.items():
        times = trouble["failures"]
        often = "once" if times == 1 else f"{times} times"
        yield f"{name}: {error}"
        yield f"    {often} since {shown(trouble['since'])}"
        if trouble["hint"]:
            yield f"    {trouble['hint']}"


def _verdict(document: Mapping[str, Any]) -> str:
    wrong = complaints(document)
    if wrong:
        return click.style(f"not well: {'; '.join(wrong)}", fg="red")
    return click.style("all is well", fg="green") if document["is_running"] else ""


def _ago(when: float | None, now: float) -> str:
    return "-" if when is None else f"{lasting(now - when)} ago"


def _ahead(when: float | None, now: float) -> str:
    return "-" if when is None else f"in {lasting(when - now)}"
