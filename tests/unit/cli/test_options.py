"""Times as operators write them."""

import time
from contextlib import suppress
from datetime import UTC, datetime

import click
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from shipper.cli.commands import main
from shipper.cli.options import duration, format_time, instant, keep_utc

DAY = datetime(2026, 11, 23, tzinfo=UTC).timestamp()


def at(now: str, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what a text means at a time of the day, in UTC."""
    hours, minutes = map(int, now.split(":"))
    monkeypatch.setattr(time, "time", lambda: DAY + hours * 3600 + minutes * 60)
    with click.Context(click.Command("any")) as context:
        keep_utc(context, click.Option(["--utc"]), True)
        return datetime.fromtimestamp(instant(text), UTC).strftime("%d %H:%M")


@pytest.mark.parametrize(
    ("now", "text", "meaning"),
    [
        ("06:10", "06:10", "23 06:10"),
        ("06:10", "06:00", "23 06:00"),
        ("06:10", "06:11", "23 06:11"),  # a moment ahead is today
        ("06:10", "07:00", "23 07:00"),
        ("06:10", "07:10", "23 07:10"),
        ("06:10", "07:11", "22 07:11"),
        ("23:50", "00:10", "24 00:10"),
        ("23:50", "00:51", "23 00:51"),
        ("00:10", "23:50", "22 23:50"),
        ("06:10", "06:09:59", "23 06:09"),
        ("06:10", "now", "23 06:10"),
        ("06:10", "2h", "23 04:10"),
    ],
)
def test_instant(now: str, text: str, meaning: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time of day is its last occurrence, or the next one within an hour. Mutants: only the last; only today's."""
    assert at(now, text, monkeypatch) == meaning


@pytest.mark.parametrize("utc", [True, False])
@pytest.mark.parametrize("hours", range(3))
def test_printed_time(hours: int, *, utc: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time is accepted as it is printed, also when an hour repeats. Mutant: the first of both hours."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    at = int(datetime(2026, 10, 24, 23, 30, tzinfo=UTC).timestamp()) + 3600 * hours
    try:
        with click.Context(click.Command("any")) as context:
            keep_utc(context, click.Option(["--utc"]), utc)
            assert instant(format_time(at)) == at
        assert instant(datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")) == at
        with pytest.raises(click.BadParameter):
            instant("2026-10-24 23:30:00 PST")
    finally:
        monkeypatch.undo()
        time.tzset()


TEXTS = st.sampled_from(["9999-12-31T23:59:59.999999-23:59", "0001-01-01T00:00+23:59", "24:00", "100y"])


@given(st.text("0123456789:-TZ+ .Wwdhm\u0661\u00b2", max_size=25) | st.datetimes().map(str) | TEXTS)
@example("0001-01-01")
@example("9" * 5000)
def test_any_text(text: str) -> None:
    """A text is a time, a duration, or neither. Mutant: an error of `timestamp` is a bug."""
    for parse in (instant, duration):
        with suppress(click.BadParameter):
            assert isinstance(parse(text), int)


def test_id_of_any_length() -> None:
    """A place of 5,000 digits is no id. Mutant: take all digits for a number."""
    ended = CliRunner().invoke(main, ["admin", "seek", "events", "--to", "9" * 5000])

    assert (ended.exit_code, type(ended.exception)) == (2, SystemExit)
    assert "is not a time" in ended.output
