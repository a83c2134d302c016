"""Limits of the configuration: a value equal to a limit is accepted, one step beyond it is rejected."""

from pathlib import Path

import pytest
from pydantic_core import PydanticCustomError

from shipper.config.load import load
from shipper.config.values import retentions
from shipper.core.errors import ConfigError
from shipper.core.model import Archive

GOOD = """\
[graphite]
prefix = "audit"
retentions = "1m:30d,1h:5y"
[source.app]
url = "mysql+pymysql://db1.internal/app"
[job.logins]
every = "1m"
table = "audit_trail"
id = "id"
time = "created_at"
by = ["action"]
name = "logins.{action}.{measure}"
"""
URL = 'url = "mysql+pymysql://db1.internal/app"'
EVERY = 'every = "1m"\n'
NAMES = 'table = "audit_trail"\nid = "id"\n'
TIME = 'time = "created_at"'
BY = 'by = ["action"]'
WRITES = '"1m:30d,1h:5y"'
PREFIX = 'prefix = "audit"'


@pytest.mark.parametrize(
    ("old", "accepted", "rejected", "message"),
    [
        # the last replay, within the two hours in which archives still accept captured rows
        (PREFIX, 'replay = ["2h"]', 'replay = ["7201s"]', "the last replay comes too late"),
        (PREFIX, 'replay = ["1m", "2h"]', 'replay = ["1m", "7201s"]', "the last replay comes too late"),
        (
            PREFIX,
            'replay = ["1s", "5s"]\nrender_url = "http://graphite"',
            'replay = ["1s", "4s"]\nrender_url = "http://graphite"',
            "values would be taken as stored before the first sample is read back",
        ),
        (PREFIX, 'replay = ["2m", "2m"]', 'replay = ["2m", "1m"]', "replay is not in order"),
        # a late row must find its total in the state
        (URL, f'{URL}\nlate = "2d"', f'{URL}\nlate = "172801s"', "`late` is longer than [state] keep"),
        (
            f"[source.app]\n{URL}",
            f'[state]\nkeep = "3d"\n[source.app]\n{URL}\nlate = "3d"',
            f'[state]\nkeep = "3d"\n[source.app]\n{URL}\nlate = "259201s"',
            "`late` is longer than [state] keep",
        ),
        # a bucket and Carbon's finest step, a bucket and a tick
        (TIME, f'{TIME}\nbucket = "1m"', f'{TIME}\nbucket = "59s"', "would overwrite each other"),
        (TIME, f'{TIME}\nbucket = "2m"', f'{TIME}\nbucket = "61s"', "would overwrite each other"),
        (
            f"{EVERY}{NAMES}{TIME}",
            f'every = "2m"\n{NAMES}bucket = "2m"',
            f'every = "121s"\n{NAMES}bucket = "2m"',
            "`bucket` is shorter",
        ),
        # one archive: two hours for replays, ten minutes at its edge, two buckets, a tick
        (WRITES, '"1m:133m"', '"1m:132m"', "too short for job"),
        # two: what makes an hour together, and the same
        (WRITES, '"1m:73m,1h:5y"', '"1m:72m,1h:5y"', "too short for job"),
        (WRITES, '"1m:30d,1h:31d"', '"1m:30d,1h:30d"', "carbon would reject"),
        # a maximum that was sent cannot be taken back, nor can a minimum
        *(
            (
                BY,
                f'{BY}\nmeasure = {{ x = "{kind}:n" }}',
                f'{BY}\nlookback = "1h"\nmeasure = {{ x = "{kind}:n" }}',
                "max and min do not work",
            )
            for kind in ("max", "min")
        ),
        (
            BY,
            f'{BY}\nlookback = "1h"\nmeasure = {{ n = "count", x = "sum:n" }}',
            f'{BY}\nlookback = "1h"\nmeasure = {{ n = "count", x = "sum:n", y = "min:n" }}',
            "max and min do not work",
        ),
    ],
)
def test_limit(tmp_path: Path, old: str, accepted: str, rejected: str, message: str) -> None:
    """A limit accepts exactly its last second. Mutants: < for <=; one kind of two."""
    file = tmp_path / "shipper.toml"
    assert GOOD.count(old) == 1
    file.write_text(GOOD.replace(old, accepted))
    load(str(file))
    file.write_text(GOOD.replace(old, rejected))
    with pytest.raises(ConfigError) as caught:
        load(str(file))

    assert message in f"{caught.value}"


@pytest.mark.parametrize(
    ("every", "bucket", "length", "is_enough"),
    [
        ("1m", "1m", "1m:133m", True),
        ("2m", "1m", "1m:134m", True),
        ("2m", "1m", "1m:133m", False),
        ("1m", "2m", "1m:135m", True),
        ("1m", "2m", "1m:134m", False),
        # a bucket as long as the coarser slot is the same in both archives, and needs no room in the finer one
        ("1m", "30m", "1m:73m,1h:5y", False),
        ("1m", "1h", "1m:73m,1h:5y", True),
        ("1m", "2h", "1m:73m,1h:5y", True),
        ("1m", "90m", "1m:73m,1h:5y", False),
    ],
)
def test_room(tmp_path: Path, every: str, bucket: str, length: str, is_enough: bool) -> None:  # noqa: FBT001 - a table
    """An archive must have room for a tick and two buckets, until its slots are merged. Mutant: for all alike."""
    file = tmp_path / "shipper.toml"
    times = f'every = "{every}"\nbucket = "{bucket}"\n'
    file.write_text(GOOD.replace(EVERY, times).replace(WRITES, f'"{length}"'))
    if is_enough:
        load(str(file))
        return
    with pytest.raises(ConfigError, match="too short"):
        load(str(file))


DAY = 86_400


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1m:1d", (Archive(60, DAY),)),
        (" 1m:1d , 5m:2d ", (Archive(60, DAY), Archive(300, 2 * DAY))),
        ("1m:1h,1h:1d", (Archive(60, 3600), Archive(3600, DAY))),  # an hour of minutes makes one hour
        ("1m:59m,1h:1d", None),
        ("1m:1d,1h:1d", None),  # reaches no further back
        ("1m:2d,1h:1d", None),
        ("1m:1d,1h:25h", (Archive(60, DAY), Archive(3600, 25 * 3600))),
        ("1m:1d,1m:2d", None),  # the same step
        ("1m:1d,90s:2d", None),  # no multiple
        ("1m:1d,2m:2d", (Archive(60, DAY), Archive(120, 2 * DAY))),
        ("5m:1d,1m:2d", None),
        ("1m:1d,1h:2d,1h:3d", None),
        ("1m:1m", (Archive(60, 60),)),
        ("1m:59s", None),
        ("1m:90s", None),
    ],
)
def test_retentions(written: str, expected: tuple[Archive, ...] | None) -> None:
    """Shipper accepts the archives that Whisper accepts. Mutants: equal durations, equal steps, 59 minutes."""
    if expected is not None:
        assert retentions(written) == expected
        return
    with pytest.raises(PydanticCustomError):
        retentions(written)
