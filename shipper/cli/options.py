"""Shell. Options that several commands have in common."""

from collections.abc import Callable

import click

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
