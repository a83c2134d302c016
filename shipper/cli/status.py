"""Commands that show jobs: `status`, `history`, `preview`.

The status ends with its verdict and the errors, where a terminal shows them last.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from shipper.cli import options
from shipper.cli.options import format_time
from shipper.cli.output import Styled, format_place, in_json, joined, say, show_json, styled, table
from shipper.cli.service import address_of
from shipper.core import durations

if TYPE_CHECKING:
    from shipper.diagnostics.preview import Preview

NOT_RUNNING = 3
ASK_SECONDS = 30.0
WATCH_SECONDS = 2.0
INDENT = 15  # of the facts of a preview

_COLORS = {"ok": "green", "new": "yellow", "paused": "yellow", "late": "yellow", "gone": "white"}
_ENDPOINTS = ("ENDPOINT", "ADDRESS", "STATE", "LAST ANSWER")
_AUDIT_COLORS = {"equal": "green", "incomplete": "yellow"}
_AUDITS = ("AUDIT", "RESULT", "COMPARED", "DIFFERENT", "MISSING", "SURPLUS", "ENDED")
_JOBS = ("JOB", "STATE", "WATERMARK", "BEHIND", "LAG", "WAITING", "UNPROVEN", "DELIVERED", "NEXT")


def status_text(document: Mapping[str, Any]) -> Styled:
    """Return a report as text."""
    now = document["now"]
    parts = [
        "\n".join((_service(document), *_leadership(document))),
        table(_ENDPOINTS, [_endpoint(one, now) for one in document["endpoints"]]),
        f"proof: {document['evidence']}" if document["evidence"] else "",
        table(_JOBS, [_job(job, document) for job in document["jobs"]]) if document["jobs"] else "",
        joined(_audits(document), "\n"),
        "\n".join((*_rows(document), *_failures(document))),
        _verdict(document),
    ]
    return joined(filter(None, parts), "\n\n")


def exit_code(document: Mapping[str, Any]) -> int:
    """Return the exit code for a report."""
    return NOT_RUNNING if not document["is_running"] else 0 if document["is_healthy"] else 1


def _service(document: Mapping[str, Any]) -> str:
    service = f"shipper {document['version']} on {document['host']}"
    if document["user_pid"] is not None:
        user = f"process {document['user_pid']} (a single command, such as `shipper once`)"
        return f"{service}: no service runs; {user} uses the state now. This report is from the state."
    if not document["is_running"]:
        return (
            f"{service}: not running; this report is from the state and the endpoints\n"
            "    Start it: systemctl start shipper."
        )
    started, loaded = document["started_at"], document["loaded_at"]
    since = f" for {durations.show(document['now'] - started)}" if started else ""
    running = f"{service}: running{since}, process {document['pid']}"
    if document["is_standing_by"]:
        return f"{running}; stands by"
    return f"{running}; configuration loaded {format_time(loaded)}"


def _leadership(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield who leads and who stands by, a line each; nothing if the state is a file."""
    leader, now = document["leader"], document["now"]
    if leader is None:
        return
    term = f"{format_time(leader['since'])}, term {leader['term']}"
    heard = f"last heard {_ago(leader['heard_at'], now)}"
    if leader["host"] is None:
        yield f"leader: none; the last one led since {term}, {heard}"
    elif leader["is_here"]:
        yield f"leader: {leader['host']} (this process) since {term}, {heard}"
    else:
        yield f"leader: {leader['host']} since {term}, {heard}{_configuration(leader)}"
    for machine in leader["standing_by"]:
        yield f"stands by: {machine['host']}{_configuration(machine)}"


def _configuration(machine: Mapping[str, Any]) -> str:
    return (
        "; same configuration"
        if machine["has_same_configuration"]
        else "; its configuration differs from this machine's"
    )


def _endpoint(endpoint: Mapping[str, Any], now: float) -> tuple[str, ...]:
    answered = endpoint["reached_at"]
    if endpoint["failure"]:
        state = styled(endpoint["complaint"], "red")
    else:
        state = styled(endpoint["praise"], "green") if answered else styled("not reached yet", "yellow")
    return endpoint["name"], endpoint["address"], state, _ago(answered, now)


def _job(job: Mapping[str, Any], document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the row of a job, with "?" if the source does not answer, and "-" for no value yet."""
    name, now, age, state = job["job"], document["now"], job["complete_until_age"], job["state"]
    # a service that does not run has no states, except pauses, and errors found now
    is_known = document["is_running"] or job["failure"] or job["paused_since"] is not None
    state = styled(state, _COLORS.get(state, "red")) if is_known else "-"
    if job["watermark"] is None:
        return name, state, *"------", _ahead(job["next_tick"], now)
    return (
        name,
        state,
        format_place(job["watermark"], is_along=job["is_along"]),
        "?" if job["behind"] is None else durations.show(job["behind"]) if job["is_along"] else str(job["behind"]),
        "-" if age is None else durations.show(age),
        str(job["waiting"]),
        str(job["unproven"]),
        _ago(job["delivered_at"], now),
        _ahead(job["next_tick"], now),
    )


def _audits(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table of the newest audits, and when the next one begins; nothing without a schedule of audits."""
    now, audits = document["now"], [(job["job"], job["audit"]) for job in document["jobs"] if job["audit"]]
    if audits:
        yield table(_AUDITS, [_audit(name, audit, now) for name, audit in audits])
    if document["audit_since"] is not None:
        yield f"audit: running for {durations.show(now - document['audit_since'])}"
    elif document["next_audit"] is not None:
        yield f"audit: next {_ahead(document['next_audit'], now)}"


def _audit(name: str, audit: Mapping[str, Any], now: float) -> tuple[str, ...]:
    result = styled(audit["outcome"], _AUDIT_COLORS.get(audit["outcome"], "red"))
    if audit["error"] is not None:
        return name, result, *"----", _ago(audit["at"], now)
    compared = f"{audit['compared']:,} of {audit['requested']:,} slots"
    numbers = (f"{audit[number]:,}" for number in ("different", "missing", "surplus"))
    return name, result, compared, *numbers, _ago(audit["at"], now)


def _rows(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield pauses, resets, rejected rows and late rows, a line for each job."""
    for job in document["jobs"]:
        if job["paused_since"] is not None:
            since = format_time(job["paused_since"])
            yield f"{job['job']}: paused since {since}; `shipper resume {job['job']}` lets it continue where it was"
        if job["reset_at"] is not None:
            yield f"{job['job']}: reset {_ago(job['reset_at'], document['now'])}; it continues at its next tick"
        if job["rejected"]:
            rows = ", ".join(f"{reason} {rows}" for reason, rows in job["rejected"].items())
            yield f"{job['job']}: rejected rows: {rows}; see Rows are rejected in deploy/troubleshoot.md"
        if job["late_rows"]:
            yield f"{job['job']}: counted late rows of {job['table']}: {job['late_rows']}"


def _failures(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield each error once, though many jobs may share it, with its hint."""
    failures = [(job["job"], job["failure"]) for job in document["jobs"]]
    failures += [(f"audit of {job['job']}", job["audit_failure"]) for job in document["jobs"]]
    failures += [(endpoint["name"], endpoint["failure"]) for endpoint in document["endpoints"]]
    failures.append(("reload", document["rejected"]))
    by_error = {failure["error"]: (name, failure) for name, failure in failures if failure}
    for error, (name, failure) in by_error.items():
        times = failure["failures"]
        often = "once" if times == 1 else f"{times} times"
        yield f"{name}: {error}"
        yield f"    {often} since {format_time(failure['since'])}"
        if failure["hint"]:
            yield f"    {failure['hint']}"


def _verdict(document: Mapping[str, Any]) -> str:
    """Return the verdict on a service that runs; on another one, the endpoints' complaints."""
    if document["complaints"]:
        return styled(document["verdict"], "red")
    if not document["is_running"]:
        return ""
    return styled(document["verdict"], "green" if document["is_healthy"] else "yellow")


def _ago(when: float | None, now: float) -> str:
    return "-" if when is None else f"{durations.show(now - when)} ago"


def _ahead(when: float | None, now: float) -> str:
    return "-" if when is None else f"in {durations.show(when - now)}"


def _document(file: str, jobs: tuple[str, ...], *, with_totals: bool) -> Mapping[str, Any]:
    """Return the report of the service; where none runs, that of the state and the endpoints."""
    from shipper.core.errors import NotRunning
    from shipper.service.control import ask

    address = address_of(file)
    if address is not None:
        with suppress(NotRunning):  # it has just ended, or is about to start
            arguments = {"jobs": jobs, "with_totals": with_totals}
            answer: Mapping[str, Any] = ask(address, "status", arguments, timeout=ASK_SECONDS)
            return answer
    # slow to import
    from shipper.diagnostics.status import document

    return document(file, jobs)


@options.command("State of each job, and errors.", has_output=True)
@options.utc
@click.option("--watch", is_flag=True, help="Repeat every two seconds, until Ctrl-C.")
@options.jobs
def status(file: str, output: str, jobs: tuple[str, ...], *, watch: bool) -> None:
    """Show the service, its endpoints, each job's progress, and errors.

    Exits with 0 if the service is healthy, also while it stands by; 1 if it is unhealthy, or if its health is not known
    yet; 3 if it does not run. While it runs, the command reads no configuration file, unless --config names one.
    """

    def read() -> tuple[str, int]:
        report = _document(file, jobs, with_totals=output == "json")
        return in_json(report) if output == "json" else status_text(report), exit_code(report)

    text, code = read()
    say(text)
    sys.exit(_watch(read, code) if watch else code)


@options.command("Last deliveries of a job: when its watermark moved.", epilog=options.TIME_HELP, has_output=True)
@options.utc
@options.limit(20, "Maximum deliveries to show.", least=1)
@options.moment("--at", text="Deliveries around a time, and the slots around it.")
@options.job
def history(file: str, output: str, job: str, limit: int, at: int | None) -> None:
    """Show when a job's watermark last moved, newest last, with ids and datapoints.

    With --at: the deliveries before and after a time, and the slots around it.
    """
    from shipper.config.load import load_for_state
    from shipper.diagnostics.status import story

    document = story(load_for_state(file), job, limit=limit, at=at)
    if output == "json":
        show_json(document)
        return
    commits, slots = document["commits"], document["slots"]
    if commits:
        is_along = document["is_along"]
        ids = "SECONDS" if is_along else "IDS"
        say(table(("COMMITTED", "WATERMARK", ids, "DATAPOINTS"), [_commit(one, is_along=is_along) for one in commits]))
    else:
        say(f"{job}: nothing delivered yet", err=True)
    if commits and slots:
        say()
    if slots:
        say(table(("SLOT", "LENGTH", "SERIES", "ROWS", "UNPROVEN", "CHANGED"), [_slot(one) for one in slots]))
    elif at is not None:
        reason = "no rows were counted then, or [state] keep has deleted the slots"
        say(f"{job}: the state has no slots around {format_time(at)}: {reason}", err=True)


def _commit(commit: Mapping[str, Any], *, is_along: bool) -> tuple[str, ...]:
    watermark = format_place(commit["watermark"], is_along=is_along)
    return format_time(commit["committed"]), watermark, _number(commit["ids"]), _number(commit["datapoints"])


def _slot(slot: Mapping[str, int | None]) -> tuple[str, ...]:
    numbers = (_number(slot[name]) for name in ("series", "rows", "unproven"))
    return format_time(slot["slot"]), durations.show(slot["step"] or 0), *numbers, format_time(slot["changed"])


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _watch(read: Callable[[], tuple[str, int]], code: int) -> int:
    """Show reports until Ctrl-C, in a terminal each instead of the last; return the last exit code."""
    from shipper.core.errors import ShipperError

    try:
        while True:
            time.sleep(WATCH_SECONDS)
            try:
                text, code = read()
            except ShipperError as error:  # a service that is just restarting, for example
                text, code = f"{error}", 1
            click.clear()
            say("" if sys.stdout.isatty() else "\n", text)
    except KeyboardInterrupt:
        return code


@options.command("Datapoints that a job would send now.", has_output=True)
@options.utc
@options.limit(20, "Maximum datapoints to show; 0 for all.")
@options.job
def preview(file: str, output: str, limit: int, job: str) -> None:
    """Show the next step of a job: its query and plan, the datapoints, and the watermark after one chunk of new rows.

    It sends and stores nothing; a running service is not affected.
    """
    from shipper.config.load import load
    from shipper.diagnostics.preview import preview as preview_of

    config = load(file)
    previews = [preview_of(config, shard) for shard in config.named(job)]
    if output == "json":
        show_json([preview.document(limit or None) for preview in previews])
    for preview in previews if output == "table" else ():
        _show(preview, limit or None)
    say("Nothing was sent, and nothing was stored.", err=True)


def _show(preview: "Preview", limit: int | None) -> None:
    """Show a preview in the order of a capture."""
    facts = [("job", f"{preview.job} on {preview.source}"), ("window", _window(preview))]
    facts += [("event", _event(event, details)) for event, details, _ in preview.events]
    facts += [("sql", preview.sql), ("plan", str(preview.plan))]
    facts += [("rejected", f"{reason}: {rows}") for reason, rows in preview.rejected.items()]
    facts += [("name", f"{_values(group)} becomes {path}") for group, path in preview.sanitized.items()]
    if preview.deferred:
        reason = "until their slot is too old for Carbon's finer archive; then the coarser one stores them"
        facts.append(("deferred", f"{preview.deferred} datapoints wait {reason}"))
    facts += [("sends", f"{len(preview.datapoints)} datapoints")]
    for title, text in facts:
        say(f"{title:<{INDENT}}{text.replace(chr(10), chr(10) + ' ' * INDENT)}")
    lines = [(text, format_time(slot)) for text, slot in preview.datapoints[:limit]]
    say("".join(f"  {line}\n" for line in table((), lines).splitlines()), nl=False)
    if rest := len(preview.datapoints) - len(lines):
        say(f"  and {rest} more: --limit 0 shows all")
    watermark = format_place(preview.watermark, is_along=preview.is_along)
    say(f"{'new watermark':<{INDENT}}{watermark}")


def _window(preview: "Preview") -> str:
    if preview.is_along:
        upto = format_place(preview.horizon, is_along=True)
        return f"times up to {upto}, {preview.rows} {'row' if preview.rows == 1 else 'rows'}"
    if preview.window is None:
        return f"no new rows above id {preview.watermark}"
    left = preview.horizon - preview.window.upto
    rest = f"; {left} more ids up to {preview.horizon} are left" if left else ""
    return f"{preview.window}, {preview.rows} {'row' if preview.rows == 1 else 'rows'}{rest}"


def _event(event: str, details: Mapping[str, object]) -> str:
    return " ".join([event, *(f"{key}={value}" for key, value in details.items())])


def _values(values: tuple[str | None, ...]) -> str:
    return ", ".join("NULL" if value is None else repr(value) for value in values)
