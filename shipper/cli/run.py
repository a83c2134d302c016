"""Commands that run it: `run`, `once`, `reload`, `demo`."""

import os
import sys

import click

from shipper.cli import options
from shipper.core.errors import NotRunning

RELOAD_SECONDS = 60.0  # systemd waits as long (TimeoutStartSec)


@click.command(short_help="Run in the foreground; what the service does.")
@options.configured
@options.logging
def run(file: str, log_format: str) -> None:
    """Run in the foreground until SIGTERM or SIGINT."""
    from shipper import log
    from shipper.config.load import load
    from shipper.service import daemon

    log.start(as_json=log_format == "json")
    daemon.run(load(file))


@click.command(short_help="One pass of all jobs, or of some.")
@options.configured
@options.logging
@options.jobs
def once(file: str, log_format: str, jobs: tuple[str, ...]) -> None:
    """Observe, capture and deliver once, then exit; 1 if any of it failed."""
    from shipper import log
    from shipper.config.load import load
    from shipper.service.once import once as run_once

    log.start(as_json=log_format == "json")
    sys.exit(0 if run_once(load(file), jobs) else 1)


@click.command(short_help="Let the service take over its configuration.")
@options.configured
def reload(file: str) -> None:
    """Let the running service take over its configuration file as it is now: 0 when it has, else the reason."""
    from shipper.config.load import load
    from shipper.service.control import ask
    from shipper.state.database import holder

    # for systemd's ExecReload there is no need to read the file here, where it may be broken
    runtime = os.environ.get("RUNTIME_DIRECTORY")
    if runtime is not None:
        address: str | None = f"{runtime}/control.sock"
    else:
        held = holder(str(load(file, with_credentials=False).state.path))
        address = held.address if held else None
    if address is None:
        raise NotRunning(f"reload {file}: no shipper runs with its [state]", hint="Start it: systemctl start shipper.")
    answer = ask(address, "reload", timeout=RELOAD_SECONDS)
    click.echo(f"{answer['file']}: {answer['jobs']} jobs are on schedule")


@click.command(short_help="Watch the main job, without any server.")
@click.option("--seconds", default=20, show_default=True, help="How long the audit trail grows.")
def demo(seconds: int) -> None:
    """Watch the main job with a real Carbon and no server: the daemon is killed once, and the sums are equal."""
    from shipper.demo import show

    sys.exit(0 if show(seconds) else 1)
