"""Names and lines: group values become paths, totals become bytes that Carbon cannot misread.

Strategy: Carbon never says no. It stores `a..b` as a file `a/b`, splits at a non-breaking space, drops the
connection at a byte that is not UTF-8 and closes it as if all were well. So whatever could be misread is made
impossible before it is stored, and refused once more before it is sent.
"""

import json
import re
from decimal import Context, Decimal
from hashlib import sha256

from shipper.core.errors import BadMetric
from shipper.core.model import Group, Job, Value

MEASURE = "measure"
MAX_VALUE = 100  # bytes of a group value in a path; a longer one is cut and gets a hash: half a node, room for more
MAX_TEMPLATE = 200  # leaves room for seven long values in a line
MAX_NODE = 251  # Whisper's file name is the node and ".wsp", at most 255 bytes
MAX_LINE = 1024  # bytes; carbon drops the connection at 16384, some relays far earlier
MAX_FLOAT = 17 * 10**307
MAX_INTEGER = 2**63  # a longer one would take long lines; Whisper keeps doubles anyhow
MAX_BRIEF = 60  # characters of a value in the log
HASH_DIGITS = (0, 6, 16, 64)

_SHORT = Context(prec=17, traps=[])  # as many digits as tell doubles apart
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
_PATH = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*(?:;[A-Za-z0-9_-]+=[A-Za-z0-9_.-]+)*")


def placeholders(template: str) -> list[str]:
    """Return the names in braces, in order."""
    return PLACEHOLDER.findall(template)


def is_template(template: str) -> bool:
    """Is this a metric path, perhaps with tags, once its placeholders are filled?"""
    return bool(_PATH.fullmatch(PLACEHOLDER.sub("x", template)))


def node(text: str) -> str:
    """Make one node of a path of any name."""
    return _UNSAFE.sub("_", text)[:MAX_VALUE] or "_"


def is_clean(group: Group) -> bool:
    """Does a path show these values as they are?"""
    return all(value and not _UNSAFE.search(value) and len(value) <= MAX_VALUE for value in group)


def brief(value: object) -> str:
    """Show any value in one short line of a log, whatever characters or digits it has."""
    if isinstance(value, int | Decimal):
        return f"{Decimal(value).normalize(_SHORT):g}"
    shown = repr(value)  # escapes all that could end a line
    return shown if len(shown) <= MAX_BRIEF else f"{shown[: MAX_BRIEF - 3]}..."


def paths_of(job: Job, group: Group, *, digits: int = 0) -> list[str]:
    """Fill a job's template for each measure; digits > 0 puts so many of the group's hash behind its last value.

    Raises:
        BadMetric: a path would be too long for Carbon.
    """
    values = {column: _clean(value, job) for column, value in zip(job.query.by, group, strict=True)}
    if digits and group:
        values[job.query.by[-1]] += "-" + _digest(group)[:digits]
    paths = []
    for measure in job.query.measures:
        values[MEASURE] = measure.name
        paths.append(job.template.format_map(values))
        _check(paths[-1])
    return paths


def line(path: str, value: Value, slot: int) -> bytes:
    r"""Render one datapoint as Carbon's line protocol: `path value timestamp\n`.

    Raises:
        BadMetric: Carbon would misread it.
    """
    _check(path)
    if not -MAX_FLOAT < value < MAX_FLOAT:  # carbon would store infinity, which poisons every sum
        raise BadMetric(f"render {path}: value out of range")
    shown = f"{value}" if isinstance(value, int) and -MAX_INTEGER < value < MAX_INTEGER else repr(float(value))
    if slot <= 0:  # carbon drops 0 and takes -1 for now
        raise BadMetric(f"render {path}: timestamp {slot} out of range")
    return f"{path} {shown} {slot}\n".encode("ascii")


def _clean(value: str | None, job: Job) -> str:
    if value is None:
        return job.null_as
    if not value:
        return job.empty_as
    clean = _UNSAFE.sub("_", value)
    if len(clean) > MAX_VALUE:
        clean = clean[: MAX_VALUE - 7] + "-" + _digest((value,))[:6]
    return clean


def _digest(group: Group) -> str:
    """Hash what an operator has at hand: the one value as it stands, else the group as the state keeps it."""
    text = group[0] if len(group) == 1 and group[0] is not None else json.dumps(group)
    return sha256(text.encode()).hexdigest()


def _check(path: str) -> None:
    if not _PATH.fullmatch(path):
        raise BadMetric(f"render: {path!r} is not a metric path")
    # 48: the value, the timestamp, two blanks and the line's end
    nodes = path.partition(";")[0].split(".") if len(path) > MAX_NODE else []
    if len(path) > MAX_LINE - 48 or any(len(node) > MAX_NODE for node in nodes):
        raise BadMetric(f"render: a path of {len(path)} bytes is too long", hint="Shorten `name`, or group by less.")
