"""The JSON Schema of the configuration, checked as editors do: valid files are green, invalid ones are red."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shipper.config.json_schema import schema
from shipper.config.load import load
from shipper.core.errors import ConfigError

ROOT = Path(__file__).parents[3]
SCHEMA = ROOT / "config/shipper.schema.json"
REFERENCE = ROOT / "config/shipper.toml"
BASE = """\
[graphite]
retentions = "1m:30d, 1h:5y"
[source.app]
url = "sqlite:////srv/app.db"
[job.one]
table = "audit_trail"
id = "id"
name = "one.{measure}"
time = "created_at"
"""
JOB = "[job.one]\n"
TWO = '[job.two]\ntable = "t"\nid = "id"\n'
GOOD = [
    (JOB, 'every = "90s"'),
    (JOB, 'cron = "*/5 6-20 * * mon-fri"'),
    (JOB, 'cron = "@hourly"'),
    (JOB, "start = 18446744073709551615"),
    (JOB, 'start = "beginning"'),
    (JOB, "zeros = false"),
    (JOB, 'zeros = "2h"'),
    (
        JOB,
        'where = { a = "x", b = [1, 2], c = { ge = 1.5, lt = 10 } }',
    ),
    (
        JOB,
        'where = { d = { not = ["x"] }, e = { null = true }, f = { like = "l%" }, g = 2026-11-23 }',
    ),
    (JOB, 'measure = { count = "count", ms = "sum:duration_ms" }'),
    ("", f'{TWO}by = ["x"]\ngroups = ["a", "b"]\nname = "two.{{x}}"'),
    ("", f'{TWO}by = ["x", "y"]\ngroups = [["a", "b"]]\nname = "two.{{x}}.{{y}}"'),
    (JOB, 'source = ["app"]'),
    (JOB, "chunk = 1"),
    ("", f"{TWO}by = ['x', 'y']\nby_sql = {{ y = 'LOWER(z)' }}\nname = 'two.{{x}}.{{y}}'"),
    ("", f"{TWO}by = ['x']\nnames.x = {{ 1 = 'added' }}\nname = 'two.{{x}}'"),
    ("", f"{TWO}by = ['x']\nnames.x = 'SELECT id, name FROM t'\nname = 'two.{{x}}'"),
    (JOB, 'time_unit = "ms"'),
    ("", f'{TWO}time_sql = "TIMESTAMP(day, clock)"\nname = "two.{{measure}}"'),
    (JOB, 'tags = { dc = "eu" }'),
    ("[graphite]\n", 'host = { env = "HOME_OF_CARBON" }'),
    ("[graphite]\n", 'replay = ["1m", "10m"]'),
    ("[graphite]\n", 'hosts = ["relay1.internal:2003", "[::1]:2003"]'),
    ("[source.app]\n", 'late = "2d"'),
    ("", '[defaults]\nevery = "5m"\nbucket = "5m"\nstart = 5'),
    ("", '[status]\nlisten = "unix:/run/x.sock"'),
    ("", "[limits]\nseries = 5"),
    ("", '[audit]\ncron_zone = "Europe/Berlin"\nspan = "30d"'),
    ("[source.app]\n", 'background = "5 %"'),
    ("[source.app]\n", 'background = "100%"'),
    ("", '[job.two]\ntable = "own.trail"\nid = "id"\nname = "two.x-{measure}"'),
]
WRONG = [
    (JOB, 'evry = "90s"'),
    (JOB, 'every = "1 minute"'),
    (JOB, "every = 60"),
    (JOB, 'every = "0s"'),
    (JOB, 'cron = "* * *"'),
    (JOB, "start = -1"),
    (JOB, 'time_unit = "ns"'),
    (JOB, 'time_unit = "S"'),
    (JOB, 'time_sql = ""'),
    (JOB, 'start = "today"'),
    (JOB, "zeros = true"),
    (JOB, "where = { a = [] }"),
    (JOB, "where = { a = { about = 1 } }"),
    (JOB, "where = { a = {} }"),
    (JOB, 'measure = { ms = "avg:duration_ms" }'),
    (JOB, "measure = {}"),
    (JOB, "by_sql = { y = '' }"),
    (JOB, "by_sql = { 'a;b' = '1' }"),
    (JOB, "names = { x = 'event' }"),
    (JOB, "names = { x = {} }"),
    (JOB, "names = { x = { 1 = 2 } }"),
    (JOB, "names = { x = { 1 = '' } }"),
    (JOB, 'measure = { "a;b" = "count" }'),
    (JOB, "by = 'action'"),
    (JOB, 'by = ["a;b"]'),
    (JOB, "source = []"),
    (JOB, "chunk = 0"),
    (JOB, 'null_as = "a.b"'),
    ("[graphite]\n", "port = 65536"),
    ("[graphite]\n", 'hosts = ["relay1.internal"]'),
    ("[graphite]\n", 'hosts = ["::1:2003"]'),
    ("[graphite]\n", "hosts = []"),
    ("[graphite]\n", 'proof = "believe"'),
    ("[graphite]\n", 'host = { environment = "X" }'),
    ("[source.app]\n", 'password = "secret"'),
    ("[source.app]\n", 'late = "never"'),
    ("[source.app]\n", 'settle = "10s"'),
    ("[source.app]\n", 'background = "0%"'),
    ("[source.app]\n", 'background = "101%"'),
    ("[source.app]\n", "background = 0.1"),
    ("", '[audit]\ncron = "daily"'),
    ("", "[audit]\ndays = 7"),
    ("[source.app]\n", 'tls = "on"'),
    ("", '[defaults]\nevry = "5m"'),
    ("", '[status]\nlisten = "0.0.0.0:80"'),
    ("", "[other]\nx = 1"),
    ("", '[job."a;b"]\ntable = "t"\nid = "id"\nname = "two.{measure}"'),
    ("", TWO),
    ("", '[job.two]\nid = "id"\nname = "two.{measure}"'),
    ("", '[job.two]\ntable = "a;b"\nid = "id"\nname = "two.{measure}"'),
    ("", f'{TWO}name = "two measures"'),
]


def lint(file: Path) -> subprocess.CompletedProcess[str]:
    """Check a file as an editor does."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    taplo = shutil.which("taplo", path=path)
    assert taplo is not None, "taplo is not installed: run ./tests/run, which makes the environment"
    command = [taplo, "lint", "--no-auto-config", "--schema", SCHEMA.as_uri(), str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def written(folder: Path, before: str, added: str) -> Path:
    """Write the base with additional lines below a header, or at the end."""
    file = folder / "shipper.toml"
    file.write_text(BASE.replace(before, f"{before}{added}\n") if before else f"{BASE}{added}\n")
    return file


def test_schema_is_up_to_date() -> None:
    """The released file is the output of `shipper admin schema`, and the present schema of the sections."""
    printed = subprocess.run(
        [sys.executable, "-m", "shipper.cli", "admin", "schema"], capture_output=True, text=True, check=True
    )

    assert printed.stdout == SCHEMA.read_text(), "shipper admin schema >config/shipper.schema.json"
    assert json.loads(printed.stdout) == schema()


def test_reference(tmp_path: Path) -> None:
    """The sample is valid, with and without its commented defaults, and its first line names the schema."""
    text = REFERENCE.read_text()
    file = tmp_path / "shipper.toml"
    file.write_text(re.sub(r"^#(\w+ *= )", r"\1", text, flags=re.MULTILINE))

    assert text.startswith(f"#:schema ./{SCHEMA.name}\n")
    for one in (REFERENCE, file):
        assert lint(one).returncode == 0, lint(one).stderr


@pytest.mark.parametrize(("before", "added"), GOOD)
def test_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, added: str) -> None:
    """The schema accepts what shipper accepts."""
    monkeypatch.setenv("HOME_OF_CARBON", "localhost")
    file = written(tmp_path, before, added)

    load(str(file))
    assert lint(file).returncode == 0, lint(file).stderr


@pytest.mark.parametrize(("before", "added"), WRONG)
def test_wrong(tmp_path: Path, before: str, added: str) -> None:
    """The schema rejects what shipper rejects."""
    file = written(tmp_path, before, added)

    with pytest.raises(ConfigError):
        load(str(file))
    assert lint(file).returncode == 1


def test_defaults_may_have_what_jobs_need(tmp_path: Path) -> None:
    """A job does not need the keys that [defaults] has."""
    file = tmp_path / "shipper.toml"
    file.write_text(BASE.replace('table = "audit_trail"\n', "") + '[defaults]\ntable = "audit_trail"\n')

    load(str(file))
    assert lint(file).returncode == 0, lint(file).stderr
