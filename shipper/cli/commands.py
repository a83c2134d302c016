"""The groups of commands, and their exit codes; each command is in the file of its purpose.

Exit codes: 0 success, 1 failure or problem found, 2 usage, 3 not running, 4 equal, but less than half compared, 75
another process leads now (EX_TEMPFAIL), 78 configuration (EX_CONFIG). Results go to stdout, everything else to stderr.
A command imports what it needs when it runs, which keeps `--help` quick.
"""

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import click

from shipper.cli import about, change, copies, run, setup, status, verify
from shipper.cli.init import init
from shipper.cli.output import complain, prepare_streams
from shipper.core.errors import ConfigError, LeaseLost, NotRunning, ShipperError

EX_CONFIG, EX_TEMPFAIL = 78, 75  # sysexits.h


class _Sections(click.Group):
    """Commands that `--help` lists by purpose."""

    def __init__(self, *, sections: Mapping[str, Sequence[click.Command]], **settings: Any) -> None:
        super().__init__(commands=list(chain.from_iterable(sections.values())), **settings)
        self.sections = sections

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by purpose."""
        width = max(map(len, self.commands))
        for title, commands in self.sections.items():
            with formatter.section(title):
                shown = [command for command in commands if not command.hidden]
                formatter.write_dl([(f"{one.name:<{width}}", one.get_short_help_str(90)) for one in shown])


class _Main(_Sections):
    """Commands whose expected failures are one line and a hint, never a traceback."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        prepare_streams()
        try:
            return super().main(*arguments, **options)
        except ShipperError as error:  # the help cannot be written
            complain(error)
            sys.exit(1)

    def invoke(self, context: click.Context) -> Any:
        if os.environ.get("NO_COLOR"):  # https://no-color.org
            context.color = False
        try:
            return super().invoke(context)
        except ShipperError as error:
            complain(error)
            codes: dict[type[ShipperError], int] = {
                ConfigError: EX_CONFIG,
                NotRunning: status.NOT_RUNNING,
                LeaseLost: EX_TEMPFAIL,
            }
            context.exit(next((code for kind, code in codes.items() if isinstance(error, kind)), 1))
        finally:
            gc.freeze()  # else the last collection goes through all objects before the process ends


@click.group(
    cls=_Sections,
    short_help="Other commands: `shipper admin --help` lists them.",
    sections={
        "Set up": (setup.grants, setup.carbon_conf, verify.doctor, setup.dashboard, about.alerts, change.import_),
        "Service": (run.reload, verify.audit, run.stopped),
        "Jobs": (change.seek, change.rename, change.forget),
        "Tools": (about.schema, about.completion),
        "State": (copies.state,),
    },
)
def admin() -> None:
    """Set shipper up, and change what its state knows of jobs."""


@click.group(
    cls=_Main,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    sections={
        "Run": (run.run, run.once, run.pause, run.resume),
        "Inspect": (status.status, status.history, status.preview),
        "Verify": (setup.check, verify.reconcile),
        "Repair": (change.backfill, change.reset, copies.backup, copies.restore),
        "More": (init, about.version, admin),
    },
)
@click.version_option(package_name="shipper", prog_name="shipper", message="%(prog)s %(version)s")
def main() -> None:
    """Ship counts of an audit trail to Graphite on a schedule.

    The sum of a series in Graphite equals the count in the source: nothing lost, nothing doubled, nothing silent.
    """
