"""Shell. Commands that tell how jobs do: `status`."""

import sys

import click

from shipper.cli import options
from shipper.cli.output import show_json, show_table

NOT_RUNNING = 3


@click.command(short_help="How each job does, and what fails.")
@options.configured
@options.output
def status(file: str, output: str) -> None:
    """Show how each job does, and what fails; 3 when no daemon is running."""
    from shipper.config import load
    from shipper.status import document, rows, troubles

    told = document(load(file, with_credentials=False))
    if output == "json":
        show_json(told)
    else:
        table = rows(told)
        show_table([field.replace("_", " ").upper() for field in table[0]._fields], table)
        for line in troubles(told):
            click.echo(line, err=True)
        click.echo(f"running, process {told['pid']}" if told["is_running"] else "not running", err=True)
    sys.exit(0 if told["is_running"] else NOT_RUNNING)
