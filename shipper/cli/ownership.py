"""Commands about what the state has of jobs: `rename`, `forget`, `import`."""

from collections.abc import Mapping
from typing import Any

import click

from shipper.cli import options
from shipper.cli.confirm import Told, act


@click.command(short_help="Give what belongs to a job to another name.")
@options.configured
@options.output
@options.yes
@click.argument("before", metavar="OLD")
@click.argument("job", metavar="NEW")
def rename(file: str, output: str, before: str, job: str, *, is_sure: bool) -> None:
    """Give all that the state has of a job that left the configuration to a new name: it goes on as that."""
    arguments = {"before": before, "job": job}
    act(file, "rename", arguments, Told(_rename_plan, _renamed), output=output, is_sure=is_sure)


@click.command(short_help="Drop what the state has of a job.")
@options.configured
@options.output
@options.yes
@click.argument("job")
def forget(file: str, output: str, job: str, *, is_sure: bool) -> None:
    """Drop all that the state has of a job that left the configuration; what Graphite has stays there."""
    act(file, "forget", {"job": job}, Told(_forget_plan, _forgotten), output=output, is_sure=is_sure)


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
    act(file, "import", arguments, Told(_import_plan, _imported), output=output, is_sure=is_sure)


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
