"""The configuration: what it refuses, on which line, with which remedy."""

import re
from pathlib import Path

import pytest

from shipper.config import load
from shipper.errors import ConfigError
from shipper.model import Archive, Condition, Job, Query
from shipper.sections import GraphiteSection, JobSection, Section, SourceSection, StateSection

REFERENCE = Path(__file__).parents[2] / "config/shipper.toml"

GOOD = """\
[graphite]
prefix = "audit"
retentions = "1m:30d,1h:5y"

[source.app]
url = "mysql+pymysql://db1.internal/app"

[defaults]
every = "1m"

[job.logins]
table = "audit_trail"
id = "id"
time = "created_at"
where = { outcome = "failure", action = ["login", "totp"] }
by = ["action"]
name = "logins.{action}.{measure}"
"""
SECOND = '[source.other]\nurl = "sqlite:////tmp/x.db"\n'
SAME = '[job.other]\ntable = "t"\nid = "id"\nby = ["x"]\nname = "logins.{x}.count"\n'


def write(folder: Path, text: str) -> str:
    """Write a configuration; return its path."""
    file = folder / "shipper.toml"
    file.write_text(text)
    return str(file)


def test_load(tmp_path: Path) -> None:
    """A job reads as a sentence, and becomes what capture needs."""
    config = load(write(tmp_path, GOOD))

    where = (Condition("outcome", ("failure",)), Condition("action", ("login", "totp")))
    assert config.jobs["logins"] == Job(
        name="logins",
        source="app",
        query=Query("audit_trail", "id", "created_at", 60, where, ("action",)),
        every=60,
        start="now",
        chunk=100_000,
        template="audit.logins.{action}.{measure}",
    )
    assert config.graphite.retentions == (Archive(60, 30 * 86400), Archive(3600, 5 * 31536000))
    assert config.sources["app"].settle == 10


@pytest.mark.parametrize(
    ("old", "new", "line", "message", "remedy"),
    [
        ('every = "1m"', 'every = "1 minute"', 9, '"1 minute" is not a duration', '"90s"'),
        ('every = "1m"', "every = 60", 9, "60 is not a duration", '"90s"'),
        ('every = "1m"', 'evry = "1m"', 9, 'no such key "evry"', 'Did you mean "every"?'),
        ('every = "1m"', "zzz = 1", 9, 'no such key "zzz"', "Known here: title, source, table"),
        ('time = "created_at"', 'tmie = "created_at"', 14, 'no such key "tmie"', 'Did you mean "time"?'),
        ('retentions = "1m:30d,1h:5y"', "", 1, '"retentions" is missing', "Add it"),
        ('"1m:30d,1h:5y"', '"1m"', 3, '"1m" is not an archive', "1m:30d,1h:5y"),
        ('"1m:30d,1h:5y"', '"1m:30d,90s:5y"', 3, '"1m:30d,90s:5y" would be refused by carbon', "multiple"),
        ('"1m:30d,1h:5y"', '"1m:30d,1h:1d"', 3, "would be refused by carbon", "further back"),
        ('"1m:30d,1h:5y"', '"5m:30d"', 11, "counts of this bucket would overwrite each other", "300 s"),
        ('prefix = "audit"', 'prefix = "a b"', 2, '"a b" cannot be part of a metric path', "letters, digits"),
        ('prefix = "audit"', "port = 70000", 2, "port = 70000 does not fit", "less than or equal to 65535"),
        ('prefix = "audit"', 'port = "2003"', 2, 'port = "2003" does not fit', "valid integer"),
        ('prefix = "audit"', 'proof = "faith"', 2, 'proof = "faith" does not fit', "'replay' or 'none'"),
        ('prefix = "audit"', 'replay = ["1h", "1m"]', 2, "replay does not grow", "shortest first"),
        ("mysql+pymysql://", "postgresql://", 6, '"postgresql" is not a kind of source', "mysql+pymysql"),
        ("//db1", "//me:secret@db1", 6, "url holds a password", "credentials"),
        ('table = "audit_trail"', "", 11, '"table" is missing', "Add it"),
        ('"audit_trail"', '"audit trail"', 12, '"audit trail" is not a name in a database', "plain"),
        ('id = "id"', 'id = "id; DROP"', 13, '"id; DROP" is not a name in a database', "plain"),
        ('outcome = "failure"', "outcome = 1979-05-27", 15, "1979-05-27 is not a value to compare with", "string"),
        ('by = ["action"]', 'by = ["outcome"]', 17, "{action} is neither a column of `by`", "outcome"),
        ('by = ["action"]', 'by = ["action", "outcome"]', 17, 'the column "outcome" of `by` is missing', "{outcome}"),
        ('"logins.{action}.{measure}"', '"logins..{action}"', 17, "does not give metric paths", "nodes"),
        ('table = "audit', 'start = "soon"\ntable = "audit', 12, 'start = "soon" is not a start', '"beginning"'),
        ('table = "audit', 'source = "ap"\ntable = "audit', 12, 'no source "ap"', 'Did you mean "app"?'),
        ('time = "created_at"', 'bucket = "1m"\nevery = "5m"', 14, "bucket is shorter than every", "at least as long"),
        ("[defaults]", SECOND + "[defaults]", 13, "no source is named", "app, other"),
        ("[defaults]", SAME + "[defaults]", 22, 'jobs "other" and "logins" could write the same', "differently"),
        ("[job.logins]", "[job.logins", 11, "Expected", "toml.io"),
        ("[job.logins]", "[job.logins]\ntable = 'x'", 13, "Cannot overwrite a value", "toml.io"),
        ("[job.logins]", "[jobs.logins]", 1, '"job" is missing', "Add it"),
    ],
)
def test_problem(tmp_path: Path, old: str, new: str, line: int, message: str, remedy: str) -> None:
    """Each mistake is told with its line, what is wrong, and what to do."""
    assert old in GOOD
    file = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load(file)
    told = f"{caught.value}\n    {caught.value.hint}"

    assert re.search(rf"^{re.escape(file)}:{line}: .*{re.escape(message)}", told, re.MULTILINE), told
    assert remedy in told


def test_all_problems_at_once(tmp_path: Path) -> None:
    """One run tells every mistake, once, in the order of the file, each beside its line."""
    text = GOOD.replace('"1m:30d,1h:5y"', '"x"').replace('"1m"', '"y"').replace('"created_at"', "5")
    text += '[job.second]\ntable = "t"\nid = "id"\nname = "second.{measure}"\n'
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    lines = [int(found) for found in re.findall(r"shipper.toml:(\d+):", str(caught.value))]

    assert lines == [3, 9, 14]


def test_no_file(tmp_path: Path) -> None:
    """A file that is not there is told with a remedy."""
    with pytest.raises(ConfigError, match="No such file") as caught:
        load(str(tmp_path / "none.toml"))

    assert "--config" in str(caught.value.hint)


def test_not_utf8(tmp_path: Path) -> None:
    """A file in another encoding is told."""
    file = tmp_path / "shipper.toml"
    file.write_bytes(b'title = "\xff"')
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(str(file))


def test_credentials_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials are a systemd credential, else a file beside the configuration, else it is said where none is."""
    text = GOOD.replace("[defaults]", 'credentials = "mysql.cnf"\n[defaults]')
    config = load(write(tmp_path, text))
    with pytest.raises(ConfigError, match=re.escape(f"looked at {tmp_path}/mysql.cnf")):
        config.option_file("app")
    (tmp_path / "mysql.cnf").write_text("[client]\n")
    assert config.option_file("app") == f"{tmp_path}/mysql.cnf"
    (tmp_path / "creds").mkdir()
    (tmp_path / "creds/mysql.cnf").write_text("[client]\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", f"{tmp_path}/creds")
    assert config.option_file("app") == f"{tmp_path}/creds/mysql.cnf"


def test_state_path_under_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state lives where systemd says, unless the file says otherwise."""
    file = write(tmp_path, GOOD)
    assert load(file).state.path == "/var/lib/shipper/shipper.db"
    monkeypatch.setenv("STATE_DIRECTORY", "/run/here")
    assert load(file).state.path == "/run/here/shipper.db"


def _uncommented(text: str) -> str:
    return re.sub(r"^#(\w+ *= )", r"\1", text, flags=re.MULTILINE)


def test_reference_loads(tmp_path: Path) -> None:
    """The reference configuration is right as it stands, and says the defaults where they are commented out."""
    reference = load(str(REFERENCE))
    defaults = load(write(tmp_path, _uncommented(REFERENCE.read_text())))

    assert defaults.graphite == reference.graphite
    assert defaults.sources == reference.sources
    assert defaults.jobs == reference.jobs
    assert defaults.state.path == "/var/lib/shipper/shipper.db"


@pytest.mark.parametrize("section", [StateSection, GraphiteSection, SourceSection, JobSection])
def test_reference_shows_every_key(section: type[StateSection]) -> None:
    """Every key stands in the reference configuration."""
    keys = set(re.findall(r"^#?(\w+) *=", REFERENCE.read_text(), re.MULTILINE))

    assert set(section.model_fields) <= keys
