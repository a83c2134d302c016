"""Commands that let jobs count otherwise than in turn: `seek`, `backfill`.

Commands about what the state has of jobs: `rename`, `forget`, `import`.

Command `reset`: an operator says what has happened to a job's table.
"""

from collections.abc import Mapping
from typing import Any

import click

from shipper.cli import options
from shipper.cli.confirm import BACKFILL, Messages, act, show_plan
from shipper.cli.options import format_time, instant


@click.command(short_help="Skip rows that a job has not counted yet.")
@options.configured
@options.output
@options.utc
@options.yes
@options.job
@click.option(
    "--to", required=True, metavar="ID|TIME|end", help="Continue after this id, with this time's slot, or at the end."
)
def seek(file: str, output: str, job: str, to: str, *, is_sure: bool) -> None:
    """Skip rows that a job has not counted yet: it never counts them.

    The slot in which the job continues is counted completely. It moves forward only; `shipper backfill` recounts.
    """
    arguments: dict[str, Any] = {"job": job}
    if to.isdecimal():
        arguments["id"] = int(to)
    elif to != "end":
        arguments["time"] = instant(to)
    act(file, "seek", arguments, Messages(_seek_plan, _moved), output=output, is_sure=is_sure)


@click.command(short_help="Count a span of time again, and send it.")
@options.configured
@options.output
@options.utc
@options.yes
@options.job
@click.option(
    "--from", "start", type=instant, required=True, metavar="TIME", help="Count whole slots from this one on."
)
@click.option("--until", "end", type=instant, required=True, metavar="TIME", help="Up to, not including, this time.")
@click.option("--rate", type=click.IntRange(min=1), help="At most so many datapoints a second, on average.")
def backfill(file: str, output: str, job: str, *, start: int, end: int, rate: int | None, is_sure: bool) -> None:
    """Count a span of time again from the source, whole slots of it, and send the totals.

    What Graphite has there is replaced. Captures go on meanwhile; ended early, the same command goes on with the rest.
    """
    if start >= end:
        raise click.UsageError(f"--from {format_time(start)} is not before --until {format_time(end)}.")
    arguments = {"job": job, "spans": [[start, end]], "rate": rate}
    act(file, "backfill", arguments, BACKFILL, output=output, is_sure=is_sure)


def _seek_plan(facts: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{facts['job']}: goes on behind id {facts['to']}; it stands at {facts['captured']}",
        f"  {facts['ids']} ids are passed: their rows are never counted",
    ]
    if facts["slot"] is not None:
        lines += [f"  slots from {format_time(facts['slot'])} on are counted whole, rows that are passed included"]
        if facts["complete_until"] is not None and facts["complete_until"] < facts["slot"]:
            lines += [f"  bars from {format_time(facts['complete_until'])} up to then stay as they are"]
    if facts["not_before"] is not None:
        lines += [f"  its next bucket begins at {format_time(facts['not_before'])}, and has all rows from then on"]
    return lines


def _moved(result: Mapping[str, Any]) -> str:
    return f"{result['job']}: goes on behind id {result['captured']}"


@click.command(short_help="Give what belongs to a job to another name.")
@options.configured
@options.output
@options.yes
@click.argument("before", metavar="OLD")
@click.argument("job", metavar="NEW")
def rename(file: str, output: str, before: str, job: str, *, is_sure: bool) -> None:
    """Give all that the state has of a job that left the configuration to a new name: it goes on as that."""
    arguments = {"before": before, "job": job}
    act(file, "rename", arguments, Messages(_rename_plan, _renamed), output=output, is_sure=is_sure)


@click.command(short_help="Drop what the state has of a job.")
@options.configured
@options.output
@options.yes
@click.argument("job")
def forget(file: str, output: str, job: str, *, is_sure: bool) -> None:
    """Drop all that the state has of a job that left the configuration; what Graphite has stays there."""
    act(file, "forget", {"job": job}, Messages(_forget_plan, _forgotten), output=output, is_sure=is_sure)


@click.command("import", short_help="Begin where an older script stood.")
@options.configured
@options.output
@options.yes
@click.argument("persisted", metavar="FILE")
@click.option("--job", "names", multiple=True, metavar="SCRIPT=JOB", help="Whose row is whose, where it is not clear.")
def import_(file: str, output: str, persisted: str, names: tuple[str, ...], *, is_sure: bool) -> None:
    """Let new jobs begin where an older script stood.

    FILE is its SQLite file with persist (scriptname, index_table, index_column, index_value).
    """
    from shipper.operations.import_legacy import read

    pairs = [name.partition("=") for name in names]
    if wrong := next((pair for pair in pairs if not (pair[0] and pair[2])), None):
        raise click.UsageError(f"--job {''.join(wrong)}: say SCRIPT=JOB.")
    arguments = {"rows": read(persisted), "names": {script: job for script, _, job in pairs}}
    act(file, "import", arguments, Messages(_import_plan, _imported), output=output, is_sure=is_sure)


def _rename_plan(facts: Mapping[str, Any]) -> list[str]:
    lines = [f"{facts['before']}: becomes {facts['job']}", _known(facts)]
    if not facts["is_configured"]:
        lines += [f"  {facts['job']} is not in the configuration: it does not run before it is"]
    if facts["dropped"] is not None:
        lines += [f"  what {facts['job']} has now is dropped:", _known(facts["dropped"])]
    return lines


def _forget_plan(facts: Mapping[str, Any]) -> list[str]:
    return [f"{facts['job']}: all that is known of it is dropped", _known(facts)]


def _import_plan(facts: Mapping[str, Any]) -> list[str]:
    return [_row(row) for row in facts["rows"]]


def _row(row: Mapping[str, Any]) -> str:
    value = "what is no id" if row["value"] is None else row["value"]
    stood = f"{row['script']} at {value} of {row['table']}.{row['column']}"
    if row["job"] is None:
        return f"{stood}: no job"
    if not row["is_new"]:
        return f"{stood}: job {row['job']} has begun already, and stays where it is"
    return f"{stood}: job {row['job']} begins behind that id, with a whole slot"


def _known(facts: Mapping[str, Any]) -> str:
    waits = f", {facts['unproven']} datapoints not proven to be in Graphite" if facts["unproven"] else ""
    where = f"{facts['source']} {facts['table']}"
    return f"  watermark {facts['watermark']}, captured {facts['captured']} of {where}{waits}"


def _renamed(result: Mapping[str, Any]) -> str:
    return f"{result['before']}: is {result['job']} from now on"


def _forgotten(result: Mapping[str, Any]) -> str:
    return f"{result['job']}: forgotten"


def _imported(result: Mapping[str, Any]) -> str:
    return "\n".join(f"{job}: begins behind id {value}" for job, value in result["jobs"].items())


_WHATS = {
    "emptied": "its rows are gone, and its ids began anew",
    "restored": "it was taken back to an earlier state, or another server took over",
    "replaced": "another table has its name now",
}


@click.command(short_help="Say what has happened to the table of a job that is held.")
@options.configured
@options.output
@options.utc
@options.yes
@options.job
@click.option("--emptied", is_flag=True, help="Its rows are gone: count all that it holds now.")
@click.option("--restored", is_flag=True, help="What it holds is counted: go on with what comes from now on.")
@click.option("--replaced", is_flag=True, help="It is another table: count all that it holds.")
def reset(file: str, output: str, job: str, *, is_sure: bool, **flags: bool) -> None:
    """Let a job go on whose table was emptied, restored or replaced. What Graphite has stays as it is.

    Without --emptied, --restored or --replaced it shows what each of them means, and changes nothing.
    """
    said = [what for what in _WHATS if flags[what]]
    which = "say one of --emptied, --restored, --replaced"
    if len(said) > 1:
        raise click.UsageError(f"{which}: not two.")
    told = Messages(_plan, _done)
    if not said:
        show_plan(file, "reset", {"job": job}, told, output=output)
        raise click.UsageError(f"{which}; nothing was changed.")
    act(file, "reset", {"job": job, "what": said[0]}, told, output=output, is_sure=is_sure)


def _plan(facts: Mapping[str, Any]) -> list[str]:
    job = facts["job"]
    if facts["is_held"]:
        lines = [f"{job}: is held, because its table {facts['table']} went back: {facts['reason']}"]
    else:
        lines = [f"{job}: is not held; nothing says that its table {facts['table']} went back"]
    lines += [f"  the table holds {_held(facts)}"]
    complete = f", complete until {format_time(facts['complete_until'])}" if facts["complete_until"] is not None else ""
    lines += [f"  the job has counted ids up to {facts['captured']}{complete}"]
    if facts["known"]:
        lines += [f"  of the newest {facts['known']} rows up to there the table holds {facts['known_again']}"]
    if facts["known_again"] and facts["is_held"]:
        lines += ["  rows that are counted are there: --emptied and --replaced would count them twice"]
    for choice in facts["choices"]:
        lines += [f"--{choice['what']}: {_WHATS[choice['what']]}"]
        lines += [f"  {line}" for line in _meaning(choice, facts)]
    return [
        *lines,
        "What Graphite has stays as it is.",
        f"`shipper backfill {job}` makes it show the table as it is now, for a span of time.",
    ]


def _held(facts: Mapping[str, Any]) -> str:
    if not facts["largest"]:
        return "no rows"
    ids = f"ids {facts['first']} to {facts['largest']}"
    if facts["first_time"] is None and facts["largest_time"] is None:
        return ids
    first, newest = (format_time(facts[name]) for name in ("first_time", "largest_time"))
    return f"{ids}; the first row is of {first}, the newest of {newest}"


def _meaning(choice: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Say what follows from an answer."""
    captured, first, largest = facts["captured"], facts["first"], facts["largest"]
    if choice["is_refused"]:
        return [f"refused: rows up to id {captured} are counted, and would be counted twice"]
    if choice["what"] == "restored":
        lines = [f"ids up to {largest} count as counted: only rows that come from now on are counted"]
        passed = f"ids {captured + 1} to {largest} are passed: their rows are never counted"
        return [*lines, passed] if choice["passed"] else lines
    lines = ["all rows that come are counted"]
    if choice["ids"]:
        lines = [
            f"all that the table holds is counted and added: ids {first} to {largest}, {choice['ids']} rows at most"
        ]
    if choice["unaccounted"]:
        between = f"ids {captured + 1} to {first - 1} are in neither"
        lines += [f"{between}: up to {choice['unaccounted']} rows of the other table may not be counted"]
    return lines


def _done(result: Mapping[str, Any]) -> str:
    return f"{result['job']}: goes on behind id {result['captured']} with its next tick"
