"""Shell. Commands for who sets it up: `check`, `grants`."""

import sys
from typing import TYPE_CHECKING

import click

from shipper.cli import options

if TYPE_CHECKING:
    from shipper.check import Finding


@click.command(short_help="Check configuration, sources and Carbon.")
@options.configured
@click.option("--offline", is_flag=True, help="Look at the file only; connect nowhere.")
def check(file: str, *, offline: bool) -> None:
    """Check the configuration, the sources and Carbon; print what carbon must be configured with."""
    from shipper.check import Finding, carbon_rules, findings
    from shipper.config import load

    config = load(file, with_credentials=not offline)
    _say(Finding(is_good=True, text=f"{file}: jobs: {len(config.jobs)}"))
    bad = 0
    for finding in () if offline else findings(config):
        _say(finding)
        bad += not finding.is_good
    click.echo(f"\n{carbon_rules(config)}", nl=False)
    sys.exit(1 if bad else 0)


@click.command(short_help="What databases' users must be granted.")
@options.configured
@click.option("--host", default="%", show_default=True, help="From where a MySQL account may connect.")
def grants(file: str, host: str) -> None:
    """Print what the sources' users must be granted, as SQL for an administrator to paste."""
    from shipper.config import load
    from shipper.source.grants import grants as grants_of

    config = load(file)
    for name in config.sources:
        access = config.access(name)
        queries = [job.query for job in config.jobs.values() if job.source == name]
        click.echo(f"-- source {name}: {access}")
        for statement in grants_of(access, queries, host=host):
            click.echo(statement)


def _say(finding: "Finding") -> None:
    mark = click.style("✓", fg="green") if finding.is_good else click.style("✗", fg="red")
    click.echo(f"{mark} {finding.text}")
    if finding.remedy:
        click.echo(f"    {finding.remedy}")
