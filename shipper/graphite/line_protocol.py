"""Carbon's line protocol: the bytes of one datapoint, which Carbon cannot misread. carbon.py sends them."""

from shipper.core.errors import BadMetric
from shipper.core.measures import Value
from shipper.core.paths import check_path

MAX_FLOAT = 17 * 10**307
MAX_INTEGER = 2**63  # larger ones would make long lines; Whisper stores doubles anyway


def line(path: str, value: Value, slot: int) -> bytes:
    r"""Return one datapoint as `path value timestamp\n`.

    Raises:
        BadMetric: Carbon would misread it.
    """
    check_path(path)
    if not -MAX_FLOAT < value < MAX_FLOAT:  # carbon would store infinity, which poisons every sum
        raise BadMetric(f"render {path}: value out of range")
    text = f"{value}" if isinstance(value, int) and -MAX_INTEGER < value < MAX_INTEGER else repr(float(value))
    if slot <= 0:  # carbon drops 0 and reads -1 as now
        raise BadMetric(f"render {path}: timestamp {slot} out of range")
    return f"{path} {text} {slot}\n".encode("ascii")
