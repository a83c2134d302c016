"""Commands that verify Graphite: `reconcile`, `doctor`, `audit`."""

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from shipper.cli import options
from shipper.cli.confirm import BACKFILL, perform
from shipper.cli.options import duration, format_time
from shipper.cli.output import complain, mark, say, show_json, table
from shipper.cli.service import address_of
from shipper.core.errors import NotRunning, ShipperError

if TYPE_CHECKING:
    from shipper.core.verify.reconcile import Comparison, Difference
    from shipper.runtime.comparer import Reconciled

REASONS = {
    "not_whole": "begin before the job's first complete slot, or its last reset; they can be compared after "
    "a `shipper backfill`, which lowers values whose rows are gone",
    "incomplete": "are not complete yet",
    "too_old": "are older than the retention of Graphite",
    "pruned": "are so old that the state does not know their ids any more",
    "cut": "lie where one archive ends and the next begins: they can be compared later",
    "other_step": "are stored by Graphite in longer steps than `retentions` says: run `shipper admin doctor`",
}
LEFT = "{} values still differ"
UNCHANGED = "; shipper keeps values whose rows may be purged, and a max or min whose rows were deleted"
MOSTLY_LEFT_OUT = 4
AUDIT_SECONDS = 7 * 86_400.0  # an audit of large tables, with a small share of the time


@options.command("Compare the sources with Graphite.", epilog=options.TIME_HELP, has_output=True)
@options.utc
@options.moment("--from", "start", text="Start, its slot included; default: a day before the end.")
@options.moment("--until", "end", text="End, not included; default: the end of the last complete slot.")
@options.limit(50, "Maximum differences to show.")
@click.option("--fix", is_flag=True, help="Recount slots that differ, and send them.")
@options.yes
@options.jobs
def reconcile(
    file: str,
    output: str,
    jobs: tuple[str, ...],
    *,
    start: int | None,
    end: int | None,
    limit: int,
    fix: bool,
    is_sure: bool,
) -> None:
    """Compare the rows of the sources with the values in Graphite, slot by slot.

    Exits with 0 if they are equal, 1 if they differ, 4 if they are equal, but less than half of a job's slots could be
    compared.

    The command recounts the rows up to the captured id, and reads each series. It changes nothing without --fix.
    With --fix, exit code 0 means that they are equal now.
    """
    from shipper.config.load import load
    from shipper.runtime.comparer import reconcile as compare

    # compare
    config = load(file)
    if start is not None and end is not None and start >= end:
        raise click.UsageError(f"--from {format_time(start)} is not before --until {format_time(end)}.")
    results = list(compare(config, jobs, start, end))
    different = _different(results)
    is_half = not any(result.comparison.is_mostly_left_out for result in results)
    document = {"is_equal": not different, "is_half_compared": is_half, "jobs": list(_documents(results, limit))}
    # show
    if output != "json":
        _show(results, limit)
    for line in chain.from_iterable(map(_remarks, results)):
        say(line, err=True)
    if different > limit:
        say(f"{limit} of {different} differences are shown: --limit shows more", err=True)
    # fix, and compare the same spans again
    if fix and different:
        bad = [result for result in results if result.spans]
        fixed = [_fix(file, result, output, is_sure=is_sure) for result in bad]
        left = [list(compare(config, [result.job], *_range(result), is_recounted=True)) for result in bad]
        different = sum(map(_different, left))
        document |= {"fixed": [done for done in fixed if done], "left": different}
        reason = UNCHANGED if all(fixed) else ""
        say(LEFT.format(different) + reason if different else "source and Graphite are equal now", err=True)
    if output == "json":
        show_json(document)
    sys.exit(1 if different else 0 if is_half else MOSTLY_LEFT_OUT)


@options.command("Let the service audit its jobs now.", has_output=True)
@options.jobs
def audit(file: str, output: str, jobs: tuple[str, ...]) -> None:
    """Let the running service compare jobs with Graphite now, as it does at the times of [audit] cron.

    Exits with 0 if all jobs are equal, 1 if not. Jobs that are paused or held, or that
    were changed since their last tick, cannot be compared. The results are in
    `shipper status`.
    """
    from shipper.service.control import ask

    address = address_of(file)
    if address is None:
        raise NotRunning("run audit: no service runs", hint="Compare with `shipper reconcile`, which needs no service.")
    answer = ask(address, "audit", {"jobs": jobs}, timeout=AUDIT_SECONDS)
    if output == "json":
        show_json(answer)
    for job, outcome in answer["jobs"].items() if output == "table" else ():
        say(f"{job}: {outcome}")
    for job in answer["left_out"]:
        reason = "it is paused or held, or was changed since its last tick: see `shipper status`"
        say(f"{job}: not compared, because {reason}", err=True)
    is_equal = all(outcome == "equal" for outcome in answer["jobs"].values())
    sys.exit(0 if is_equal and not answer["left_out"] else 1)


@options.command("Test how Graphite stores series.", has_output=True)
@click.option(
    "--wait",
    type=duration,
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="Maximum wait for Carbon to create the test series.",
)
def doctor(file: str, output: str, wait: int) -> None:
    """Send a test series (a canary) to Carbon and read it back.

    Exits with 0 if this Graphite stores counts correctly. If it does not, shows what to change, and exits with 1.

    It tests whether Carbon creates series and keeps the last value of a slot that is sent again, how long it keeps
    each step, and how it combines values into coarser steps.
    """
    from shipper.config.load import load
    from shipper.diagnostics.doctor import examine

    examination = examine(load(file, with_credentials=False), wait=wait)
    if output == "json":
        show_json(
            {
                "is_right": examination.is_right,
                "series": examination.series,
                "verdicts": [verdict._asdict() for verdict in examination.verdicts],
                "sums": [sums._asdict() for sums in examination.sums],
            }
        )
    else:
        for verdict in examination.verdicts:
            say(mark(is_good=verdict.is_good), f" {verdict.text}")
            if verdict.remedy:
                say(f"    {verdict.remedy}")
    if not examination.is_right:
        say(
            "Carbon applies a changed configuration to new series only; for existing ones see deploy/monitor.md.",
            err=True,
        )
    path = examination.series.replace(".", "/")
    say(
        f"The test series stays: before you test a changed configuration, delete {path}.wsp in Carbon's Whisper "
        "directory (LOCAL_DATA_DIR in carbon.conf), on Carbon's machine.",
        err=True,
    )
    sys.exit(0 if examination.is_right else 1)


def prove(file: str, job: str, span: tuple[int, int]) -> dict[str, Any] | None:
    """Compare a span that was recounted with Graphite, and show the result on stderr; return it as JSON values.

    Return None if nothing could be compared.
    """
    from shipper.config.load import load
    from shipper.log.logger import format_utc
    from shipper.runtime.comparer import reconcile as compare

    try:
        config = load(file)
        (result,) = compare(config, [job], *span, is_recounted=True)
    except ShipperError as error:
        say(f"{job}: the new values were not compared with Graphite: {error}", err=True)
        return None
    # count slots of the finest archive: one differs if any of its series does
    comparison, step = result.comparison, config.graphite.retentions[0].step
    different = sum(part.end - part.start for part in comparison.spans) // step
    equal = comparison.compared - different
    if comparison.compared:
        say(f"{job}: {equal:,} of {comparison.compared:,} slots are equal in Graphite", err=True)
    for line in _remarks(result):
        say(line, err=True)
    if different:
        command = f"shipper reconcile {job} --from {format_utc(span[0])} --until {format_utc(span[1])}"
        say(f"  {command} shows the differences", err=True)
    return {"equal": equal, "different": different, "left_out": comparison.left_out}


def _fix(file: str, result: "Reconciled", output: str, *, is_sure: bool) -> Mapping[str, Any] | None:
    """Recount the slots of a job that differ; show an error and return None where that is not possible."""
    # slots with a value in Graphite, but without rows in the source
    strays = [(one.slot, one.step, one.path) for one in result.comparison.differences if not one.source]
    arguments = {"job": result.job, "spans": result.spans, "cleared": strays}
    try:
        return perform(file, "backfill", arguments, BACKFILL, is_json=output == "json", is_sure=is_sure)
    except ShipperError as error:
        complain(error)
        return None


def _different(results: Iterable["Reconciled"]) -> int:
    return sum(len(result.comparison.differences) for result in results)


def _range(result: "Reconciled") -> tuple[int, int]:
    return result.spans[0][0], result.spans[-1][1]


def _documents(results: Iterable["Reconciled"], limit: int) -> Iterator[dict[str, Any]]:
    for result in results:
        comparison, differences = result.comparison, sorted(result.comparison.differences)
        yield {
            "job": result.job,
            "has_begun": result.has_begun,
            "requested": comparison.requested,
            "compared": comparison.compared,
            "left_out": comparison.left_out,
            "parts": [{"from": span.start, "until": span.end, "step": step} for span, step in comparison.parts],
            "equal": comparison.equal,
            "different": len(differences),
            "purged": comparison.purged,
            "late_rows": comparison.late_rows,
            "undelivered": result.undelivered,
            "spans": [[span.start, span.end] for span in comparison.spans],
            "differences": [_document(difference) for difference in differences[:limit]],
        }
        limit -= min(limit, len(differences))


def _document(difference: "Difference") -> dict[str, Any]:
    slot, step, series, source, graphite, _ = difference
    number = source if source is None or isinstance(source, int) else float(source)
    value = graphite if graphite is None or math.isfinite(graphite) else repr(graphite)  # JSON has no infinity
    return {"slot": slot, "step": step, "series": series, "source": number, "graphite": value}


def _show(results: Sequence["Reconciled"], limit: int) -> None:
    differences = sorted(difference for result in results for difference in result.comparison.differences)[:limit]
    if differences:
        say(table(("SLOT", "SERIES", "SOURCE", "GRAPHITE", "DIFFERENCE"), [_row(one) for one in differences]))
        say()
    heads = ("JOB", "FROM", "UNTIL", "COMPARED", "EQUAL VALUES", "DIFFERENT VALUES")
    say(table(heads, [_summary(result) for result in results]))


def _row(difference: "Difference") -> tuple[str, ...]:
    slot, _, series, source, graphite, _ = difference
    shown_source = "-" if source is None else _number(float(source))
    shown_graphite = "missing" if graphite is None else _number(graphite)
    return format_time(slot), series, shown_source, shown_graphite, _number((graphite or 0.0) - float(source or 0))


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _summary(result: "Reconciled") -> tuple[str, ...]:
    comparison, parts = result.comparison, result.comparison.parts
    span = (format_time(parts[0].span.start), format_time(parts[-1].span.end)) if parts else ("-", "-")
    return result.job, *span, _share(comparison), str(comparison.equal), str(len(comparison.differences))


def _share(comparison: "Comparison") -> str:
    """Return the compared share, in slots of the finest archive."""
    return f"{comparison.compared:,} of {comparison.requested:,} slots"


def _remarks(result: "Reconciled") -> Iterator[str]:
    """Yield the limits of a comparison, a line each."""
    job, comparison = result.job, result.comparison
    if not result.has_begun:
        yield f"{job}: has not started: nothing to compare"
        return
    if comparison.is_mostly_left_out:
        yield f"{job}: compared only {_share(comparison)}"
    for reason, slots in comparison.left_out.items():
        yield f"{job}: slots not compared: {slots:,} (they {REASONS[reason]})"
    if comparison.purged:
        yield f"{job}: not compared: {comparison.purged} values whose rows are purged from the source"
    if comparison.late_rows:
        remedy = "to count them now, run `shipper backfill` for this time"
        yield f"{job}: not compared: {comparison.late_rows} late rows, which the job has yet to count; {remedy}"
    if comparison.differences and result.undelivered:
        yield f"{job}: rows of {result.undelivered} ids wait for Carbon: differences may disappear"
