"""What `shipper check` looks at beyond the file: do the ends answer, and would they do what the jobs ask?

May this user write the state, does it belong to these jobs, and can the service read the configuration?

Does Carbon read what it is sent, can Graphite be read back, and what is proven by that?
"""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from shipper.config.load import Config
from shipper.core.model import Job, JobStatus
from shipper.diagnostics.check_source import Finding, attempted, looks_at_source
from shipper.runtime.endpoints import evidence_of, open_carbon, open_readback
from shipper.core.repair.reset import check_identity
from shipper.state.database import holder
from shipper.state.queries import job_statuses

__all__ = ["Finding", "findings"]


def findings(config: Config) -> Iterator[Finding]:
    """Look at the file, at the state, at the sources with the queries of their jobs, at Carbon and at Graphite."""
    yield from looks_at_file(config.file)
    yield from attempted(f"state {config.state.path}", looks_at_state(config))
    for name in config.sources:
        yield from attempted(f"source {name}", looks_at_source(config, name))
    yield from attempted("carbon", looks_at_carbon(config))
    yield from attempted("graphite", looks_at_graphite(config))
    yield from tells_evidence(config)


def looks_at_file(file: str) -> Iterator[Finding]:
    """Say if root sees a configuration that the service would not."""
    found = Path(file).stat()
    is_for_group = found.st_gid != 0 and found.st_mode & stat.S_IRGRP
    if found.st_uid == os.geteuid() == 0 and not is_for_group and not found.st_mode & stat.S_IROTH:
        remedy = f"The service is another user: chmod 644 {file}. A secret has no place in it."
        yield Finding(False, file, "only root can read it", remedy)


def looks_at_state(config: Config) -> Iterator[Finding]:
    """Look at the state file, or at where it will be."""
    path = Path(config.state.path)
    subject = f"state {path}"
    try:
        exists = path.exists()
    except PermissionError:
        yield Finding(False, subject, "this user may not look", "Ask as the user that shipper runs as, or as root.")
        return
    if not path.parent.is_dir():
        remedy = f"mkdir -p -m 700 {path.parent}, owned by the user that shipper runs as."
        yield Finding(False, subject, "its directory is not there", remedy)
    elif not os.access(path.parent, os.W_OK | os.X_OK) or (exists and not os.access(path, os.R_OK | os.W_OK)):
        remedy = "Ask as the user that shipper runs as, or as root; file and directory must be that user's."
        yield Finding(False, subject, "this user may not write there", remedy)
    elif not exists:
        yield Finding(True, subject, "not there yet; can be made")
    else:
        standing = job_statuses(str(path))
        held = holder(str(path))
        running = f"; process {held.process} has it" if held else ""
        yield Finding(True, subject, f"jobs that have begun: {len(standing)}{running}")
        for name in standing.keys() & config.jobs.keys():
            yield from attempted(f"job {name}", _identity(config.jobs[name], standing[name]))


def _identity(job: Job, standing: JobStatus) -> Iterator[Finding]:
    check_identity(job, standing.offsets)
    yield from ()


def looks_at_carbon(config: Config) -> Iterator[Finding]:
    """Send it nothing, and see whether it reads that to the end."""
    with closing(open_carbon(config)) as carbon:
        carbon.deliver(())
        yield Finding(True, f"carbon {carbon}", "reads what it is sent")


def looks_at_graphite(config: Config) -> Iterator[Finding]:
    """Ask for a series that nobody has, where it is read at all."""
    readback = open_readback(config)
    if readback is not None:
        readback.read(["shipper.check"], int(time.time()) // 60 * 60)
        yield Finding(True, f"graphite {readback}", "can be read back")


def tells_evidence(config: Config) -> Iterator[Finding]:
    """Say what is proven to be in Graphite, and what is only believed."""
    yield Finding(True, "proof", evidence_of(config))
