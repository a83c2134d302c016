"""graphite-web's dashboards, over HTTP."""

import json
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from shipper.core.errors import ShipperError

TIMEOUT_SECONDS = 10.0


class GraphiteWeb:
    """One graphite-web."""

    def __init__(self, url: str) -> None:
        """Connect nowhere yet."""
        self._url = url.rstrip("/")

    def page(self, name: str) -> str:
        """Return where a dashboard is shown."""
        return f"{self._url}/dashboard/{quote(name)}"

    def load(self, name: str) -> Mapping[str, Any] | None:
        """Return the state of a dashboard, None when there is none.

        Raises:
            ShipperError: no answer, or one that is not to be understood.
        """
        answer = self._answer(f"load/{quote(name)}")
        if "does not exist" in str(answer.get("error")):
            return None
        state = answer.get("state")
        if not isinstance(state, dict):
            raise self._failure(str(answer.get("error") or "its answer is not one of graphite-web"))
        return state

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Store a dashboard in the place of one of its name.

        Raises:
            ShipperError: it was not stored.
        """
        answer = self._answer(f"save/{quote(name)}", urlencode({"state": json.dumps(state)}).encode())
        if not answer.get("success"):
            hint = "Where it wants a login, only its own page can save: paste what -d writes into Dashboard, Edit."
            raise self._failure(str(answer.get("error") or "it did not say that it has stored it"), hint)

    def _answer(self, path: str, body: bytes | None = None) -> Mapping[str, Any]:
        try:
            with urlopen(Request(f"{self._url}/dashboard/{path}", body), timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - the command allows http and https only
                document = json.load(answer)
        except HTTPError as error:
            error.close()
            raise self._failure(f"HTTP {error.code} {error.reason}") from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise self._failure("timed out" if isinstance(reason, TimeoutError) else str(reason)) from error
        except ValueError as error:
            raise self._failure("its answer is no JSON, as a page to log in would be none") from error
        if not isinstance(document, dict):
            raise self._failure("its answer is not one of graphite-web")
        return document

    def _failure(
        self, reason: str, hint: str = "Is it the address of graphite-web, as a browser has it?"
    ) -> ShipperError:
        return ShipperError(f"push to {self._url}: {reason}", hint=hint)
