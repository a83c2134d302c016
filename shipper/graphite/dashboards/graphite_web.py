"""A dashboard as graphite-web's own page stores it: its state, in JSON.

graphite-web's dashboards, over HTTP.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from shipper.core.errors import ShipperError
from shipper.graphite.dashboards.panels import Dashboard, Panel, Target

MARK = "shipper"
"""The key at which the state has a digest of the rest: what somebody has changed is known by it."""
_WIDTH, _HEIGHT = 580, 270
_COLORS = "4c78a8,f58518,54a24b,e45756,72b7b2,b279a2,eeca3b,9d755d,ff9da6,bab0ac"
_DEFAULTS = {
    "from": "-24hours",
    "until": "now",
    "width": str(_WIDTH),
    "height": str(_HEIGHT),
    "bgcolor": "white",
    "fgcolor": "black",
    "fontSize": "10",
}


def state(dashboard: Dashboard) -> dict[str, Any]:
    """Return the last 24 hours, looked at again each minute."""
    made = {
        "name": dashboard.name,
        "timeConfig": {
            "type": "relative",
            "relativeStartQuantity": "24",
            "relativeStartUnits": "hours",
            "relativeUntilQuantity": "",
            "relativeUntilUnits": "now",
            # of the page's other way to choose a time, which it wants to be there
            "startDate": "2000-01-01T00:00:00",
            "startTime": "9:00 AM",
            "endDate": "2000-01-01T00:00:00",
            "endTime": "5:00 PM",
        },
        "refreshConfig": {"enabled": True, "interval": 60_000},
        "graphSize": {"width": _WIDTH, "height": _HEIGHT},
        "defaultGraphParams": _DEFAULTS,
        "graphs": [_graph(panel) for panel in dashboard.panels],
    }
    return {**made, MARK: digest(made)}


def digest(state: Mapping[str, Any]) -> str:
    """Return what MARK must be, of a state with or without it."""
    unmarked = {key: value for key, value in state.items() if key != MARK}
    return sha256(json.dumps(unmarked, sort_keys=True).encode()).hexdigest()[:16]


def _stacked(target: Target) -> str:
    """Have the expression stack the bars: of those that graphite-web 1.1.10 stacks and adds up it cuts off the tops.

    What has no datapoint must be 0 for that, else what stands on it would fall.
    """
    return target.named(f"stacked(transformNull({target.series},0),'all')")


def _graph(panel: Panel) -> list[Any]:
    """Return a graph: the id by which the page tells them apart, its parameters, its picture."""
    targets = [_stacked(target) if panel.adds_up else str(target) for target in panel.targets]
    parameters = {
        "target": targets,
        "title": f"{panel.title} ({panel.about})" if panel.about else panel.title,
        # bars, as near as Graphite comes to them
        "lineMode": "staircase",
        "lineWidth": "1" if panel.adds_up else "2",
        "colorList": _COLORS,
        "majorGridLineColor": "#cccccc",
        "minorGridLineColor": "#eeeeee",
    }
    if panel.adds_up:
        parameters["yMin"] = "0"
    if panel.unit == "bytes":
        parameters["yUnitSystem"] = "binary"
    name = "&".join(f"target={quote(target, safe='')}" for target in targets)
    return [name, parameters, f"/render?{urlencode({**_DEFAULTS, **parameters}, doseq=True)}"]


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
