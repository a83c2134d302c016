"""Dashboards and provisioning as files that Grafana reads."""

import json
from hashlib import sha256
from typing import Any

from shipper.graphite.dashboards.panels import Dashboard, Panel

SCHEMA_VERSION = 39  # of Grafana 10.3; newer versions migrate it when they load it
MOST_UID = 40
_COLUMNS, _WIDTH, _HEIGHT = 24, 12, 8
_DATASOURCE = {"type": "graphite", "uid": "${datasource}"}


def document(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard of the last 24 hours, refreshed each minute; users choose the Graphite on the page."""
    return {
        "uid": _uid(dashboard.name),
        "title": dashboard.title,
        "tags": ["shipper"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,  # one cross-hair for all panels
        "timezone": "browser",
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "graphite", "label": "Graphite"}]
        },
        "annotations": {"list": []},
        "panels": [_panel(panel, index) for index, panel in enumerate(dashboard.panels)],
    }


def provisioning(folder: str) -> str:
    """Return a file for provisioning/dashboards, by which Grafana reads the dashboards of a folder."""
    return (
        "apiVersion: 1\n"
        "providers:\n"
        "  - name: shipper\n"
        "    type: file\n"
        "    updateIntervalSeconds: 30\n"
        "    options:\n"
        f"      path: {json.dumps(folder)}\n"
    )


def _uid(name: str) -> str:
    return name if len(name) <= MOST_UID else f"{name[: MOST_UID - 7]}-{sha256(name.encode()).hexdigest()[:6]}"


def _panel(panel: Panel, index: int) -> dict[str, Any]:
    across = _COLUMNS // _WIDTH
    shape = (
        {"drawStyle": "bars", "fillOpacity": 80, "lineWidth": 0, "stacking": {"mode": "normal", "group": "A"}}
        if panel.adds_up
        else {"drawStyle": "line", "lineInterpolation": "stepAfter", "lineWidth": 2, "stacking": {"mode": "none"}}
    )
    return {
        "id": index + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": _DATASOURCE,
        "gridPos": {"x": index % across * _WIDTH, "y": index // across * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {
            "defaults": {"unit": panel.unit or "short", "custom": shape} | ({"min": 0} if panel.adds_up else {}),
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": _DATASOURCE, "target": str(target), "textEditor": True}
            for number, target in enumerate(panel.targets)
        ],
    }
