"""Carbon's own files, with anything in them."""

import re
import signal
import tempfile
from pathlib import Path

import pytest
from builders import MINIMAL
from hypothesis import example, given
from hypothesis import strategies as st

from shipper.config.load import Config, load
from shipper.core.errors import ConfigError
from shipper.diagnostics import carbon_diff

DEEP, LONG = "(" * 5000, "9" * 5000
LINES = st.lists(
    st.sampled_from(
        [
            *("[cache]", "[cache]", "[relay]", "[a]", "[DEFAULT]", "[", "= x", " continued", "\0", "x"),
            *("pattern = .", "pattern", "pattern =", "pattern = (", "pattern = a{99999999999}", f"pattern = {DEEP}"),
            *(
                f"retentions = {one}"
                for one in ("60s:7d", "0:1d", "0s:1d", "1m", "", "1m:1d,,", "\u00b2:1", f"{LONG}:1")
            ),
            *("pattern = %", "pattern = a%%b", "x = %(pattern)s", "x = %(x)s", "[b]"),
            *("xFilesFactor = x", "xFilesFactor = nan", "aggregationMethod", "LINE_RECEIVER_PORT = x", LONG, DEEP),
            *(f"MAX_RECEIVER_CONNECTIONS = {one}" for one in ("2", "\u00b2", LONG)),
            *("USE_WHITELIST = yes", "CONF_DIR = \0", f"CONF_DIR = {'/x' * 3000}", "MAX_CREATES_PER_MINUTE = x"),
        ]
    ),
    max_size=8,
)
NAMES = ("storage-schemas.conf", "storage-aggregation.conf", "carbon.conf", "other.conf", "whitelist.conf")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Give a configuration with a job."""
    file = tmp_path_factory.mktemp("carbon") / "shipper.toml"
    file.write_text(MINIMAL)
    return load(str(file))


@given(LINES.map("\n".join).map(str.encode) | st.binary(max_size=60), st.sampled_from(NAMES))
@example(b"[a]\npattern = .\n", "storage-schemas.conf")
@example(b"[a]\npattern = .\nretentions = 0:1d\n", "storage-schemas.conf")
@example(f"[a]\nMAX_RECEIVER_CONNECTIONS = {LONG}\n".encode(), "carbon.conf")
@example(b"[a]\nUSE_WHITELIST = yes\nCONF_DIR = \0\n", "carbon.conf")
@example(b"a{99999999999}\n", "whitelist.conf")
@example(DEEP.encode(), "whitelist.conf")
def test_any_bytes(config: Config, content: bytes, name: str) -> None:
    """A file is compared, or rejected with a remedy. Mutants: read stanzas, or settings, without a look at errors."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(carbon_diff, "FOLDERS", (Path(folder),))
        (Path(folder) / name).write_bytes(content)
        carbon_diff.folder_of(config)
        try:
            carbon_diff.diff(config, f"{folder}/{name}")
        except ConfigError as error:
            assert error.hint  # noqa: PT017 - some contents are good


@pytest.mark.parametrize("name", NAMES[:3])
@pytest.mark.parametrize(
    ("text", "reason", "remedy"),
    [
        (
            "[cache]\nMAX_CREATES_PER_MINUTE = 50\n[cache]\nMAX_CREATES_PER_MINUTE = inf\n",
            ":3: section [cache] exists already",
            "Merge both sections [cache] into one: Carbon cannot read the file either.",
        ),
        (
            "[cache]\nMAX_CREATES_PER_MINUTE = 50\nMAX_CREATES_PER_MINUTE = inf\n",
            ":3: max_creates_per_minute exists already in [cache]",
            "Keep only one of the two lines with max_creates_per_minute: Carbon cannot read the file either.",
        ),
        ("x = 1\n", ":1: not KEY = VALUE in a section", "Correct this line: Carbon cannot read the file either."),
        ("[a]\n\nx\n", ":3: not KEY = VALUE in a section", "Correct this line: Carbon cannot read the file either."),
    ],
)
def test_syntax_errors(config: Config, tmp_path: Path, name: str, text: str, reason: str, remedy: str) -> None:
    """A file with an error of syntax is named with the line, and what to do.

    Mutants: look for the port in what the parser has read until the error; skip a carbon.conf with an error.
    """
    (tmp_path / "carbon.conf").touch()
    (tmp_path / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carbon_diff, "FOLDERS", (tmp_path,))
        folder = carbon_diff.folder_of(config)
    with pytest.raises(ConfigError) as raised:
        carbon_diff.diff(config, f"{tmp_path}/{name}")

    assert (str(raised.value), raised.value.hint) == (f"read {tmp_path}/{name}{reason}", remedy)
    assert folder == (tmp_path if name == "carbon.conf" else None)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("pattern", ["(.+)+!", r"^(\w+\.?)+!$"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("storage-schemas.conf", "[slow]\npattern = {}\nretentions = 1m:1d\n"),
        ("storage-aggregation.conf", "[slow]\npattern = {}\n"),
        ("whitelist.conf", "{}\n"),
        ("carbon.conf", "[cache]\nUSE_WHITELIST = yes\n"),
    ],
)
def test_search_without_end(
    config: Config, tmp_path: Path, name: str, text: str, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that takes minutes ends, and names its pattern; the timer of others stays. Mutant: search on."""
    monkeypatch.setattr(carbon_diff, "SEARCH_SECONDS", 0.3, raising=False)
    (tmp_path / "whitelist.conf").write_text(f"{pattern}\n")
    (tmp_path / name).write_text(text.format(pattern))
    before, timer = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]
    message = re.escape(f"pattern {pattern} takes longer than 0.3 s to match ")
    with pytest.raises(ConfigError, match=message) as caught:
        carbon_diff.diff(config, str(tmp_path / name))

    assert (tmp_path / ("whitelist.conf" if name == "carbon.conf" else name)).name in str(caught.value)
    assert "the same time for each series" in str(caught.value.hint)
    assert signal.getsignal(signal.SIGALRM) is before
    assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= timer


def test_no_file(config: Config) -> None:
    """A device has no end. Mutant: read all of it."""
    with pytest.raises(ConfigError, match="read /dev/zero: it is a device"):
        carbon_diff.diff(config, "/dev/zero")
