"""Values that stand elsewhere: `{ env = "X" }`, `{ file = "..." }`, `{ credential = "..." }`."""

import configparser
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shipper.config.problems import Cursor, Problem
from shipper.core.errors import ConfigError

KINDS = ("env", "file", "credential")
NOT_READ, NOT_READ_URL = "not-read", "mysql+pymysql://not-read/not-read"
OPTION_FILE_HINT = "Write a MySQL option file there: [client], user = NAME, password = SECRET; readable for this user."


class References:
    """Those of one configuration; credentials may be left out where nothing connects."""

    def __init__(self, folder: Path, *, with_credentials: bool = True) -> None:
        """Folder is the configuration's."""
        self.secrets: list[str] = []
        """What they led to: never to be shown."""
        self.problems: list[Problem] = []
        self._folder = folder
        self._with_credentials = with_credentials

    def resolved(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Put in what the references of [state], [graphite] and [source.*] lead to."""
        sections = ("state", "graphite", "source")
        return raw | {section: self._resolved(raw[section], (section,)) for section in sections if section in raw}

    def _resolved(self, value: Any, place: Cursor) -> Any:
        if not isinstance(value, dict):
            return value
        is_reference = (
            len(value) == 1 and set(value) <= set(KINDS) and all(isinstance(one, str) for one in value.values())
        )
        if not is_reference or place in {("source",), ("graphite", "tags")}:
            return {key: self._resolved(one, (*place, key)) for key, one in value.items()}
        ((kind, name),) = value.items()
        if kind == "credential" and not self._with_credentials:
            return NOT_READ_URL if place[-1] == "url" else NOT_READ
        looked: list[str] = []
        for looked_at, found in _found(kind, name, self._folder):
            looked.append(looked_at)
            if found is not None:
                text = found.rstrip("\n")
                self.secrets.extend([text] if text else [])
                return text
        remedy = f"Looked at: {', '.join(looked)}."
        self.problems.append(Problem(place, f'{{ {kind} = "{name}" }} leads nowhere', remedy))
        return None


def option_file(name: str, source: str, folder: Path) -> str:
    """Return the path of a source's MySQL option file: a systemd credential, or a file beside the configuration.

    Raises:
        ConfigError: there is none, with the places where it was looked for.
    """
    places = _places(name, folder)
    for place in places:
        if place.is_file() and os.access(place, os.R_OK):
            _check_option_file(place)
            return str(place)
    raise ConfigError(
        f'read credentials "{name}" of source "{source}": none readable at {", ".join(map(str, places))}',
        hint=OPTION_FILE_HINT,
    )


def _found(kind: str, name: str, folder: Path) -> Iterator[tuple[str, str | None]]:
    """Yield the places where a reference may lead, and what is there."""
    if kind == "env":
        yield f"the environment variable {name}", os.environ.get(name)
        return
    for place in [folder / name] if kind == "file" else _places(name, folder):
        try:
            yield str(place), place.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            yield f"{place} ({getattr(error, 'strerror', None) or 'not a text'})", None


def _places(credential: str, folder: Path) -> list[Path]:
    """Return where a credential may be: systemd's directory, or a file beside the configuration."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return [*([Path(directory) / credential] if directory else []), folder / credential]


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
