"""References to values outside the file: `{ env = "X" }`, `{ file = "..." }`, `{ credential = "..." }`."""

import configparser
import os
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shipper.config import encrypted
from shipper.config.files import UnreadableError, read_bytes, read_text
from shipper.config.problems import Place, Problem, is_secret
from shipper.core.errors import ConfigError

KINDS = ("env", "file", "credential")
NOT_READ, NOT_READ_URL = "not-read", "mysql+pymysql://not-read/not-read"
NOT_READ_DATABASE = "postgresql+psycopg://not-read/not-read"
OPTION_FILE_HINT = "Write a MySQL option file there: [client], user = NAME, password = SECRET; let this user read it."
CONTINUED = getattr(configparser, "MultilineContinuationError", AttributeError)
"""Error of an option without a value that an indented line continues; Python has one for it from 3.13 on."""
OTHER_USER_HINT = "Run the command as root or as the service's user."
SERVICE_HINT = (
    "Run `shipper check` as root: it shows which credential systemd does not pass to the service, and the remedy."
)


class References:
    """References of one configuration; a command that connects nowhere leaves credentials out."""

    def __init__(self, folder: Path, *, with_credentials: bool) -> None:
        """Resolve paths relative to folder, which is the configuration's."""
        self.secrets: list[str] = []
        """Values that references led to: no message shows them."""
        self.secret_files: list[str] = []
        """Files of these values."""
        self.problems: list[Problem] = []
        self._folder = folder
        self._with_credentials = with_credentials

    def resolved(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Return the configuration with the values of the references in [state], [graphite] and [source.*]."""
        sections = ("state", "graphite", "source")
        return raw | {section: self._resolved(raw[section], (section,)) for section in sections if section in raw}

    def _resolved(self, value: Any, place: Place) -> Any:
        if not isinstance(value, dict):
            return value
        is_reference = (
            len(value) == 1 and value.keys() <= set(KINDS) and all(isinstance(v, str) for v in value.values())
        )
        # a section: resolve its values; names of sources and tags may be those of a reference
        if not is_reference or place in {("source",), ("graphite", "tags")}:
            return {key: self._resolved(inner, (*place, key)) for key, inner in value.items()}
        # a reference: the first target with content has the value
        ((kind, name),) = value.items()
        if kind == "credential" and not self._with_credentials:
            encrypted.prepare([name])  # to read it later
            if place == ("state", "database"):
                return NOT_READ_DATABASE
            return NOT_READ_URL if place[-1] == "url" else NOT_READ
        targets: list[str] = []
        for target, content in _targets(kind, name, self._folder):
            targets.append(target)
            if content is not None:
                self.secret_files += [target] if kind != "env" and is_secret(place) else []
                text = content.rstrip("\n")
                self.secrets.extend([text] if text else [])
                return text
        readable = "" if kind == "env" else "; the user who runs this command must be able to read it"
        remedy = f"Provide {' or '.join(targets)}{readable}."
        self.problems.append(Problem(place, f'{{ {kind} = "{name}" }} has no value', remedy))
        return None


def option_file(name: str, source: str, folder: Path) -> str:
    """Return the path of a source's MySQL option file: a systemd credential, or a file beside the configuration.

    Raises:
        ConfigError: none can be read, with the places where it may be.
    """
    places = _places(name, folder)
    for place in places:
        if place.is_file() and os.access(place, os.R_OK, effective_ids=True):
            _check_option_file(place, str(place))
            return str(place)
    if (file := encrypted.decrypted(name)) is not None:
        _check_option_file(file, str(encrypted.FOLDER / name))
        return str(file)
    step = f'read credentials "{name}" of source "{source}"'
    is_service = "CREDENTIALS_DIRECTORY" in os.environ
    for place in places:
        if place.is_file():
            hint = SERVICE_HINT if is_service else OTHER_USER_HINT
            raise ConfigError(f"{step}: {place} exists, but this user may not read it", hint=hint)
    hint = SERVICE_HINT if is_service else OPTION_FILE_HINT
    raise ConfigError(f"{step}: there is no file {' or '.join(map(str, places))}", hint=hint)


def _targets(kind: str, name: str, folder: Path) -> Iterator[tuple[str, str | None]]:
    """Yield the places to which a reference may lead, each with its content, None if it has none."""
    if kind == "env":
        yield f"the environment variable {name}", os.environ.get(name)
        return
    for place in [folder / name] if kind == "file" else _places(name, folder):
        try:
            yield str(place), read_text(place)
        except UnreadableError as error:
            yield f"{place} ({error})", None
    if kind == "credential" and (copy := encrypted.decrypted(name)) is not None:
        yield str(copy), read_text(copy)


def _places(credential: str, folder: Path) -> list[Path]:
    """Return the places of a credential: systemd's directory, and beside the configuration."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return [*([Path(directory) / credential] if directory else []), folder / credential]


def _check_option_file(file: Path, shown: str) -> None:
    """Reject a file that PyMySQL cannot parse, under the name that the operator knows."""
    parser, hint = configparser.RawConfigParser(allow_no_value=True), OPTION_FILE_HINT
    parser.optionxform = lambda optionstr: optionstr.lower().replace("_", "-")  # type: ignore[method-assign] # as PyMySQL
    try:
        content = read_bytes(file)
        if content.startswith(BOM_UTF8):
            reason, hint = "it begins with a byte order mark", "Save it as UTF-8 text without that mark."
        else:
            parser.read_string(content.decode())
            options = parser["client"]
            if all(options.get(name, "") is not None for name in ("password", "port")):
                options.getint("port", 0)
                return
            reason = "password and port need a value"
    except (configparser.DuplicateOptionError, configparser.DuplicateSectionError) as error:
        reason, hint = str(error).partition("\n")[0], "Remove one of the two."
    except CONTINUED:
        reason = "an indented line follows an option without a value"
    except configparser.Error as error:
        reason = str(error).partition("\n")[0]
    except UnreadableError as error:
        reason = str(error)
    except UnicodeDecodeError:
        reason = "not UTF-8 text"
    except (KeyError, ValueError):
        reason = "no usable [client] section"
    raise ConfigError(f"read credentials {shown}: {reason}", hint=hint)
