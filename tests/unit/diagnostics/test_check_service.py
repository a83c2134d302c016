"""Checks of the running service."""

from pathlib import Path

import pytest

from shipper.config.encrypted import FOLDER
from shipper.config.load import Config, load
from shipper.diagnostics.check_service import RESTART, Service, check_ignored, check_login
from shipper.service.vitals import REJECTS

TEXT = """\
[graphite]
retentions = "1m:1d"
[source.app]
url = "mysql+pymysql://127.0.0.1/app"
credentials = "mysql.cnf"
[job.events]
table = "audit_trail"
id = "id"
name = "events.{measure}"
"""
AGAIN = "repeat the commands of deploy/install.md, Encrypted credentials"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Give a configuration with a plain file of credentials."""
    (tmp_path / "shipper.toml").write_text(TEXT)
    (tmp_path / "mysql.cnf").write_text("[client]\n")
    return load(str(tmp_path / "shipper.toml"))


def test_plain_file_beside_an_encrypted_one(config: Config, tmp_path: Path) -> None:
    """A plain file is reported if the unit has an encrypted one in its place.

    Mutants: report any plain file; any with an encrypted one of another name.
    """
    plain, encrypted = tmp_path / "mysql.cnf", FOLDER / "mysql.cnf"
    (found,) = check_ignored(config, {"mysql.cnf": encrypted})

    assert found[:3] == (True, f"credential {plain}", f"the service ignores it, and uses the encrypted {encrypted}")
    assert AGAIN in found.remedy
    assert list(check_ignored(config, {"mysql.cnf": plain})) == []
    assert list(check_ignored(config, {"other.cnf": FOLDER / "other.cnf"})) == []
    assert list(check_ignored(config, {})) == []


@pytest.mark.parametrize("is_ignored", [False, True])
def test_rejected_login_of_the_service(tmp_path: Path, *, is_ignored: bool) -> None:
    """A restart helps, unless the service ignores the new password. Mutant: always restart."""
    endpoint = {"name": "source app", "failure": {"error": "Access denied"}, "complaint": REJECTS}
    ignored = [tmp_path / "mysql.cnf"] if is_ignored else []
    (found,) = check_login("app", Service(1, [], {"source app": endpoint}, ignored))

    assert not found.is_good
    assert (AGAIN in found.remedy, found.remedy == RESTART) == (is_ignored, not is_ignored)
