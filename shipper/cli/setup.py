"""Commands for who sets it up: `check`, `grants`, `carbon-conf`."""

import sys
from itertools import chain
from typing import TYPE_CHECKING

import click

from shipper.cli import options
from shipper.cli.output import show_json, show_table

if TYPE_CHECKING:
    from shipper.diagnostics.carbon_conf import Diff
    from shipper.diagnostics.check import Finding


@click.command(short_help="Check configuration, sources and Carbon.")
@options.configured
@options.output
@click.option("--offline", is_flag=True, help="Look at the file only; connect nowhere.")
def check(file: str, output: str, *, offline: bool) -> None:
    """Check the configuration, the state, the sources with the queries of their jobs, and Carbon.

    All is looked at in one run, and each ✗ is followed by its remedy. 1 where there is one.
    """
    from shipper.config.load import load
    from shipper.diagnostics.check import Finding, findings

    config = load(file, with_credentials=not offline)
    found = []
    for finding in chain([Finding(True, file, f"jobs: {len(config.jobs)}")], () if offline else findings(config)):
        found.append(finding)
        if output == "table":
            _say(finding)
    bad = sum(not finding.is_good for finding in found)
    if output == "json":
        show_json({"is_good": not bad, "findings": [finding._asdict() for finding in found]})
    click.echo(f"✗: {bad}" if bad else "What carbon must be configured with: shipper carbon-conf", err=True)
    sys.exit(1 if bad else 0)


@click.command(short_help="What databases' users must be granted.")
@options.configured
@click.option("--host", default="%", show_default=True, help="From where a MySQL account may connect.")
def grants(file: str, host: str) -> None:
    """Print what the sources' users must be granted, as SQL for an administrator to paste."""
    from shipper.config.load import load
    from shipper.source.grants import grants as grants_of

    config = load(file)
    for name in config.sources:
        access = config.access(name)
        queries = [job.query for job in config.jobs.values() if job.source == name]
        click.echo(f"-- source {name}: {access}")
        for statement in grants_of(access, queries, host=host):
            click.echo(statement)


@click.command(short_help="What carbon must be configured with.")
@options.configured
@options.output
@click.option(
    "--diff",
    "files",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="One of carbon's: is it right? Several times, too.",
)
def carbon_conf(file: str, output: str, files: tuple[str, ...]) -> None:
    """Print what carbon must have in its configuration for these series, to paste.

    With --diff, say which stanza of carbon's storage-schemas.conf, storage-aggregation.conf or carbon.conf decides for
    each path, and whether it is right; 1 where it is not, with what to write.
    """
    from shipper.config.load import load
    from shipper.diagnostics.carbon_conf import diff, rules, stanzas

    config = load(file, with_credentials=False)
    diffs = [diff(config, one) for one in files]
    if output == "json":
        wanted = {name: [stanza._asdict() for stanza in found] for name, found in stanzas(config).items()}
        show_json([_document(one) for one in diffs] if files else wanted)
    elif not files:
        click.echo(rules(config), nl=False)
    for one in diffs if output == "table" else ():
        _show_diff(one)
    sys.exit(0 if all(one.is_good for one in diffs) else 1)


def _document(found: "Diff") -> dict[str, object]:
    return {**found._asdict(), "is_good": found.is_good, "verdicts": [verdict._asdict() for verdict in found.verdicts]}


def _show_diff(found: "Diff") -> None:
    click.echo(f"{found.file}:")
    rows = [(_mark(is_good=one.is_good), one.path, one.stanza or "-", one.says, one.wanted) for one in found.verdicts]
    show_table(["", "PATH", "STANZA", "SAYS", "WANTED"], rows)
    click.echo(f"\n{found.write}" if found.write else "")


def _say(finding: "Finding") -> None:
    click.echo(f"{_mark(is_good=finding.is_good)} {finding.subject}: {finding.text}")
    for line in finding.remedy.splitlines():
        click.echo(f"    {line}")


def _mark(*, is_good: bool) -> str:
    return click.style("✓", fg="green") if is_good else click.style("✗", fg="red")
