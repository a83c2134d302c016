"""Commands that prove that Graphite is right: `reconcile`, `doctor`."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from shipper.cli import options
from shipper.cli.confirm import BACKFILL, perform
from shipper.cli.options import duration, format_time, instant
from shipper.cli.output import complain, show_json, show_table
from shipper.core.errors import ShipperError

if TYPE_CHECKING:
    from shipper.core.verify.reconcile import Comparison, Difference
    from shipper.diagnostics.reconcile import Reconciled

REASONS = {
    "not_whole": "are from before it has counted all rows",
    "incomplete": "are not complete yet",
    "too_old": "are older than what Graphite keeps",
    "pruned": "are so old that it is not known any more which ids they hold",
    "cut": "are cut by the end of one of Carbon's archives, where what comes late waits",
    "other_step": "are a part of a longer one in Graphite, whose steps are not the configured ones",
}
MOSTLY_LEFT_OUT = 4


@click.command(short_help="Compare the sources with what Graphite holds.")
@options.configured
@options.output
@options.utc
@click.option(
    "--from", "start", type=instant, metavar="TIME", help="From this slot on; a day before the end, if left out."
)
@click.option(
    "--until", "end", type=instant, metavar="TIME", help="Up to this time; all that is complete, if left out."
)
@click.option(
    "--limit", type=click.IntRange(min=0), default=50, show_default=True, help="How many differences to show."
)
@click.option("--fix", is_flag=True, help="Count what differs again, and send it.")
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
    """Compare what the sources hold with what Graphite holds, slot by slot: 0 when all is equal, 1 when not.

    4 when all that it compared is equal, but of some job that is less than half of the slots that were asked for.

    Rows are counted again, up to the id that is captured, and each series is asked for. It changes nothing without
    --fix; with it, 0 says that all is equal now.
    """
    from shipper.config.load import load
    from shipper.diagnostics.reconcile import reconcile as reconciled

    config = load(file)
    if start is not None and end is not None and start >= end:
        raise click.UsageError(f"--from {format_time(start)} is not before --until {format_time(end)}.")
    found = list(reconciled(config, jobs, start, end))
    different, is_half = _different(found), not any(one.comparison.is_mostly_left_out for one in found)
    document = {"is_equal": not different, "is_half_compared": is_half, "jobs": list(_documents(found, limit))}
    if output != "json":
        _show(found, limit)
    for line in chain.from_iterable(map(_talk, found)):
        click.echo(line, err=True)
    if different > limit:
        click.echo(f"{limit} of {different} differences are shown: --limit shows more", err=True)
    if fix and different:
        fixed = [_fixed(file, one, output, is_sure=is_sure) for one in found if one.spans]
        left = [list(reconciled(config, [one.job], *_around(one), waits=True)) for one in found if one.spans]
        different = sum(map(_different, left))
        document |= {"fixed": [one for one in fixed if one], "left": different}
        still = f"still different: {different}; a maximum or minimum that no row is for cannot be taken back"
        click.echo(still if different else "equal now", err=True)
    if output == "json":
        show_json(document)
    sys.exit(1 if different else 0 if is_half else MOSTLY_LEFT_OUT)


@click.command(short_help="Ask Graphite how it keeps series.")
@options.configured
@options.output
@click.option(
    "--wait",
    type=duration,
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="How long Carbon may take to make the canary's series.",
)
def doctor(file: str, output: str, wait: int) -> None:
    """Send a canary to Carbon and read it back: 0 if this Graphite keeps counts right, 1 if not, and what to do.

    It learns whether series are made, how long they are kept in which steps, and what becomes of them in coarser ones.
    """
    from shipper.config.load import load
    from shipper.diagnostics.doctor import examine

    found = examine(load(file, with_credentials=False), wait=wait)
    if output == "json":
        show_json(
            {
                "is_right": found.is_right,
                "series": found.series,
                "verdicts": [verdict._asdict() for verdict in found.verdicts],
                "sums": [sums._asdict() for sums in found.sums],
            }
        )
    else:
        for verdict in found.verdicts:
            mark = click.style("✓", fg="green") if verdict.is_good else click.style("✗", fg="red")
            click.echo(f"{mark} {verdict.text}")
            if verdict.remedy:
                click.echo(f"    {verdict.remedy}")
    if not found.is_right:
        click.echo("A series keeps what it was made with: see `Is Graphite right?` in deploy/README.md.", err=True)
    click.echo(f"The canary stays: remove {found.series.replace('.', '/')}.wsp, and it is made anew.", err=True)
    sys.exit(0 if found.is_right else 1)


def _fixed(file: str, one: "Reconciled", output: str, *, is_sure: bool) -> Mapping[str, Any] | None:
    """Count again what differs of a job; what cannot be is told, and the next job has its turn."""
    arguments = {"job": one.job, "spans": one.spans, "cleared": one.strays}
    try:
        return perform(file, "backfill", arguments, BACKFILL, is_json=output == "json", is_sure=is_sure)
    except ShipperError as error:
        complain(error)
        return None


def _different(found: Iterable["Reconciled"]) -> int:
    return sum(len(one.comparison.differences) for one in found)


def _around(one: "Reconciled") -> tuple[int, int]:
    return one.spans[0][0], one.spans[-1][1]


def _documents(found: Iterable["Reconciled"], limit: int) -> Iterator[dict[str, Any]]:
    for job, one, has_begun, undelivered in (
        (one.job, one.comparison, one.has_begun, one.undelivered) for one in found
    ):
        differences = sorted(one.differences)
        yield {
            "job": job,
            "has_begun": has_begun,
            "asked": one.asked,
            "compared": one.compared,
            "left_out": one.left_out,
            "parts": [{"from": span.start, "until": span.end, "step": step} for span, step in one.parts],
            "equal": one.equal,
            "different": len(differences),
            "purged": one.purged,
            "undelivered": undelivered,
            "spans": [[span.start, span.end] for span in one.spans],
            "differences": [_document(difference) for difference in differences[:limit]],
        }
        limit -= min(limit, len(differences))


def _document(one: "Difference") -> dict[str, Any]:
    source = one.source if one.source is None or isinstance(one.source, int) else float(one.source)
    return {"slot": one.slot, "step": one.step, "series": one.path, "source": source, "graphite": one.graphite}


def _show(found: Sequence["Reconciled"], limit: int) -> None:
    differences = sorted(difference for one in found for difference in one.comparison.differences)
    if differences[:limit]:
        show_table(("SLOT", "SERIES", "SOURCE", "GRAPHITE", "DIFFERENCE"), [_row(one) for one in differences[:limit]])
        click.echo()
    show_table(("JOB", "FROM", "UNTIL", "COMPARED", "EQUAL", "DIFFERENT"), [_summary(one) for one in found])


def _row(one: "Difference") -> tuple[str, ...]:
    source = "-" if one.source is None else _number(float(one.source))
    graphite = "missing" if one.graphite is None else _number(one.graphite)
    return format_time(one.slot), one.path, source, graphite, _number((one.graphite or 0.0) - float(one.source or 0))


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(value)


def _summary(found: "Reconciled") -> tuple[str, ...]:
    one = found.comparison
    span = (format_time(one.parts[0].span.start), format_time(one.parts[-1].span.end)) if one.parts else ("-", "-")
    return found.job, *span, _share(one), str(one.equal), str(len(one.differences))


def _share(one: "Comparison") -> str:
    """Say how much was compared, in slots of the finest archive."""
    return f"{one.compared:,} of {one.asked:,} slots"


def _talk(found: "Reconciled") -> Iterator[str]:
    """Say what is to be known of it."""
    one = found.comparison
    if not found.has_begun:
        yield f"{found.job}: has not begun: there is nothing to compare"
    elif one.is_mostly_left_out:
        yield f"{found.job}: only {_share(one)} were compared"
    for reason, slots in one.left_out.items():
        yield f"{found.job}: left out: {slots:,} slots {REASONS[reason]}"
    if one.purged:
        yield f"{found.job}: left out: {one.purged} values of a time whose rows the source no longer has"
    if one.differences and found.undelivered:
        yield f"{found.job}: rows of {found.undelivered} ids wait for Carbon: what differs may be on its way"
