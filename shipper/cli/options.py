"""Shell. Options that several commands have in common."""

from collections.abc import Callable

import click

from shipper.cli.times import keep_utc

Decorator = Callable[[Callable[..., None]], Callable[..., None]]

configured: Decorator = click.option(
    "--config",
    "file",
    default="/etc/shipper/shipper.toml",
    show_default=True,
    envvar="SHIPPER_CONFIG",
    metavar="FILE",
    help="The configuration.",
)
logging: Decorator = click.option(
    "--log-format",
    type=click.Choice(["logfmt", "json"]),
    default="logfmt",
    show_default=True,
    envvar="SHIPPER_LOG_FORMAT",
    help="How a line of the log is written.",
)
output: Decorator = click.option(
    "-o", "output", type=click.Choice(["table", "json"]), default="table", help="How to show it."
)
utc: Decorator = click.option(
    "--utc",
    is_flag=True,
    is_eager=True,  # before the times that it decides about
    expose_value=False,
    callback=keep_utc,
    help="Read and show times as UTC, not as local ones.",
)
yes: Decorator = click.option("--yes", "-y", "is_sure", is_flag=True, help="Do it without asking.")
