"""Copies of the state, and their return."""

import errno
import os
import sqlite3
import stat
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path

import pytest
from builders import begin, captured, job

from shipper.core.errors import ConfigError, ShipperError, StateBusy, StateCorrupt
from shipper.core.model import JobStatus
from shipper.state.copies import back_up, new_file, restore
from shipper.state.schema import APPLICATION_ID, RESTORE
from shipper.state.store import State

Agree = Callable[[Mapping[str, JobStatus]], None]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Give the path of a state whose job has counted five ids."""
    (tmp_path / "state").mkdir()
    path = str(tmp_path / "state" / "shipper.db")
    with State(path) as state:
        begin(state, job(), 5)
    return path


@pytest.fixture
def copy(path: str, tmp_path: Path) -> str:
    """Give a copy of it; later the state has another job, too."""
    name = str(tmp_path / "copy.db")
    with State(path), new_file(name) as output:  # beside the process that holds it
        back_up(path, output)
    with State(path) as state:
        begin(state, job("later"), 9)
    return name


def jobs(path: str) -> dict[str, int | None]:
    """Return the captured id of each job of a state."""
    with State(path) as state:
        return {name: known for name in ("events", "later") if (known := captured(state, name)) is not None}


def nothing(_: Mapping[str, JobStatus]) -> None:
    """Agree."""


def test_copy_of_another_user(path: str, copy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that this user may not read has that remedy. Mutant: ask for another file."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match="Permission denied") as caught:
        restore(copy, path, agree=nothing)

    assert str(caught.value.hint).startswith("Let this user read the file")


def test_backup_and_restore(path: str, copy: str) -> None:
    """The copy takes the place of the state, and the replaced state is kept complete, with its date."""
    shown: list[int] = []
    kept = restore(copy, path, agree=lambda found: shown.extend(one.offsets.captured for one in found.values()))

    assert kept is not None
    assert kept.startswith(f"{path}.replaced-20")
    assert (jobs(path), shown) == ({"events": 5}, [5])
    assert jobs(kept) == {"events": 5, "later": 9}
    assert [stat.S_IMODE(Path(file).stat().st_mode) for file in (copy, path)] == [0o600] * 2
    assert not Path(f"{path}.restoring").exists()


def test_restores_within_a_second(path: str, copy: str) -> None:
    """Each replaced state is kept under a name of its own. Mutant: the time alone."""
    kept = [restore(copy, path, agree=nothing) for _ in range(4)]

    assert len(set(kept)) == 4
    assert [jobs(str(one)) for one in kept] == [{"events": 5, "later": 9}, *[{"events": 5}] * 3]


def test_restore_where_files_have_one_name(path: str, copy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without hard links gives an error with a remedy, and the state stays."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(ConfigError, match=r"keep .*replaced-.*: Operation not permitted") as caught:
        restore(copy, path, agree=nothing)

    assert "shipper.db away yourself" in str(caught.value.hint)
    assert jobs(path) == {"events": 5, "later": 9}


def test_restore_while_it_is_used(path: str, copy: str) -> None:
    """Nothing is restored while a service, or another command, uses the state. Mutant: take no lock."""
    with State(path), pytest.raises(StateBusy, match="uses it already"):
        restore(copy, path, agree=nothing)

    assert jobs(path) == {"events": 5, "later": 9}


def test_restore_that_nobody_agrees_to(path: str, copy: str) -> None:
    """An operator who says no keeps the state, and no other file. Mutant: ask afterwards."""

    def refuse(_: Mapping[str, JobStatus]) -> None:
        raise SystemExit(1)

    with suppress(SystemExit):
        restore(copy, path, agree=refuse)

    assert jobs(path) == {"events": 5, "later": 9}
    assert {file.name for file in Path(path).parent.iterdir()} == {"shipper.db", "shipper.db.lock"}


def test_restore_over_a_damaged_state(path: str, copy: str) -> None:
    """A damaged state, and a missing one, are replaced; the damaged one is kept as it is."""
    Path(path).write_bytes(b"no database" * 1000)
    kept = restore(copy, path, agree=nothing)
    assert kept is not None
    assert Path(kept).read_bytes() == b"no database" * 1000
    Path(path).unlink()

    assert restore(copy, path, agree=nothing) is None
    assert jobs(path) == {"events": 5}


def _foreign(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE other (id)")


def _newer(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 999")


def _damaged(file: Path) -> None:
    content = bytearray(file.with_name("copy.db").read_bytes())
    content[4096:] = b"x" * (len(content) - 4096)
    file.write_bytes(content)


def _in_use(file: Path) -> None:
    file.write_bytes(file.with_name("copy.db").read_bytes())
    file.with_name(f"{file.name}-wal").write_bytes(b"x")


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda _: None, ConfigError, "restore {file}: No such file"),
        (lambda file: file.mkdir(), ConfigError, "restore {file}: Is a directory"),
        (lambda file: file.touch(), StateCorrupt, "restore {file}: this is no state of shipper"),
        (lambda file: file.write_text("text" * 1000), StateCorrupt, "restore {file}: file is not a database"),
        (_foreign, StateCorrupt, "restore {file}: this is no state of shipper"),
        (_newer, StateCorrupt, "open state {file}: it has version 999"),
        (_damaged, StateCorrupt, "restore {file}: "),
        (_in_use, ConfigError, "restore {file}: it has a file {file}-wal"),
    ],
)
def test_restore_of_something_else(
    make: Callable[[Path], None], kind: type[ShipperError], message: str, path: str, copy: str
) -> None:
    """A file that is no state of this program and version changes nothing, and the error names it.

    Mutant: the hint of a damaged state, which is to restore a copy.
    """
    file = Path(copy).with_name("other.db")
    make(file)
    with pytest.raises(kind) as caught:
        restore(str(file), path, agree=nothing)

    assert str(caught.value).startswith(message.format(file=file))
    assert caught.value.hint
    assert RESTORE not in caught.value.hint
    assert jobs(path) == {"events": 5, "later": 9}
    assert {one.name for one in Path(path).parent.iterdir()} == {"shipper.db", "shipper.db.lock"}


def test_backup_overwrites_nothing(path: str, copy: str, tmp_path: Path) -> None:
    """A file that has content, and the target of a link, stay as they are."""
    before = Path(copy).read_bytes()
    (link := tmp_path / "link").symlink_to(tmp_path / "target")
    for name in (copy, str(link), str(tmp_path / "nowhere" / "copy.db")):
        with pytest.raises(ConfigError, match=r"^create "):
            new_file(name)

    assert Path(copy).read_bytes() == before
    assert not (tmp_path / "target").exists()


def test_restore_after_a_kill(path: str, copy: str) -> None:
    """Writes that a killed process left in the -wal file are kept with the replaced state, and not mixed into the copy.

    Mutant: leave the further files where they are, and do not read them.
    """
    folder = Path(path).parent / "killed"
    folder.mkdir()
    with State(path) as state:
        begin(state, job("last"), 7)
        for suffix in ("", "-wal"):
            (folder / f"shipper.db{suffix}").write_bytes(Path(path + suffix).read_bytes())
    kept = restore(copy, str(folder / "shipper.db"), agree=nothing)

    assert kept is not None
    assert jobs(str(folder / "shipper.db")) == {"events": 5}
    with State(kept) as state:
        assert captured(state, "last") == 7


def test_restore_after_a_killed_restore(path: str, copy: str, tmp_path: Path) -> None:
    """Writes that a killed restore left in a -wal file are not mixed into the next copy. Mutant: leave that file."""
    with State(str(tmp_path / "other.db")) as state:
        begin(state, job("other"), 7)
        Path(f"{path}.restoring-wal").write_bytes((tmp_path / "other.db-wal").read_bytes())
    agreed = list[set[str]]()
    restore(copy, path, agree=lambda statuses: agreed.append(set(statuses)))

    assert agreed == [{"events"}]
    assert jobs(path) == {"events": 5}
    assert not list(Path(path).parent.glob("*.restoring*"))


def test_restore_beside_a_wal_file_without_its_state(path: str, copy: str) -> None:
    """A -wal file whose state an operator has removed is not mixed into the copy. Mutant: look at the state alone."""
    folder = Path(path).parent / "killed"
    folder.mkdir()
    with State(path) as state:
        begin(state, job("last"), 7)
        (folder / "shipper.db-wal").write_bytes(Path(f"{path}-wal").read_bytes())
    kept = restore(copy, str(folder / "shipper.db"), agree=nothing)

    assert kept is None
    with State(str(folder / "shipper.db")) as state:
        assert (captured(state, "events"), captured(state, "last")) == (5, None)
