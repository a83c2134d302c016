"""Shell. Values that stand elsewhere: `{ env = "X" }`, `{ file = "..." }`, `{ credential = "..." }`."""

import configparser
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shipper.config.problems import Place, Problem
from shipper.errors import ConfigError

KINDS = ("env", "file", "credential")
OPTION_FILE_HINT = "Write a MySQL option file there: [client], user = NAME, password = SECRET; readable for this user."


def resolved(raw: dict[str, Any], folder: Path, secrets: list[str]) -> tuple[dict[str, Any], list[Problem]]:
    """Put in what the references of [state], [graphite] and [source.*] lead to; note it in secrets."""
    problems: list[Problem] = []
    result = dict(raw)
    for section in ("state", "graphite", "source"):
        if section in result:
            result[section] = _resolved(result[section], (section,), folder, secrets, problems)
    return result, problems


def option_file(name: str, source: str, folder: Path) -> str:
    """Return the path of a source's MySQL option file: a systemd credential, or a file beside the configuration.

    Raises:
        ConfigError: there is none, with the places where it was looked for.
    """
    places = [folder / name]
    if directory := os.environ.get("CREDENTIALS_DIRECTORY"):
        places.insert(0, Path(directory) / name)
    for place in places:
        if place.is_file() and os.access(place, os.R_OK):
            _check_option_file(place)
            return str(place)
    raise ConfigError(
        f'read credentials "{name}" of source "{source}": none readable at {", ".join(map(str, places))}',
        hint=OPTION_FILE_HINT,
    )


def _resolved(value: Any, place: Place, folder: Path, secrets: list[str], problems: list[Problem]) -> Any:
    if not isinstance(value, dict):
        return value
    is_reference = len(value) == 1 and set(value) <= set(KINDS) and all(isinstance(one, str) for one in value.values())
    if not is_reference or place in {("source",), ("graphite", "tags")}:
        return {key: _resolved(one, (*place, key), folder, secrets, problems) for key, one in value.items()}
    ((kind, name),) = value.items()
    looked: list[str] = []
    for looked_at, found in _found(kind, name, folder):
        looked.append(looked_at)
        if found is not None:
            text = found.rstrip("\n")
            secrets.extend([text] if text else [])
            return text
    remedy = f"Looked at: {', '.join(looked)}." if looked else "CREDENTIALS_DIRECTORY is not set: systemd sets it."
    problems.append(Problem(place, f'{{ {kind} = "{name}" }} leads nowhere', remedy))
    return None


def _found(kind: str, name: str, folder: Path) -> Iterator[tuple[str, str | None]]:
    """Yield the places where a reference may lead, and what is there."""
    if kind == "env":
        yield f"the environment variable {name}", os.environ.get(name)
        return
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    base = folder if kind == "file" else Path(directory) if directory else None
    if base is not None:
        try:
            yield str(base / name), (base / name).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            yield f"{base / name} ({getattr(error, 'strerror', None) or 'not a text'})", None


def _check_option_file(file: Path) -> None:
    """Refuse what PyMySQL would stumble over."""
    parser = configparser.RawConfigParser(allow_no_value=True)
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
        parser["client"].getint("port", 0)
    except (configparser.Error, KeyError, ValueError) as error:
        reason = (
            str(error).partition("\n")[0] if isinstance(error, configparser.Error) else "no usable [client] section"
        )
        raise ConfigError(f"read credentials {file}: {reason}", hint=OPTION_FILE_HINT) from None
