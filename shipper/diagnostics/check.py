"""`shipper check`: tests the file, the state, the sources with the queries of their jobs, Carbon and Graphite."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from shipper.config.load import Config
from shipper.core.errors import DeliveryFailed
from shipper.core.model import Job, JobStatus
from shipper.core.repair.reset import check_identity
from shipper.diagnostics.check_source import Finding, attempted, check_source
from shipper.graphite.carbon import Carbon
from shipper.runtime.endpoints import evidence_of, open_readback, receivers
from shipper.state.access import enter
from shipper.state.database import holder
from shipper.state.queries import job_statuses

__all__ = ["Finding", "findings"]


def findings(config: Config) -> Iterator[Finding]:
    """Yield the results of all checks."""
    yield from _check_file(config.file)
    yield from _check_credentials(config)
    yield from attempted(f"state {config.state.path}", _check_state(config))
    for name in config.sources:
        yield from attempted(f"source {name}", check_source(config, name))
    for carbon in receivers(config):
        yield from attempted("carbon", _check_carbon(carbon))
    yield from attempted("graphite", _check_graphite(config))
    yield from _check_proof(config)


def _check_file(file: str) -> Iterator[Finding]:
    """Report a configuration that only root can read."""
    status = Path(file).stat()
    is_for_group = status.st_gid != 0 and status.st_mode & stat.S_IRGRP
    if status.st_uid == os.geteuid() == 0 and not is_for_group and not status.st_mode & stat.S_IROTH:
        remedy = f"Let the service's user read it: chmod 644 {file}. Keep secrets in other files."
        yield Finding(False, file, "only root can read it", remedy)


def _check_credentials(config: Config) -> Iterator[Finding]:
    """Warn of files with passwords that all users can read."""
    for file in config.exposed_files():
        yield Finding(True, f"credentials {file}", "all users of this machine can read them", f"chmod o-r {file}")


def _check_state(config: Config) -> Iterator[Finding]:
    """Check the state file, or the directory in which it will be created."""
    path = Path(config.state.path)
    subject = f"state {path}"
    enter(str(path))
    try:
        exists = path.exists()
    except PermissionError:
        yield Finding(
            False, subject, "this user cannot read it", "Run the check as the user that shipper runs as, or as root."
        )
        return
    if not path.parent.is_dir():
        remedy = f"mkdir -p -m 700 {path.parent}, owned by the user that shipper runs as."
        yield Finding(False, subject, "its directory does not exist", remedy)
    elif not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True) or (
        exists and not os.access(path, os.R_OK | os.W_OK, effective_ids=True)
    ):
        remedy = "Run the check as the user that shipper runs as, or as root; that user must own file and directory."
        yield Finding(False, subject, "this user cannot write there", remedy)
    elif not exists:
        yield Finding(True, subject, "does not exist yet; can be created")
    else:
        statuses, process = job_statuses(str(path)), holder(str(path))
        jobs = f"{len(statuses)} {'job' if len(statuses) == 1 else 'jobs'}"
        yield Finding(True, subject, f"{jobs}; in use by process {process.process}" if process else jobs)
        for name in statuses.keys() & config.jobs.keys():
            yield from attempted(f"job {name}", _check_identity(config.jobs[name], statuses[name]))


def _check_identity(job: Job, status: JobStatus) -> Iterator[Finding]:
    check_identity(job, status.offsets)
    yield from ()


def _check_carbon(carbon: Carbon) -> Iterator[Finding]:
    """Connect, send no datapoints, and wait until Carbon has read the connection to its end."""
    with closing(carbon):
        try:
            carbon.deliver(())
        except DeliveryFailed:
            if not carbon.confirms_alone():
                raise
            remedy = "Set MAX_RECEIVER_CONNECTIONS = inf in carbon.conf, and restart Carbon: shipper keeps one open."
            yield Finding(False, f"carbon {carbon}", "answers one connection, but no second one beside it", remedy)
        else:
            yield Finding(True, f"carbon {carbon}", "accepts data")


def _check_graphite(config: Config) -> Iterator[Finding]:
    """Read a series that does not exist, if a render_url is configured."""
    readback = open_readback(config)
    if readback is not None:
        readback.read(["shipper.check"], int(time.time()) // 60 * 60)
        yield Finding(True, f"graphite {readback}", "render API works")


def _check_proof(config: Config) -> Iterator[Finding]:
    """Report how deliveries are proven."""
    yield Finding(True, "proof", evidence_of(config))
