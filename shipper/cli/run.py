"""Commands that run shipper: `run`, `once`, `pause`, `resume`, `reload`."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from shipper.cli import options
from shipper.cli.output import say, show_json
from shipper.cli.service import address_of
from shipper.core.errors import NotRunning

EXIT_CREDENTIALS = "243"  # systemd.exec(5)
_UNKNOWN_CREDENTIAL = "See LoadCredential= in `systemctl cat shipper`, and create that file."
PAUSE_SECONDS = 60.0  # a capture that runs may take its time to end
RELOAD_SECONDS = 60.0  # TimeoutStartSec of the unit, which systemd also applies to a reload


@options.command("Run in the foreground, as the service does.")
@options.logging
def run(file: str, log_format: str) -> None:
    """Run in the foreground until SIGTERM or SIGINT."""
    from shipper.config.load import load
    from shipper.log import logger as log
    from shipper.service import daemon

    log.start(as_json=log_format == "json")
    config = load(file)
    for exposed in config.exposed_files():
        log.logger().warning("credentials.exposed", file=exposed, hint=f"chmod o-r {exposed}")
    daemon.run(config)


@options.command("Run all jobs once, or some.")
@options.logging
@options.jobs
def once(file: str, log_format: str, jobs: tuple[str, ...]) -> None:
    """Run jobs once: count their new rows and deliver the totals. Exits with 1 if anything failed."""
    from shipper.config.load import load
    from shipper.log import logger as log
    from shipper.service.once import once as run_once

    log.start(as_json=log_format == "json")
    sys.exit(0 if run_once(load(file), jobs) else 1)


@options.command("Pause jobs, for maintenance of their tables.", has_output=True)
@options.some_jobs
def pause(file: str, output: str, jobs: tuple[str, ...]) -> None:
    """Pause jobs until `shipper resume`: they do not touch their tables. Rows counted before are still delivered.

    Nothing is lost: the jobs continue where they were. Exits with 1 if a job still reads its table.
    """
    result = _switch(file, "pause", jobs)
    if output == "json":
        show_json(result)
    for job in result["jobs"] if output == "table" else ():
        say(f"{job}: {'paused' if job in result['changed'] else 'is paused already'}")
    for part in result["running"]:
        say(f"the {part} has not ended yet: repeat the command until this line is gone", err=True)
    sys.exit(1 if result["running"] else 0)


@options.command("Let paused jobs continue.", has_output=True)
@options.some_jobs
def resume(file: str, output: str, jobs: tuple[str, ...]) -> None:
    """Let paused jobs continue where they were, at their next tick.

    Rows written meanwhile count at their own times; a job without `time` counts them at its next tick.
    """
    result = _switch(file, "resume", jobs)
    if output == "json":
        show_json(result)
    for job in result["jobs"] if output == "table" else ():
        say(f"{job}: {'continues at its next tick' if job in result['changed'] else 'is not paused'}")


def _switch(file: str, operation: str, jobs: Sequence[str]) -> Mapping[str, Any]:
    """Pause or resume jobs: in the service, or in the state where none runs."""
    from shipper.config.load import load_for_state
    from shipper.operations import pause
    from shipper.runtime.pipeline import lead
    from shipper.service.control import ask
    from shipper.state.store import State

    if (address := address_of(file)) is not None:
        request = {"operation": operation, "arguments": {"jobs": jobs}, "is_plan": False}
        answer: Mapping[str, Any] = ask(address, "operate", request, timeout=PAUSE_SECONDS)
        return answer
    config = load_for_state(file)
    with State(config.state.path, lead(config)) as state:
        return (pause.pause_in if operation == "pause" else pause.resume_in)(state, config, jobs)


@options.command("Let the service reload its configuration.")
def reload(file: str) -> None:
    """Let the running service reload its configuration. An invalid one changes nothing, and its errors are shown."""
    from shipper.service.control import ask

    # the file need not be read here: the service reports the errors of a broken one
    address = address_of(file)
    if address is None:
        raise NotRunning(
            f"reload {file}: no running service uses the state file of this configuration",
            hint="Start it: systemctl start shipper.",
        )
    answer = ask(address, "reload", timeout=RELOAD_SECONDS)
    jobs = answer["jobs"]
    say(f"{answer['file']}: {jobs} {'job' if jobs == 1 else 'jobs'} scheduled")


@click.command(hidden=True)
def stopped() -> None:
    """Explain in the journal why systemd could not start the service: ExecStopPost of the unit.

    Its own line about a credential names neither the file nor a remedy.
    """
    from shipper.cli.output import complain
    from shipper.core.errors import ConfigError
    from shipper.service import systemd

    if os.environ.get("EXIT_STATUS") != EXIT_CREDENTIALS:
        return
    files = systemd.credentials()
    missing = systemd.missing(files)
    named = missing or list(files.values())
    reason = "does not exist" if missing else "cannot be read or decrypted"
    names = ", ".join(map(str, named)) or "a file of LoadCredential= in the unit"
    if len(named) > 1 and not missing:
        names = f"one of {names}"
    remedies = dict.fromkeys(map(systemd.remedy, named)) or [_UNKNOWN_CREDENTIAL]
    hint = f"{' '.join(remedies)} Then: systemctl start shipper"
    complain(ConfigError(f"load credentials for the service: {names} {reason}", hint=hint))
