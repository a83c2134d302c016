"""`shipper check`: tests the file, the state, the sources with the queries of their jobs, Carbon and Graphite."""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from shipper.config.encrypted import FOLDER, origin
from shipper.config.load import DEFAULT_PATH, Config
from shipper.core.errors import DeliveryFailed, ShipperError
from shipper.diagnostics.carbon_conf import AGGREGATION, CARBON, SCHEMAS
from shipper.diagnostics.carbon_diff import diff
from shipper.diagnostics.check_service import check_changes, check_ignored, running
from shipper.diagnostics.check_source import check_source
from shipper.diagnostics.check_state import Stored, check_database, check_file, check_identity, stored
from shipper.diagnostics.doctor import examine
from shipper.diagnostics.finding import Finding, attempted
from shipper.graphite.carbon import Carbon
from shipper.runtime.endpoints import evidence_of, open_readback, receivers
from shipper.service import systemd

CANARY_SECONDS = 30.0
"""Longest wait for Carbon to create the canary's series."""
NO_CANARY = Finding(
    True,
    "canary",
    "not sent, because Carbon's configuration is not right yet: Carbon would create the canary's Whisper file "
    "according to it, and never change that file",
    "Correct Carbon's configuration (✗ above), restart Carbon, and run this command again.",
)


def findings(config: Config, *, carbon: Path | None, has_canary: bool) -> Iterator[Finding]:
    """Yield the results of all checks.

    Carbon is the directory of its configuration. A canary is a test series, which is sent and read back.
    """
    yield from _check_files(config)
    unit = systemd.credentials() if config.file == DEFAULT_PATH and os.geteuid() == 0 else {}
    yield from _check_unit(config, unit)
    yield from check_ignored(config, unit)
    service = running(config, unit)
    yield from check_changes(service)
    is_copy = config.state.database is not None
    yield from attempted(f"state {config.state.path}", check_file(Path(config.state.path), is_copy=is_copy))
    yield from attempted("state", check_database(config))
    try:
        known = stored(config)
    except (ShipperError, PermissionError):  # reported above
        known = Stored()
    for job in config.jobs.values():
        yield from attempted(f"job {job.name}", check_identity(job, known))
    for name in config.sources:
        yield from attempted(f"source {name}", check_source(config, name, known, service))
    for one in receivers(config):
        yield from attempted("carbon", _check_carbon(one))
    of_carbon = [] if carbon is None else list(_check_carbon_files(config, carbon))
    yield from of_carbon
    yield from attempted("graphite", _check_graphite(config))
    if has_canary:
        yield from attempted("canary", _check_canary(config, of_carbon))
    yield Finding(True, "proof", evidence_of(config))


def _check_files(config: Config) -> Iterator[Finding]:
    """Report a configuration that only root can read; warn of files with passwords that all users can read."""
    if os.geteuid() == 0 and _is_of_root_alone(Path(config.file)):
        remedy = f"Let the service's user read it: chmod 644 {config.file}. Keep secrets in other files."
        yield Finding(False, config.file, "only root can read it", remedy)
    for file in config.exposed_files():
        yield Finding(True, f"credentials {file}", "all users of this machine can read them", f"chmod o-r {file}")


def _check_unit(config: Config, unit: Mapping[str, Path]) -> Iterator[Finding]:
    """Check, as root, that systemd can hand over the credentials of its unit, and has those that are needed."""
    for file in systemd.missing(unit):
        remedy = systemd.remedy(file)
        yield Finding(False, f"credential {file}", "does not exist, so the service does not start", remedy)
    for file in sorted(map(origin, config.credential_files())) if unit else ():
        if file.name not in unit and (file.parent == FOLDER or _is_of_root_alone(file)):
            setting = "LoadCredentialEncrypted" if file.parent == FOLDER else "LoadCredential"
            remedy = f"Run `systemctl edit shipper`, and add:\n[Service]\n{setting}={file.name}:{file}"
            yield Finding(False, f"credential {file}", "only root can read it, so the service cannot", remedy)


def _is_of_root_alone(file: Path) -> bool:
    status = file.stat()
    is_for_group = status.st_gid != 0 and status.st_mode & stat.S_IRGRP
    return status.st_uid == 0 and not is_for_group and not status.st_mode & stat.S_IROTH


def _check_carbon(carbon: Carbon) -> Iterator[Finding]:
    """Connect, send no datapoints, and wait until Carbon has read the connection to its end."""
    with closing(carbon):
        try:
            carbon.deliver(())
        except DeliveryFailed:
            if not carbon.confirms_alone():
                raise
            remedy = "Set MAX_RECEIVER_CONNECTIONS = inf in carbon.conf, and restart Carbon: shipper keeps one open."
            yield Finding(False, f"carbon {carbon}", "answers one connection, but not two at a time", remedy)
        else:
            yield Finding(True, f"carbon {carbon}", "accepts data")


def _check_carbon_files(config: Config, folder: Path) -> Iterator[Finding]:
    """Compare Carbon's own files with what these series need."""
    for file in (folder / SCHEMAS, folder / AGGREGATION, folder / CARBON):
        yield from attempted(f"carbon {file}", _check_carbon_conf(config, file))


def _check_carbon_conf(config: Config, file: Path) -> Iterator[Finding]:
    """Compare one of Carbon's own files with what these series need.

    Only the file of aggregations may be missing: Carbon then uses its defaults (carbon/storage.py), as in Debian.
    """
    found = diff(config, str(file), may_miss=file.name == AGGREGATION)
    bad = [verdict for verdict in found.verdicts if not verdict.is_good]
    if not bad:
        yield Finding(True, f"carbon {file}", "right for these series")
        return
    first = f"{bad[0].path}: {bad[0].present}; needed: {bad[0].needed}"
    others = f"; and {len(bad) - 1} more" if len(bad) > 1 else ""
    missing = "" if file.exists() else "does not exist, so Carbon uses its defaults; "
    yield Finding(False, f"carbon {file}", f"{missing}{first}{others}", found.write.rstrip())


def _check_canary(config: Config, of_carbon: Iterable[Finding]) -> Iterator[Finding]:
    """Send a test series and judge how Graphite stores it, if Carbon's files, as far as they are known, are right."""
    if not all(finding.is_good for finding in of_carbon):
        yield NO_CANARY
        return
    examination = examine(config, wait=CANARY_SECONDS)
    for verdict in examination.verdicts:
        yield Finding(verdict.is_good, f"canary {examination.series}", verdict.text, verdict.remedy)


def _check_graphite(config: Config) -> Iterator[Finding]:
    """Read a series that does not exist, if a render_url is configured."""
    readback = open_readback(config)
    if readback is not None:
        readback.ask()
        yield Finding(True, f"graphite {readback}", "render API works")
