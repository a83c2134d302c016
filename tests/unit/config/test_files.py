"""Files with anything in them: they give a configuration, or problems with lines, and nothing else."""

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shipper.config import files
from shipper.config.keys import (
    GraphiteSection,
    JobSection,
    LimitsSection,
    Section,
    SourceSection,
    StateSection,
    StatusSection,
)
from shipper.config.load import load
from shipper.config.references import option_file
from shipper.core.errors import ConfigError
from shipper.source.access import Access
from shipper.source.dialects.mysql_driver import option

GOOD = """\
[graphite]
prefix = "audit"
tags = { dc = "north" }
retentions = "1m:30d,1h:5y"

[status]
listen = "127.0.0.1:9119"

[source.app]
url = "mysql+pymysql://db1.internal/app"
timeout = "30s"

[job.logins]
table = "audit_trail"
id = "id"
time = "created_at"
where = { outcome = "failure", duration_ms = { ge = 1 } }
by = ["action"]
by_sql = { action = "LOWER(action)" }
names = { action = { a = "b" } }
measure = { count = "count", users = "max:user" }
name = "logins.{action}.{measure}"
groups = ["b"]
zeros = "7d"
"""
LINE = 18  # of `by`
BY = 'by = ["action"]'


def put(folder: Path, content: bytes) -> str:
    """Write a configuration, and return its path."""
    file = folder / "shipper.toml"
    file.write_bytes(content)
    return str(file)


def spoiled(line: str) -> bytes:
    """Return the configuration with another line in the place of `by`."""
    return GOOD.replace(BY, line).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf# \xc3\xa9\r\n" + GOOD.encode(),
    ],
)
def test_text_of_other_editors(tmp_path: Path, content: bytes) -> None:
    """A byte order mark and lines that end as in Windows mean nothing. Mutant: read the mark as a part of the text."""
    assert list(load(put(tmp_path, content)).jobs) == ["logins"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r":1: \"graphite\" is missing"),
        (GOOD.encode("utf-16"), "it is not UTF-8 text"),
        (GOOD.replace("north", "n\xf6rd").encode("latin-1"), "it is not UTF-8 text"),
        (spoiled(f"# \0\n{BY}"), f":{LINE}: a NUL character"),
        (GOOD.encode("utf-16-le"), ":1: a NUL character"),
        (spoiled(f"by = {'[' * 5000}{']' * 5000}"), f":{LINE}: nested too deeply"),
        (spoiled(f"by = {'[' * 200_000}"), f":{LINE}: nested too deeply"),
        (spoiled("by = " + "{a=" * 900 + "1" + "}" * 900), f":{LINE}: nested too deeply"),
        (spoiled("by" + ".a" * 900 + " = 1"), f":{LINE}: nested too deeply"),
        (spoiled(f"chunk = {'9' * 5000}"), f":{LINE}: a number of 5000 digits"),
        (spoiled(f"chunk = 0x{'f' * 5000}"), f":{LINE}: chunk = a number with thousands of digits is invalid"),
        (spoiled(f"chunk = {'9' * 4000}"), f":{LINE}: chunk = {'9' * 200}[.]{{3}} is invalid"),
        (spoiled(f'every = "{"9" * 5000}s"'), f':{LINE}: "9+[.]{{3}} is not a duration'),
        (spoiled('every = "999999999999d"'), f':{LINE}: "999999999999d" is not a duration'),
        (spoiled("start = 2026-13-45"), f":{LINE}: .*at line {LINE}"),
        (spoiled("by = ['a']\nby = ['a']"), f":{LINE + 1}: .*overwrite"),
        (spoiled('null_as = "a\x1b[31m"'), f":{LINE}: "),
        (GOOD.replace('"127.0.0.1:9119"', '"unix:/run/x\\u0000y"').encode(), ':7: "listen" contains a NUL character'),
        (GOOD.replace("127.0.0.1:9119", f"unix:/{'x' * 107}").encode(), ":7: .* is too long"),
        (GOOD.replace("127.0.0.1:9119", "127.0.0.1:\u00b2").encode(), ":7: .* is no loopback address"),
        (GOOD.replace("listen", "lissen").encode(), ':7: no such key "lissen"'),
        (
            GOOD.replace("by_sql = {", 'sql = "SELECT \\u0000"\nby_sql = {').encode(),
            f':{LINE + 1}: "sql" contains a NUL character',
        ),
        (b"#" * (files.MOST_BYTES + 1), "it is larger than 4 MB"),
    ],
    ids=range(23),
)
def test_spoiled(tmp_path: Path, content: bytes, message: str) -> None:
    """Each is one error with a file, a line if there is one, and a remedy."""
    file = put(tmp_path, content)
    with pytest.raises(ConfigError, match=f"{file}:? ?{message}") as caught:
        load(file)

    assert caught.value.hint or "\n    " in str(caught.value)
    assert len(str(caught.value)) < 5000


def test_longest_socket(tmp_path: Path) -> None:
    """A path of 107 bytes fits into an address. Mutant: accept fewer."""
    listen = f"unix:/{'x' * 106}"

    assert load(put(tmp_path, GOOD.replace("127.0.0.1:9119", listen).encode())).status.listen == listen


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe without end, a directory and a device are errors at once, or after a limit.

    Mutants: wait for a writer; advise to write a file where there is something.
    """
    monkeypatch.setattr(files, "READ_SECONDS", 0.1)
    os.mkfifo(tmp_path / "fifo")
    for path, message, remedy in (
        (tmp_path / "fifo", "it is a pipe that did not end within 0 s", "Make it UTF-8 text"),
        (tmp_path, "it is a directory", "Make it UTF-8 text"),
        (Path("/dev/zero"), "it is a device", "Make it UTF-8 text"),
        (tmp_path / "nothing", "No such file or directory", "or write one with `shipper init`"),
        (Path("a\0b"), "(open: )?embedded null ", "name another file"),  # byte; character in Python 3.13
    ):
        with pytest.raises(ConfigError, match=f"read configuration .*: {message}") as caught:
            load(str(path))
        assert remedy in str(caught.value.hint)


def test_pipe_of_a_command() -> None:
    """`--config <(command)` works, however late the command writes."""
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "wb") as stream:
        child = os.fork()
        if child == 0:
            os.write(writer, GOOD[:100].encode())
            os.write(writer, GOOD[100:].encode())
            os._exit(0)
        stream.close()
        assert list(load(f"/dev/fd/{reader}").jobs) == ["logins"]
    os.waitpid(child, 0)


CREDENTIALS = GOOD.replace("[job.", 'credentials = "mysql.cnf"\n[job.')


@pytest.mark.parametrize(
    ("content", "message", "remedy"),
    [
        (b"\xef\xbb\xbf[client]\nuser = me\n", "begins with a byte order mark", "without that mark"),
        ("[client]\nuser = m\xe9\n".encode("latin-1"), "not UTF-8 text", "Write a MySQL option file"),
        ("[client]\nuser = me\n".encode("utf-16"), "not UTF-8 text", "Write a MySQL option file"),
        (b"[client]\nuser = a\nuser = b\n", "option 'user' in section 'client' already exists", "Remove one"),
        (b"[client]\nuser = a\n[client]\n", "section 'client' already exists", "Remove one"),
        (b"!includedir /etc/mysql\n[client]\n", "no section headers", "Write a MySQL option file"),
        (b"[client]\nssl-ca = a\nssl_ca = b\n", "option 'ssl-ca' in section 'client' already exists", "Remove one"),
        (b"[mysqld]\n", r"no usable \[client\] section", "Write a MySQL option file"),
        (
            b"[client]\npassword\n correct-horse\n",
            "an indented line follows an option without a value",
            "Write a MySQL option file",
        ),
        (b"[client]\npassword\n", "password and port need a value", "Write a MySQL option file"),
        (b"[client]\nport\n", "password and port need a value", "Write a MySQL option file"),
        (b"[client]\npassword = correct-horse\n= x\n", "parsing errors", "Write a MySQL option file"),
        (b"#" * (files.MOST_BYTES + 1), "larger than 4 MB", "Write a MySQL option file"),
    ],
    ids=range(13),
)
def test_option_file(tmp_path: Path, content: bytes, message: str, remedy: str) -> None:
    """An option file that PyMySQL would not read is an error with its reason, and without its secrets."""
    config = load(put(tmp_path, CREDENTIALS.encode()))
    (tmp_path / "mysql.cnf").write_bytes(content)
    with pytest.raises(ConfigError, match=f"read credentials .*{message}") as caught:
        config.access("app")

    assert remedy in str(caught.value.hint)
    assert "correct-horse" not in str(caught.value)


@pytest.mark.parametrize("content", [b"[client]\r\nuser = me\r\n", b"[client]\nuser\npassword = 'a#\"'\n"])
def test_option_file_that_works(tmp_path: Path, content: bytes) -> None:
    """Lines that end as in Windows, options without a value, and quotes are accepted."""
    config = load(put(tmp_path, CREDENTIALS.encode()))
    (tmp_path / "mysql.cnf").write_bytes(content)

    assert config.access("app").option_file == f"{tmp_path}/mysql.cnf"


OPTIONS = st.lists(
    st.sampled_from(
        [
            *(
                "[client]",
                "[DEFAULT]",
                "[",
                "user",
                "user = me",
                "password",
                "password = '",
                "password = %(x)s",
                "port",
            ),
            *(
                "port = 5",
                "port = x",
                "port = \N{SUPERSCRIPT TWO}",
                "pass_word",
                "pass-word",
                " 5",
                "= x",
                "!include x",
            ),
        ]
    ),
    max_size=6,
)


@given(OPTIONS.map(lambda lines: "\n".join(["[client]", *lines]).encode()) | st.binary(max_size=40))
@example(b"[client]\nport\n\x0b5")
@example(b"[client]\nuser")
def test_any_option_file(content: bytes) -> None:
    """An option file is rejected with a remedy, or PyMySQL reads it.

    Mutants: names as they are; no check of the port's value; an option without a value is a text.
    """
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        try:
            path = option_file(file.name, "app", Path("/"))
        except ConfigError as error:
            assert error.hint  # noqa: PT017 - some contents are good
            return
        access = Access(sa.make_url("mysql+pymysql://127.0.0.1/app"), 5, option_file=path)
        assert {type(option(access, name)) for name in ("password", "user")} <= {str, type(None)}


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Give a directory that all users may enter; pytest's are private."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_password_of_other_editors(tmp_path: Path) -> None:
    """A password is the text of its file, without mark and line end. Mutant: keep the carriage return."""
    text = GOOD.replace("[job.", 'user = "me"\npassword = { file = "password" }\n[job.')
    (tmp_path / "password").write_bytes(b"\xef\xbb\xbfcorrect-horse\r\n")

    assert load(put(tmp_path, text.encode())).sources["app"].password == "correct-horse"


@pytest.mark.parametrize(
    ("mode", "folder_mode", "is_exposed"), [(0o644, 0o755, True), (0o640, 0o755, False), (0o644, 0o700, False)]
)
def test_exposed_files(open_folder: Path, mode: int, folder_mode: int, is_exposed: bool) -> None:  # noqa: FBT001 - a table's column
    """Credentials that all users can read are known, unless no other user can reach them.

    Mutants: leave out option files, or the files of references; ignore the directory.
    """
    text = (
        CREDENTIALS
        + '[source.other]\nurl = "postgresql+psycopg://db/app"\nuser = "me"\npassword = { file = "password" }\n'
    )
    text = text.replace('table = "audit', 'source = "app"\ntable = "audit')
    for name in ("mysql.cnf", "password"):
        (open_folder / name).write_text("[client]\n")
        (open_folder / name).chmod(mode)
    open_folder.chmod(folder_mode)

    expected = [f"{open_folder}/mysql.cnf", f"{open_folder}/password"] if is_exposed else []
    assert load(put(open_folder, text.encode())).exposed_files() == expected


few = settings(max_examples=settings().max_examples // 3)  # an example takes ten milliseconds
SCALARS = st.one_of(
    st.text(max_size=8).map(lambda text: '"' + "".join(f"\\U{ord(c):08x}" for c in text) + '"'),
    st.integers().map(str),
    st.floats().map(lambda number: repr(number).replace("e+", "e")),
    st.sampled_from(
        ["true", "2026-01-01", "2026-01-01T00:00:00Z", "07:32:00", '"1m"', '"a;b=c"', '"{measure}"', '""', "[]", "{}"]
    ),
    st.tuples(
        st.sampled_from(
            ["", "unix:", "127.0.0.1", "[::1", "localhost:", "mysql+pymysql://", "sqlite:///", "1m:", "/x"]
        ),
        st.sampled_from(
            ["", "/", ":9119", ":99999", ":\u00b2", "/app?x", "]:1", "me:p@[", "1d,1h:5y", "..", "x" * 200]
        ),
        st.sampled_from(["", " ", "@", "%", "/app", "\u0661", "0", "'"]),
    ).map(lambda parts: f'"{"".join(parts)}"'),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(st.sampled_from(["a", "ge", "in", "file", "env", "time", "action"]), inner, max_size=3).map(
            lambda items: "{" + ", ".join(f"{key} = {value}" for key, value in items.items()) + "}"
        ),
    ),
    max_leaves=6,
)
SECTIONS: dict[str, type[Section]] = {
    "state": StateSection,
    "graphite": GraphiteSection,
    "status": StatusSection,
    "limits": LimitsSection,
    "source.app": SourceSection,
    "job.logins": JobSection,
    "defaults": JobSection,
}
KEYS = [(name, key) for name, section in SECTIONS.items() for key in (*section.model_fields, "other")]


def check(content: bytes) -> None:
    """Load a content: it is valid, or each of its problems has a line and a remedy."""
    with tempfile.TemporaryDirectory() as folder:
        file = put(Path(folder), content)
        try:
            load(file)
        except ConfigError as error:
            lines = str(error).splitlines() + ([f"    {error.hint}"] if error.hint else [])
            reasons = [line for line in lines if not line.startswith("    ")]
            assert reasons
            assert all(re.match(f"{file}:[0-9]+: |read configuration {file}: ", line) for line in reasons), reasons
            assert len(lines) == 2 * len(reasons)


@few
@given(st.binary(max_size=200))
@example(b"=")
@example(b"[a]\n[a]")
@example(b"a = \xff")
def test_any_bytes(content: bytes) -> None:
    """Bytes give a configuration or problems with lines, never another exception."""
    check(content)


@few
@given(st.integers(0, len(GOOD)), st.integers(0, 30), st.binary(max_size=6))
def test_bytes_in_a_good_file(place: int, length: int, added: bytes) -> None:
    """So does a good configuration in which some bytes are missing, and others are there."""
    check(GOOD[:place].encode() + added + GOOD[place + length :].encode())


@few
@given(st.sampled_from(KEYS), VALUES)
@example(("status", "other"), "1")
@example(("job.logins", "null_as"), '"a\\nb"')
def test_any_value(place: tuple[str, str], value: str) -> None:
    """So does a good configuration with any value of a key.

    Mutants: no section [status] for `suggest`; show values as they are.
    """
    section, key = place
    header = f"\n[{section}]\n"
    text = f"\n{GOOD}" if f"\n{GOOD}".count(header) else f"\n{GOOD}{header}"
    before, _, after = text.partition(header)
    own, more, others = after.partition("\n[")
    rest = re.sub(rf"^{key} = .*\n", "", f"{own}\n", flags=re.MULTILINE)
    check(f"{before}{header}{key} = {value}\n{rest}{more}{others}".encode())
