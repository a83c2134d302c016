"""The commands: arguments, output, exit codes.

Exit codes: 0 well, 1 failed or not as it should be, 2 usage, 3 not running, 4 equal, but hardly compared, 78
configuration (EX_CONFIG). Results go to stdout, talk to stderr. A file a purpose; commands import what they need when
they run, so that `--help` is quick.
"""

import gc
import os
from typing import Any

import click

from shipper.cli import about, change, run, setup, status, verify
from shipper.cli.output import complain
from shipper.core.errors import ConfigError, NotRunning, ShipperError

# A start makes a hundred thousand objects that stay; to look through them again and again takes a sixth of its time.
gc.set_threshold(50_000, 20, 20)

EX_CONFIG = 78
NOT_RUNNING = 3

SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Run": (run.run, run.once, run.reload, run.demo),
    "Look": (status.status, status.history, status.preview),
    "Prove": (verify.reconcile, verify.doctor),
    "Repair": (change.reset, change.seek, change.backfill, change.rename, change.forget),
    "Set up": (
        setup.check,
        setup.grants,
        setup.carbon_conf,
        setup.dashboard,
        about.schema,
        change.import_,
    ),
    "About": (about.version, about.completion),
}
"""The commands by purpose, as `--help` shows them."""


class _Group(click.Group):
    """Commands whose expected failures are one line and a hint, never a traceback."""

    def invoke(self, context: click.Context) -> Any:
        if os.environ.get("NO_COLOR"):  # https://no-color.org
            context.color = False
        try:
            return super().invoke(context)
        except ShipperError as error:
            complain(error)
            codes: dict[type[ShipperError], int] = {ConfigError: EX_CONFIG, NotRunning: NOT_RUNNING}
            context.exit(next((code for kind, code in codes.items() if isinstance(error, kind)), 1))
        finally:
            gc.freeze()  # else all objects are looked through once more before the process ends

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by purpose."""
        width = max(len(command.name or "") for commands in SECTIONS.values() for command in commands)
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                rows = [(f"{command.name:<{width}}", command.get_short_help_str(90)) for command in commands]
                formatter.write_dl(rows)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="shipper", prog_name="shipper", message="%(prog)s %(version)s")
def main() -> None:
    """Ship counts of an audit trail to Graphite on a schedule.

    The sum of a series in Graphite equals the count in the source: nothing lost, nothing doubled, nothing silent.
    """


for _commands in SECTIONS.values():
    for _command in _commands:
        main.add_command(_command)
