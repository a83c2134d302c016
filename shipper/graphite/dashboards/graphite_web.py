"""A dashboard as graphite-web's own page stores it: its state, in JSON."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import quote, urlencode

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
