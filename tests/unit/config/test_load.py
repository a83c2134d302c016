"""The configuration: its problems, with their lines and remedies."""

import errno
import os
import re
from pathlib import Path

import pytest

from shipper.config.keys import GraphiteSection, JobSection, LimitsSection, Section, SourceSection, StateSection
from shipper.config.load import load
from shipper.core.errors import ConfigError
from shipper.core.model import Archive, Condition, Job, Names, Query

REFERENCE = Path(__file__).parents[3] / "config/shipper.toml"

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
URL = 'url = "mysql+pymysql://db1.internal/app"'
BY = 'by = ["action"]'
SECOND = '[source.other]\nurl = "sqlite:////tmp/x.db"\n'
SAME = '[job.other]\ntable = "t"\nid = "id"\nby = ["x"]\nname = "logins.{x}.count"\n'


def write(folder: Path, text: str) -> str:
    """Write a configuration, and return its path."""
    file = folder / "shipper.toml"
    file.write_text(text)
    return str(file)


def test_load(tmp_path: Path) -> None:
    """A section becomes a Job with all its values."""
    config = load(write(tmp_path, GOOD))

    where = (Condition("outcome", "in", ("failure",)), Condition("action", "in", ("login", "totp")))
    assert config.jobs["logins"] == Job(
        name="logins",
        source="app",
        query=Query("audit_trail", "id", "created_at", 60, where, by=("action",)),
        every=60,
        start="now",
        chunk=100_000,
        template="audit.logins.{action}.{measure}",
        archives=(Archive(60, 30 * 86400), Archive(3600, 5 * 31536000)),
        zeros=7 * 86400,
    )
    assert config.graphite.retentions == (Archive(60, 30 * 86400), Archive(3600, 5 * 31536000))
    assert config.sources["app"].late == config.jobs["logins"].late == 21_600


def test_labels(tmp_path: Path) -> None:
    """Expressions and names become parts of the query, in an order that does not depend on the file's."""
    names = "names.tag = { 2 = 'b', 1 = 'a' }\nnames.action = 'SELECT id, name FROM actions'"
    text = GOOD.replace(BY, f'by = ["tag", "action"]\nby_sql.tag = "LOWER(x)"\n{names}')
    query = load(write(tmp_path, text.replace("{action}", "{tag}.{action}"))).jobs["logins"].query

    assert query.by_sql == (("tag", "LOWER(x)"),)
    assert query.names == (
        Names("action", sql="SELECT id, name FROM actions"),
        Names("tag", (("1", "a"), ("2", "b"))),
    )


def test_fragment_by_the_dialect_of_its_source(tmp_path: Path) -> None:
    """A fragment is read as the database of its source reads it, of several sources as each of them. Mutant: MySQL."""
    text = GOOD.replace(BY, f"{BY}\nwhere_sql = \"details #>> '{{a}}' = 'x'\"")
    postgresql = text.replace("mysql+pymysql", "postgresql+psycopg")
    load(write(tmp_path, postgresql))
    several = postgresql.replace("[defaults]", '[source.other]\nkind = "mysql"\nhost = "h"\ndatabase = "d"\n[defaults]')

    for wrong in (text, several.replace('name = "logins', 'source = ["app", "other"]\nname = "{source}.logins')):
        with pytest.raises(ConfigError, match="`where_sql` contains a comment: #"):
            load(write(tmp_path, wrong))


@pytest.mark.parametrize(
    ("old", "new", "line", "message", "remedy"),
    [
        ('prefix = "audit"', 'proof = "readback"', 2, "render_url is missing", "render_url"),
        ('prefix = "audit"', 'render_url = "graphite"', 2, '"graphite" is not an address', "http://"),
        ('prefix = "audit"', 'render_url = "ftp://a:b@g?c"', 2, "render_url contains a password", "without a password"),
        ('prefix = "audit"', 'render_url = "http://a:b@g"', 2, "render_url contains a password", "without a password"),
        ("[source.app]", '[audit]\ncron = "0 3 * * *"\n[source.app]', 6, "render_url is missing", "render_url"),
        ("[source.app]", '[audit]\nspan = "30m"\n[source.app]', 6, "span", "3600"),
        (URL, f'{URL}\nbackground = "0%"', 7, '"0%" is not a share of the time', '"100%"'),
        (URL, f'{URL}\nbackground = "110%"', 7, '"110%" is not a share of the time', '"100%"'),
        (URL, f'{URL}\nlate = "3d"', 7, "`late` is longer than [state] keep", "at most 2d"),
        (URL, f'{URL}\nlate = "off"', 7, '"off" is not a duration', "90s"),
        (URL, f'{URL}\nlate = "0s"', 7, '"0s" is not a duration', "90s"),
        (URL, f'{URL}\nreset = "hold"', 7, 'no such key "reset"', "Known here: url, kind"),
        ('every = "1m"', 'every = "1 minute"', 9, '"1 minute" is not a duration', '"90s"'),
        ('every = "1m"', "every = 60", 9, "60 is not a duration", '"90s"'),
        ('every = "1m"', 'evry = "1m"', 9, 'no such key "evry"', 'Did you mean "every"?'),
        ('every = "1m"', "zzz = 1", 9, 'no such key "zzz"', "Known here: title, source, table"),
        ('time = "created_at"', 'tmie = "created_at"', 14, 'no such key "tmie"', 'Did you mean "time"?'),
        ('retentions = "1m:30d,1h:5y"', "", 1, '"retentions" is missing', "Add, for example, retentions"),
        ('"1m:30d,1h:5y"', '"1m"', 3, '"1m" is not an archive', "1m:30d,1h:5y"),
        ('"1m:30d,1h:5y"', '"1m:30d,90s:5y"', 3, 'carbon would reject "1m:30d,90s:5y"', "multiple"),
        ('"1m:30d,1h:5y"', '"1m:30d,1h:1d"', 3, "carbon would reject", "further back"),
        ('"1m:30d,1h:5y"', '"5m:30d"', 11, "counts of this bucket would overwrite each other", "300 s"),
        ('prefix = "audit"', 'prefix = "a b"', 2, '"a b" cannot be part of a metric path', "letters, digits"),
        ('prefix = "audit"', 'tags = { x = "{no}" }', 2, '{no} is no column of job "logins"', "{source}"),
        ("url = ", 'host = "a"\ndatabase = ""\n#', 7, 'database = "" is invalid', "at least 1"),
        ('prefix = "audit"', "port = 70000", 2, "port = 70000 is invalid", "less than or equal to 65535"),
        ('prefix = "audit"', 'port = "2003"', 2, 'port = "2003" is invalid', "without quotes"),
        ('prefix = "audit"', 'proof = "faith"', 2, 'proof = "faith" is invalid', "'replay' or 'readback'"),
        ('prefix = "audit"', 'proof = "none"', 2, 'proof = "none" is invalid', "'replay' or 'readback'"),
        ('prefix = "audit"', 'replay = ["1h", "1m"]', 2, "replay is not in order", "shortest first"),
        ("mysql+pymysql://", "oracle://", 6, '"oracle" is not a kind of database', "postgresql+psycopg"),
        ("//db1", "//me:secret@db1", 6, "url contains a password", "credentials"),
        ('table = "audit_trail"', "", 11, '"table" is missing', 'Add, for example, table = "audit_trail"'),
        ('"audit_trail"', "'\"audit\"'", 12, '""audit"" is not a name that shipper can use', "without quotes"),
        ('"audit_trail"', '"app.public.log"', 12, '"app.public.log" is not a table', "SCHEMA.TABLE"),
        ('id = "id"', 'id = "id; DROP"', 13, '"id; DROP" is not a name that shipper can use', "create a view"),
        ('outcome = "failure"', "outcome = [[1]]", 15, "[[1]] is not a value to compare with", "string"),
        ('outcome = "failure"', "outcome = { nto = 1 }", 15, '"nto" is not an operator', "not, like"),
        ('outcome = "failure"', "outcome = { ge = [1, 2] }", 15, "ge = [1, 2] is not a test", "Only `not`"),
        ('outcome = "failure"', "outcome = { null = 1 }", 15, "null = 1 is not a test", "null = true"),
        ('outcome = "failure"', "outcome = { like = 1 }", 15, "like = 1 is not a test", "pattern"),
        ('outcome = "failure"', "outcome = {}", 15, "{} is not a value to compare with", "ge = 1"),
        (
            'by = ["action"]',
            'measure = { n = "avg:x" }\nby = ["action"]',
            16,
            '"avg:x" is not a measure',
            "divideSeries",
        ),
        ('by = ["action"]', 'measure = { n = "sum" }\nby = ["action"]', 16, '"sum" is not a measure', "sum:column"),
        ('by = ["action"]', "measure = {}\nby = ['action']", 16, "measure = {} is invalid", "at least 1"),
        ('by = ["action"]', 'by = ["action"]\ngroups = [["a", "b"]]', 17, "group ['a', 'b'] has 2 values", "action"),
        ('by = ["action"]', 'by = ["action"]\ngroups = [1]', 17, "[1] are not groups", "strings"),
        ('by = ["action"]', 'by = ["action"]\ngroups = "a"', 17, '"a" are not groups', "list"),
        ('by = ["action"]', 'by = ["action", "action"]', 16, '`by` names "action" twice', "once"),
        ('by = ["action"]', 'by = ["action"]\nzeros = true', 17, "True is not a duration", "90s"),
        ('by = ["action"]', 'by = ["action"]\ncron = "* * * *"', 17, "is not a schedule", "five fields"),
        ('by = ["action"]', 'by = ["action"]\ncron = "* * * * 8"', 17, "is not a schedule", "0 and 7 are Sunday"),
        ('by = ["action"]', 'by = ["action"]\ncron = "61 * * * *"', 17, "is not a schedule", "*/5 6-20"),
        ('by = ["action"]', 'by = ["action"]\ntime_zone = "Mars"', 17, '"Mars" is not a time zone', "Europe/Berlin"),
        ('by = ["action"]', 'by = ["action"]\ntags = { name = "x" }', 17, '"name" cannot be a tag', "path itself"),
        ('by = ["action"]', 'by = ["action"]\ntags = { dc = "a;b" }', 17, '"a;b" cannot be the value', "letters"),
        (
            BY,
            f'{BY}\ntags = {{ dc = "a;name=other.count" }}',
            17,
            '"a;name=other.count" cannot be the value',
            "letters",
        ),
        (BY, f'{BY}\ntags = {{ dc = "~a" }}', 17, '"~a" cannot be the value', "letters"),
        (BY, f'{BY}\ntags = {{ dc = "a b" }}', 17, '"a b" cannot be the value', "letters"),
        (BY, f'{BY}\ntags = {{ dc = "a\\nb" }}', 17, '"a\\nb" cannot be the value', "letters"),
        (BY, f'{BY}\ntags = {{ "a;b" = "c" }}', 17, '"a;b" cannot be part of a metric path', "letters"),
        (BY, f'{BY}\ntags = {{ "~" = "c" }}', 17, '"~" cannot be part of a metric path', "letters"),
        (
            'by = ["action"]',
            'by = ["action"]\nlookback = "5m"\nmeasure = { m = "max:x" }',
            18,
            "max and min do not work",
            "count and sum",
        ),
        ('time = "created_at"', 'lookback = "5m"', 14, "`lookback` needs the key `time`", "get their time later"),
        ('time = "created_at"', 'sql = "SELECT 1 WHERE id > :after"', 14, "`sql` does not use :upto", "id <= :upto"),
        (
            'time = "created_at"',
            'sql = "SELECT :after, :upto"',
            15,
            "`where` has no effect beside `sql`",
            "into the `sql`",
        ),
        ('time = "created_at"', 'time_unit = "s"', 14, "`time_unit` needs the key `time`", "with the numbers"),
        ('time = "created_at"', 'time_unit = "min"', 14, 'time_unit = "min" is invalid', "'s', 'ms' or 'us'"),
        ('table = "audit', 'time_sql = "a"\ntable = "audit', 12, "`time` and `time_sql`: use only one", "Remove one"),
        (
            'time = "created_at"',
            'time_sql = "a) + (b"',
            14,
            "`time_sql` has parentheses that do not",
            "Match each opening",
        ),
        ('time = "created_at"', 'time_sql = "a -- b"', 14, "`time_sql` contains a comment", "If two minus signs"),
        (
            'time = "created_at"',
            'time_sql = "a"\nsql = ":after :upto"',
            14,
            "`time_sql` has no effect",
            "into the `sql`",
        ),
        (
            'time = "created_at"',
            'time_unit = "s"\nsql = ":after :upto"',
            14,
            "`time_unit` has no effect",
            "into the `sql`",
        ),
        ("mysql+pymysql://db1", "mysql+pymysql://me:s3cret@h:x", 6, "url is not a database url", "mysql+pymysql"),
        ('url = "', 'password = { plain = "s3cret" }\nurl = "', 6, "the file contains a password", "credential"),
        ('url = "mysql+pymysql://db1.internal/app"', 'url = ["s3cret"]', 6, "url = (hidden) is invalid", "quotes"),
        ('url = "mysql+pymysql://db1.internal/app"', 'url = "sqlite:////a"\nuser = "x"', 7, "no effect", "SQLite"),
        ('prefix = "audit"', 'replay = ["90d"]', 2, "the last replay comes too late", "at most 2h"),
        ('time = "created_at"', 'sql = "id >= :after AND id <= :upto"', 14, "at the ends of its windows", "> :after"),
        (
            'time = "created_at"',
            'every = "5m"\nsql = "-- bucket"',
            11,
            "`bucket` is shorter than `every`",
            "at least `every`",
        ),
        ('time = "created_at"', 'sql = "SELECT 1 -- :after :upto"', 14, "`sql` does not use :after", "id > :after"),
        ('table = "audit', 'where_sql = "a = 1) OR (b"\ntable = "audit', 12, "do not match", "Match each opening"),
        ('by = ["action"]', 'by = ["source"]', 16, "{source} is reserved", 'by_sql = { source_column = "source" }'),
        ('by = ["action"]', 'by = ["measure"]', 16, "{measure} is reserved", 'by = ["measure_column"]'),
        (BY, f"{BY}\nby_sql.tag = 'x'", 17, '"tag" of `by_sql` is not in `by`', "one of: action"),
        (BY, f"{BY}\nnames.acton = {{ 1 = 'a' }}", 17, '"acton" of `names` is not in `by`', "one of: action"),
        (BY, f"{BY}\nnames.action = 'event'", 17, '"event" are not names', "SELECT id, name"),
        (BY, f"{BY}\nnames.action = {{ 1 = 2 }}", 17, "are not names", '1 = "added"'),
        (BY, f"{BY}\nnames.action = {{ }}", 17, "are not names", '1 = "added"'),
        (BY, f"{BY}\nnames.action = 'SELECT 1) x --'", 17, "`names.action` has parentheses", "Match each opening"),
        (BY, f"{BY}\nnames.action = 'SELECT 1, 2;'", 17, "`names.action` contains a semicolon", "Remove it"),
        (BY, f"{BY}\nby_sql.action = 'x # y'", 17, "`by_sql.action` contains a comment: #", "Remove it"),
        (BY, f"{BY}\nby_sql.action = '1) OR (1'", 17, "`by_sql.action` has parentheses", "Match each opening"),
        (BY, f"{BY}\nby_sql.action = ''", 17, 'action = "" is invalid', "at least 1"),
        (
            BY,
            f"{BY}\nnames.action = {{ 1 = 'a' }}\ngroups = ['1']",
            18,
            '`groups` has "1", which `names` calls ',
            'Write "a"',
        ),
        (BY, f'{BY}\nwhere_sql = "a = \'b"', 17, "`where_sql` has a quote", "Close it"),
        (
            'time = "created_at"',
            "by_sql.action = 'x'\nsql = 'SELECT'",
            14,
            "`by_sql` has no effect beside `sql`",
            "into the `sql`",
        ),
        ('table = "audit', 'start = true\ntable = "audit', 12, "start = True is not a start", "beginning"),
        ('outcome = "failure"', "outcome = nan", 15, "nan is not a value to compare with", "number"),
        ('table = "audit', 'source = 5\ntable = "audit', 12, "source = 5 is not a source", "a list"),
        ('table = "audit', 'source = ["app", "app"]\ntable = "audit', 12, "names a source twice", "once"),
        ('table = "audit', 'where_sql = ""\ntable = "audit', 12, 'where_sql = "" is invalid', "at least 1"),
        *(
            (
                'outcome = "failure"',
                f"outcome = {test}",
                15,
                "2026-09-21 14:00:01+02:00 has an offset",
                "without an offset",
            )
            for test in ("2026-09-21T14:00:01+02:00", "{ ge = 2026-09-21 14:00:01+02:00 }")
        ),
        (
            'table = "audit',
            'every = "1m"\ncron = "@daily"\ntable = "audit',
            13,
            "`every` and `cron`: use only one",
            "one of them",
        ),
        ('table = "audit', 'source = []\ntable = "audit', 12, "source = [] is not a source", "a list"),
        ("[defaults]", SECOND + "[defaults]\nsource = ['app', 'other']", 20, "would write the same", "{source}"),
        ("url = ", 'lag_query = "SELECT 1; SELECT 2"\nurl = ', 6, "`lag_query` contains several", "Keep one"),
        ('by = ["action"]', 'sql = "SELECT 1; SELECT :after, :upto"', 16, "`sql` contains several", "Keep one"),
        ("url = ", "host = 'x'\nurl = ", 6, "url and host: use only one", "its parts"),
        ("url = ", "database = 'x'\n#", 5, "the source has no url", "host and database"),
        ("[defaults]", 'password = "x"\n[defaults]', 8, "the file contains a password", "credential"),
        (
            "[defaults]",
            'user = { env = "NO_SUCH" }\n[defaults]',
            8,
            "has no value",
            "variable NO_SUCH",
        ),
        ("[defaults]", 'user = { file = "none" }\n[defaults]', 8, "has no value", "none (No such file"),
        ("[defaults]", 'user = { credential = "c" }\n[defaults]', 8, "has no value", "c (No such file"),
        ('by = ["action"]', 'by = ["outcome"]', 17, "{action} is neither a column of `by`", "outcome"),
        (
            'by = ["action"]',
            'by = ["action", "outcome"]',
            17,
            "`name` does not contain {outcome}, a column of `by`",
            "{outcome}",
        ),
        ('"logins.{action}.{measure}"', '"logins..{action}"', 17, "does not give metric paths", "nodes"),
        ('table = "audit', 'start = "soon"\ntable = "audit', 12, 'start = "soon" is not a start', '"beginning"'),
        ('table = "audit', 'source = "ap"\ntable = "audit', 12, 'no source "ap"', 'Did you mean "app"?'),
        (
            'time = "created_at"',
            'bucket = "1m"\nevery = "5m"',
            14,
            "`bucket` is shorter than `every`",
            "at least `every`",
        ),
        ("[defaults]", SECOND + "[defaults]", 13, "`source` is missing", "app, other"),
        ("[defaults]", SAME + "[defaults]", 22, 'jobs "other" and "logins" could write the same', "differently"),
        ("[job.logins]", "[job.logins", 11, "Expected", "quote and bracket"),
        ("[job.logins]", "[job.logins]\ntable = 'x'", 13, "Cannot overwrite a value", "there twice"),
        ("[job.logins]", "[jobs.logins]", 1, '"job" is missing', "Add, for example, [job.NAME]"),
        ("[job.logins]", "[job.logins]\n[job.logins]", 12, "Cannot declare", "there twice"),
        ('"audit_trail"', '"audit_trail', 12, "Illegal character", "quote and bracket"),
        ("{measure}", "{messure}", 17, "{messure} is neither", 'Did you mean "measure"?'),
        ('by = ["action"]', 'by = "action"', 16, 'by = "action" is invalid', "Write a list"),
        ('table = "audit_trail"', "table = 5", 12, "table = 5 is invalid", "Write it in quotes"),
        ("[defaults]", "[defalts]", 8, 'no such key "defalts"', 'Did you mean "defaults"?'),
        ('[defaults]\nevery = "1m"', "[state]\ndefaults = 5", 9, 'no such key "defaults"', "Known here: path"),
        ('every = "1m"', 'every = "101y"', 9, '"101y" is not a duration', '"90s"'),
        ('every = "1m"', "start = []", 9, "start = [] is not a start", '"beginning"'),
        ('every = "1m"', "start = {}", 9, "start = {} is not a start", '"beginning"'),
        ('every = "1m"', "start = -1", 9, "start = -1 is not a start", '"beginning"'),
        ('"1m:30d,1h:5y"', '"1m:1h,1h:5y"', 3, 'too short for job "logins"', "Make the 1h archive at least 2h long"),
        ('"1m:30d,1h:5y"', "5", 3, "5 are not retentions", "1m:30d,1h:5y"),
        ('prefix = "audit"', 'host = "a..b"', 2, '"a..b" is not a host', "graphite.internal"),
        ('prefix = "audit"', 'host = "a:2003"', 2, '"a:2003" is not a host', "a port does not belong to it"),
        ('prefix = "audit"', 'host = "[::1"', 2, '"[::1" is not a host', '"::1"'),
        ('prefix = "audit"', 'hosts = ["a"]', 2, '"a" is not the address of a receiver', "HOST:PORT"),
        ('prefix = "audit"', 'hosts = ["::1:2003"]', 2, '"::1:2003" is not the address of', '"[::1]:2003"'),
        ('prefix = "audit"', 'hosts = ["a:0"]', 2, '"a:0" is not the address of', "HOST:PORT"),
        ('prefix = "audit"', "hosts = [5]", 2, "5 is not the address of", "HOST:PORT"),
        ('prefix = "audit"', "hosts = []", 2, "hosts = [] is invalid", "at least 1"),
        ('prefix = "audit"', 'hosts = ["a:1"]\nhost = "b"', 3, "hosts and host: use only one", "into hosts"),
        ('prefix = "audit"', 'hosts = ["a:1"]\nport = 2003', 3, "hosts and port: use only one", "into hosts"),
        ('prefix = "audit"', 'timeout = "2h"', 2, "timeout", "less than or equal to 3600"),
        ("[graphite]", '[state]\npath = ":memory:"\n[graphite]', 2, "is not an absolute path", "Begin it with /"),
        ("//db1.internal/app", "//h:abc/app", 6, "is not a database url", "mysql+pymysql://db1.internal/app"),
        ("//db1.internal/app", "//db1.internal", 6, "names no database", "mysql+pymysql://db1.internal/app"),
        ("//db1.internal/app", "//db1/app?foo=1", 6, 'unknown option "foo"', "unix_socket"),
        ("mysql+pymysql://db1.internal/app", "sqlite:////app.db?timeout=1", 6, 'unknown option "timeout"', "Remove it"),
        ("//db1.internal/app", "//db1/app?password=x", 6, "url contains a password", "credentials"),
        ("//db1.internal/app", "//a..b/app", 6, '"a..b" is not a host', "graphite.internal"),
        ("mysql+pymysql://db1.internal/app", "sqlite:///app.db", 6, "names no database", "sqlite:////var"),
        ("mysql+pymysql://db1.internal/app", "nothing", 6, "url is not a database url", "sqlite:////var"),
        ('["login", "totp"]', '["login", 5]', 15, "is not a value to compare with", "only numbers"),
        ('["login", "totp"]', "[]", 15, "[] is not a value to compare with", "only numbers"),
        ('by = ["action"]', 'by = ["action", "measure"]', 16, "{measure} is reserved", "measure_column"),
        (
            'time = "created_at"',
            'measure = { users = "distinct:x" }',
            14,
            "distinct needs the key `time`",
            "event time",
        ),
        ('by = ["action"]', 'by = ["action"]\nmeasure = { m = "distinct" }', 17, "not a measure", '"distinct:column"'),
        (
            'by = ["action"]',
            'by = ["action"]\nsql = "SELECT COUNT( distinct x) FROM a WHERE id > :after AND id <= :upto"',
            17,
            "`sql` counts DISTINCT values, which would be added up",
            "distinct:COLUMN",
        ),
    ],
)
def test_problem(tmp_path: Path, old: str, new: str, line: int, message: str, remedy: str) -> None:
    """Each problem is reported with its line, its cause, and a remedy."""
    assert old in GOOD
    file = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load(file)
    output = f"{caught.value}\n    {caught.value.hint}"

    assert re.search(rf"^{re.escape(file)}:{line}: .*{re.escape(message)}", output, re.MULTILINE), output
    assert remedy in output.replace(file, "")
    assert "s3cret" not in output


@pytest.mark.parametrize("key", ["defaults", "job", "source", "state", "graphite"])
def test_section_is_no_table(tmp_path: Path, key: str) -> None:
    """A value in place of a section is reported like every other problem, also beside others."""
    sections = re.split(r"^(?=\[)", GOOD.replace('"created_at"', "5"), flags=re.MULTILINE)
    text = "".join(section for section in sections if not section.startswith(f"[{key}"))
    with pytest.raises(ConfigError, match=rf"shipper.toml:1: {key} = 5 is invalid"):
        load(write(tmp_path, f"{key} = 5\n{text}"))


def test_late_is_of_the_source(tmp_path: Path) -> None:
    """Every job has the `late` of its source. Mutant: a job keeps the default."""
    text = GOOD.replace("[defaults]", f'{SECOND}late = "90m"\n[defaults]\nsource = ["app", "other"]')
    config = load(write(tmp_path, text.replace('"logins.', '"{source}.logins.')))

    assert {name: job.late for name, job in config.jobs.items()} == {"logins@app": 21_600, "logins@other": 5400}


def test_default_that_no_job_takes(tmp_path: Path) -> None:
    """A problem in [defaults] is reported although every job overrides the key. Mutant: look at jobs only."""
    text = GOOD.replace('every = "1m"', 'every = "1 minute"').replace('id = "id"', 'id = "id"\nevery = "30s"')
    with pytest.raises(ConfigError, match=r'shipper.toml:9: "1 minute" is not a duration'):
        load(write(tmp_path, text))


def test_all_problems_at_once(tmp_path: Path) -> None:
    """One run reports every problem once, in the order of the file, each with its line."""
    text = GOOD.replace('"1m:30d,1h:5y"', '"x"').replace('"1m"', '"y"').replace('"created_at"', "5")
    text += '[job.second]\ntable = "t"\nid = "id"\nname = "second.{measure}"\n'
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    lines = [int(number) for number in re.findall(r"shipper.toml:(\d+):", str(caught.value))]

    assert lines == [3, 9, 14]


def test_no_file(tmp_path: Path) -> None:
    """A missing file is reported with a remedy."""
    with pytest.raises(ConfigError, match="No such file") as caught:
        load(str(tmp_path / "none.toml"))

    assert "--config" in str(caught.value.hint)


def test_file_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that exists, but cannot be read, has that remedy. Mutant: that of a missing file."""

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match="Permission denied") as caught:
        load(str(tmp_path / "shipper.toml"))

    assert str(caught.value.hint).startswith("Let this user read the file")


def test_not_utf8(tmp_path: Path) -> None:
    """A file in another encoding is reported."""
    file = tmp_path / "shipper.toml"
    file.write_bytes(b'title = "\xff"')
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(str(file))


def test_credentials_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials are a systemd credential, or a file beside the configuration; the error names both places."""
    text = GOOD.replace("[defaults]", 'credentials = "mysql.cnf"\n[defaults]')
    config = load(write(tmp_path, text))
    with pytest.raises(ConfigError, match=re.escape(f"there is no file {tmp_path}/mysql.cnf")):
        config.access("app")
    for spoiled in ("user = me\n", "[mysqld]\n", "[client]\nport = abc\n", "[client]\nuser=a\nuser=b\n"):
        (tmp_path / "mysql.cnf").write_text(spoiled)
        with pytest.raises(ConfigError, match="read credentials") as caught:
            config.access("app")
        assert caught.value.hint
    (tmp_path / "mysql.cnf").write_text("[client]\n")
    assert config.access("app").option_file == f"{tmp_path}/mysql.cnf"
    (tmp_path / "creds").mkdir()
    (tmp_path / "creds/mysql.cnf").write_text("[client]\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", f"{tmp_path}/creds")
    assert config.access("app").option_file == f"{tmp_path}/creds/mysql.cnf"


def test_credentials_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that exists, but that this user may not read, has another remedy than one that is missing."""
    config = load(write(tmp_path, GOOD.replace("[defaults]", 'credentials = "mysql.cnf"\n[defaults]')))
    (tmp_path / "mysql.cnf").write_text("[client]\n")
    monkeypatch.setattr(os, "access", lambda *_, **__: False)  # root may read every file
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path}/mysql.cnf exists, but this user may not")) as caught:
        config.access("app")

    assert caught.value.hint == "Run the command as root or as the service's user."


@pytest.mark.parametrize("has_file", [False, True])
def test_credentials_that_the_unit_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_file: bool) -> None:
    """The service names `check`, which knows the unit: a file that all users can read would be the wrong remedy."""
    config = load(write(tmp_path, GOOD.replace("[defaults]", 'credentials = "mysql.cnf"\n[defaults]')))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "systemd"))
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    if has_file:
        (tmp_path / "mysql.cnf").write_text("[client]\n")
    with pytest.raises(ConfigError, match=r"read credentials \"mysql.cnf\"") as caught:
        config.access("app")

    assert caught.value.hint == (
        "Run `shipper check` as root: it shows which credential systemd does not pass to the service, and the remedy."
    )


def test_state_path_under_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is in systemd's directory, unless the file has a path."""
    file = write(tmp_path, GOOD)
    assert load(file).state.path == "/var/lib/shipper/shipper.db"
    monkeypatch.setenv("STATE_DIRECTORY", "/run/here")
    assert load(file).state.path == "/run/here/shipper.db"


def _uncommented(text: str) -> str:
    return re.sub(r"^#(\w+ *= )", r"\1", text, flags=re.MULTILINE)


def test_reference_loads(tmp_path: Path) -> None:
    """The sample is valid, and its commented values are the defaults."""
    reference = load(str(REFERENCE))
    defaults = load(write(tmp_path, _uncommented(REFERENCE.read_text())))

    assert defaults.graphite == reference.graphite
    assert defaults.sources == reference.sources
    assert defaults.jobs == reference.jobs
    assert defaults.state.path == "/var/lib/shipper/shipper.db"


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("state", StateSection),
        ("graphite", GraphiteSection),
        ("limits", LimitsSection),
        ("source", SourceSection),
        ("job", JobSection),
    ],
)
def test_reference_shows_every_key(name: str, section: type[Section]) -> None:
    """Each section of the sample has exactly the known keys."""
    _, _, after = REFERENCE.read_text().partition(f"\n[{name}")
    body = re.split(r"^\[", after, flags=re.MULTILINE)[0]

    assert set(section.model_fields) == set(re.findall(r"^(?:# ?)?(\w+) *=", body, re.MULTILINE))


def test_further_files_add_jobs(tmp_path: Path) -> None:
    """Files of conf.d add jobs, which also use [defaults]."""
    file = write(tmp_path, GOOD.replace('every = "1m"', 'every = "2m"\nbucket = "2m"'))
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/orders.toml").write_text('[job.orders]\ntable = "o"\nid = "id"\nname = "orders.{measure}"\n')
    (tmp_path / "conf.d/README").write_text("no TOML")
    config = load(file)

    assert list(config.jobs) == ["orders", "logins"]
    assert config.jobs["orders"].every == 120


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('[job.logins]\ntable = "o"\n', 1, "is defined in {main} and in {further}"),
        ("\n[graphite]\nport = 1\n", 2, '"graphite" is not a job'),
        ('[job.x]\ntable = "o"\nid = "id"\nname = "x.{measure}"\nevrey = 1\n', 5, 'no such key "evrey"'),
        ('[job.x]\ntable = "o"\n', 1, '"name" is missing'),
        ("[job.x", 1, "Expected"),
        ("[job]\nx = 5\n", 2, "x = 5 is invalid"),
        ("job = 3\n", 1, "job is not a section"),
    ],
)
def test_problem_in_further_file(tmp_path: Path, text: str, line: int, message: str) -> None:
    """A problem in a file of conf.d is reported with the name and line of that file."""
    main = write(tmp_path, GOOD)
    (tmp_path / "conf.d").mkdir()
    further = tmp_path / "conf.d/more.toml"
    further.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(main)

    expected = message.format(main=main, further=further)
    assert re.search(rf"^{re.escape(str(further))}:{line}: .*{re.escape(expected)}", str(caught.value), re.MULTILINE)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("port = 1", [("127.0.0.1", 1)]),
        ('host = "::1"', [("::1", 2003)]),
        ('host = "[::1]"', [("::1", 2003)]),
        (
            'hosts = ["a.b:1", "[fe80::1%eth0]:2", "127.0.0.1:65535"]',
            [("a.b", 1), ("fe80::1%eth0", 2), ("127.0.0.1", 65535)],
        ),
    ],
)
def test_receivers(tmp_path: Path, given: str, expected: list[tuple[str, int]]) -> None:
    """Brackets do not belong to an IPv6 address; hosts takes the place of host and port."""
    assert load(write(tmp_path, GOOD.replace('prefix = "audit"', given))).graphite.addresses == expected


def test_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values may come from the environment, a file or a systemd credential; no output shows them."""
    source = 'host = { env = "DB" }\ndatabase = "app"\nuser = { file = "user" }\npassword = { credential = "pw" }\n'
    file = write(tmp_path, GOOD.replace('url = "mysql+pymysql://db1.internal/app"\n', source))
    monkeypatch.setenv("DB", "db1.internal")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "user").write_text("me\n")
    (tmp_path / "pw").write_text("s3cret:/@\n")
    access = load(file).access("app")

    assert (access.url.host, access.url.username, access.url.password) == ("db1.internal", "me", "s3cret:/@")
    assert str(access) == "mysql db1.internal/app"
    assert access.verifies == "verify-identity"


def test_credential_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential is systemd's, or a file beside the configuration; without connections none is needed."""
    source = 'host = "db1.internal"\ndatabase = "app"\npassword = { credential = "pw" }\n'
    file = write(tmp_path, GOOD.replace('url = "mysql+pymysql://db1.internal/app"\n', source))
    assert load(file, with_credentials=False).jobs
    with pytest.raises(ConfigError, match="has no value"):
        load(file)
    (tmp_path / "pw").write_text("beside")
    assert load(file).access("app").url.password == "beside"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "systemd"))
    (tmp_path / "systemd").mkdir()
    (tmp_path / "systemd/pw").write_text("given")

    assert load(file).access("app").url.password == "given"
    write(tmp_path, GOOD.replace('"mysql+pymysql://db1.internal/app"', '{ credential = "no-url" }'))
    assert load(file, with_credentials=False).jobs


def test_reference_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The value of a reference may contain a password, and messages hide it."""
    file = write(tmp_path, GOOD.replace('"mysql+pymysql://db1.internal/app"', '{ env = "URL" }'))
    monkeypatch.setenv("URL", "mysql+pymysql://me:s3cret@db1.internal/app")
    assert load(file).access("app").url.password == "s3cret"
    monkeypatch.setenv("URL", "mysql+pymysql://me:s3cret@db1.internal")
    with pytest.raises(ConfigError, match=r"shipper.toml:6: url names no database"):
        load(file)


@pytest.mark.parametrize("password", ["s3@cret", "s3@cret/part", "s3/@cret", "s3@c,ret", "s3@[cret"])
@pytest.mark.parametrize("dialect", ["mysql+pymysql", "postgresql+psycopg"])
def test_password_that_is_not_escaped(
    dialect: str, password: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No message has the part of a password that looks like a host. Mutant: check the host first."""
    file = write(tmp_path, GOOD.replace('"mysql+pymysql://db1.internal/app"', '{ env = "URL" }'))
    monkeypatch.setenv("URL", f"{dialect}://me:{password}@db1.internal/app")
    with pytest.raises(ConfigError) as caught:
        load(file)

    assert "cret" not in f"{caught.value} {caught.value.hint}"


def test_job_on_several_sources(tmp_path: Path) -> None:
    """A job on shards becomes one job for each shard, with separate names."""
    text = GOOD.replace("[defaults]", SECOND + "[defaults]").replace('"logins.', '"{source}.logins.')
    config = load(write(tmp_path, text.replace('table = "audit', 'source = ["app", "other"]\ntable = "audit')))

    assert {name: (job.source, job.template) for name, job in config.jobs.items()} == {
        "logins@app": ("app", "audit.app.logins.{action}.{measure}"),
        "logins@other": ("other", "audit.other.logins.{action}.{measure}"),
    }


def test_tags(tmp_path: Path) -> None:
    """Tags follow the path, sorted by name; a job's tag replaces a global one."""
    text = GOOD.replace('prefix = "audit"', 'tags = { env = "test", dc = "eu" }')
    text = text.replace(
        'name = "logins.{action}.{measure}"', 'name = "logins.{measure}"\ntags = { dc = "us", act = "{action}" }'
    )

    assert load(write(tmp_path, text)).jobs["logins"].template == "logins.{measure};act={action};dc=us;env=test"


def test_same_places_of_other_measures(tmp_path: Path) -> None:
    """Two jobs may share a name if their measures differ."""
    second = SAME.replace(".count", ".{measure}") + 'measure.ms = "sum:x"\n'

    assert len(load(write(tmp_path, GOOD + second)).jobs) == 2


@pytest.mark.parametrize(
    ("default", "own", "expected"),
    [
        ('every = "1m"', 'cron = "@daily"', (None, "@daily")),
        ('cron = "@daily"', 'every = "30s"', (30, None)),
        ('cron = "@daily"', "", (None, "@daily")),
        ("", "", (60, None)),
    ],
)
def test_schedule(tmp_path: Path, default: str, own: str, expected: tuple[int | None, str | None]) -> None:
    """The `every` or `cron` of a job replaces either default. Mutant: let a default cron win."""
    text = GOOD.replace('every = "1m"', default).replace('table = "audit', own + '\ntable = "audit')
    job = load(write(tmp_path, text)).jobs["logins"]

    assert (job.every, job.cron) == expected


@pytest.mark.parametrize(
    ("default", "own", "expected"),
    [
        ('time = "at"', 'time_sql = "a + b"', ("time_sql", "a + b", None)),
        ('time_sql = "a + b"', 'time = "at"\ntime_unit = "ms"', ("at", None, "ms")),
        ('time_sql = "a + b"', "", ("time_sql", "a + b", None)),
        ('time_unit = "us"', 'time = "at"', ("at", None, "us")),
    ],
)
def test_time(tmp_path: Path, default: str, own: str, expected: tuple[str | None, ...]) -> None:
    """The `time` or `time_sql` of a job replaces either default. Mutant: let a default time win."""
    text = GOOD.replace('every = "1m"', default).replace('time = "created_at"', own)
    query = load(write(tmp_path, text)).jobs["logins"].query

    assert (query.time, query.time_sql, query.time_unit) == expected
