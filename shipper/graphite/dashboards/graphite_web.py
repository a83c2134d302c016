"""Dashboards of graphite-web: their state in JSON, and a client that loads and saves them."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import quote, urlencode

from shipper.core.errors import ShipperError, printable
from shipper.graphite.dashboards.panels import Dashboard, Panel, Target
from shipper.graphite.http import fetch_json

MARK = "shipper"
"""Key of the state with a digest of the rest: it shows whether a user has changed the dashboard."""
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
    """Return a dashboard of the last 24 hours, refreshed each minute."""
    unmarked = {
        "name": dashboard.name,
        "timeConfig": {
            "type": "relative",
            "relativeStartQuantity": "24",
            "relativeStartUnits": "hours",
            "relativeUntilQuantity": "",
            "relativeUntilUnits": "now",
            # unused, but the page requires them: its other way to choose a time
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
    return {**unmarked, MARK: digest(unmarked)}


def digest(state: Mapping[str, Any]) -> str:
    """Return the value of MARK for a state, with or without MARK in it."""
    unmarked = {key: value for key, value in state.items() if key != MARK}
    return sha256(json.dumps(unmarked, sort_keys=True).encode()).hexdigest()[:16]


def _stacked(target: Target) -> str:
    """Return a target that stacks the bars itself: graphite-web 1.1.10 cuts off the tops of bars that it stacks.

    A missing datapoint must be 0, or the bars above it would drop.
    """
    return target.named(f"stacked(transformNull({target.series},0),'all')")


def _graph(panel: Panel) -> list[Any]:
    """Return a graph: its id on the page, its parameters, the address of its picture."""
    targets = [_stacked(target) if panel.adds_up else str(target) for target in panel.targets]
    parameters = {
        "target": targets,
        "title": f"{panel.title} ({panel.about})" if panel.about else panel.title,
        # the nearest that Graphite has to bars
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
NOT_GRAPHITE = "the answer does not come from graphite-web"


class GraphiteWeb:
    """One graphite-web."""

    def __init__(self, url: str) -> None:
        """Connect nowhere yet."""
        self._url = url.rstrip("/")

    def page(self, name: str) -> str:
        """Return the address of a dashboard."""
        return f"{self._url}/dashboard/{quote(name)}"

    def load(self, name: str) -> Mapping[str, Any] | None:
        """Return the state of a dashboard, None if graphite-web has none of this name.

        Raises:
            ShipperError: no answer, or one that cannot be understood.
        """
        answer = self._answer(f"load/{quote(name)}")
        if "does not exist" in str(answer.get("error")):
            return None
        state = answer.get("state")
        if not isinstance(state, dict):
            raise self._failure(printable(str(answer.get("error") or NOT_GRAPHITE)))
        return state

    def save(self, name: str, state: Mapping[str, Any]) -> None:
        """Store a dashboard; it replaces one of the same name.

        Raises:
            ShipperError: graphite-web did not store it.
        """
        answer = self._answer(f"save/{quote(name)}", urlencode({"state": json.dumps(state)}).encode())
        if answer.get("success") is not True:
            hint = (
                "If graphite-web requires a login, write a file with -d, and paste its text into graphite-web: menu "
                "Dashboard, Edit."
            )
            raise self._failure(printable(str(answer.get("error") or "the answer does not confirm it")), hint)

    def _answer(self, path: str, body: bytes | None = None) -> Mapping[str, Any]:
        url = f"{self._url}/dashboard/{path}"
        document: Any = fetch_json(url, body, timeout=TIMEOUT_SECONDS, failure=self._failure)
        if not isinstance(document, dict):
            raise self._failure(NOT_GRAPHITE)
        return document

    def _failure(
        self, reason: str, hint: str = "Use the address at which a browser shows graphite-web."
    ) -> ShipperError:
        return ShipperError(f"push to {self._url}: {reason}", hint=hint)
