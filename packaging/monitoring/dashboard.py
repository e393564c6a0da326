"""Write the Grafana dashboard: one row for each question that an operator has.

python packaging/monitoring/dashboard.py > packaging/monitoring/dashboard.json
"""

import json
from typing import Any

WIDTH, HEIGHT = 8, 8
COLUMNS = 24
DATA = {"type": "prometheus", "uid": "${source}"}
WHERE = 'instance=~"$instance"'
PICO = "1e12"


def rate(series: str, *labels: str, by: str = "") -> str:
    """Return what a counter grows by a second."""
    chosen = ", ".join((WHERE, *labels))
    inner = f"rate({series}{{{chosen}}}[$__rate_interval])"
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


def quantile(of: float, series: str, *labels: str, by: str = "") -> str:
    """Return a quantile of a histogram."""
    names = ", ".join(name for name in (by, "le") if name)
    return f"histogram_quantile({of}, {rate(series + '_bucket', *labels, by=names)})"


def gauge(series: str, by: str = "") -> str:
    """Return a gauge, summed."""
    return f"sum by ({by}) ({series}{{{WHERE}}})" if by else f"sum({series}{{{WHERE}}})"


FILLS = "gigarouter_engine_batch_fill_ratio"
FILL = f"{rate(f'{FILLS}_sum', by='model')} / {rate(f'{FILLS}_count', by='model')}"
COMPUTING = f'sum by (model) (gigarouter_engine_workers{{{WHERE}, state="computing"}})'
A_DAY = f"/ {PICO} * 86400"
EARNED = f"{rate('gigarouter_charged_picocredits_total', by='model')} {A_DAY}"
SPENT = f"topk(10, {rate('gigarouter_key_charged_picocredits_total', by='key')} {A_DAY})"

Query = tuple[str, str]
"""An expression and the legend of its lines."""

ROWS: list[tuple[str, list[tuple[str, str, list[Query]]]]] = [
    (
        "Is it well?",
        [
            (
                "Requests a second by status",
                "reqps",
                [(rate("gigarouter_requests_total", by="status"), "{{status}}")],
            ),
            (
                "Refusals a second by code",
                "reqps",
                [(rate("gigarouter_refusals_total", by="code"), "{{code}}")],
            ),
            (
                "Duration of answered calls",
                "s",
                [
                    (quantile(0.5, "gigarouter_call_duration_seconds"), "p50"),
                    (quantile(0.95, "gigarouter_call_duration_seconds"), "p95"),
                    (quantile(0.99, "gigarouter_call_duration_seconds"), "p99"),
                ],
            ),
        ],
    ),
    (
        "Where does the time go?",
        [
            (
                "p95 of each stage",
                "s",
                [
                    (
                        quantile(0.95, "gigarouter_stage_duration_seconds", by="stage"),
                        "{{stage}}",
                    )
                ],
            ),
            (
                "Lag of the event loop",
                "s",
                [(quantile(0.99, "gigarouter_event_loop_lag_seconds"), "p99")],
            ),
            ("Calls in flight", "short", [(gauge("gigarouter_calls_in_flight"), "in flight")]),
        ],
    ),
    (
        "What is computed?",
        [
            (
                "Tokens a second by model",
                "short",
                [(rate("gigarouter_engine_tokens_total", by="model"), "{{model}}")],
            ),
            (
                "Tokens that wait",
                "short",
                [(gauge("gigarouter_engine_waiting_tokens", by="model"), "{{model}}")],
            ),
            (
                "How full batches are, on average",
                "percentunit",
                [
                    (
                        FILL,
                        "{{model}}",
                    )
                ],
            ),
            (
                "Workers that compute",
                "short",
                [
                    (
                        f'sum by (model) (gigarouter_engine_workers{{{WHERE}, state="computing"}})',
                        "{{model}}",
                    ),
                    (gauge("gigarouter_engine_workers"), "all"),
                ],
            ),
            (
                "Memory",
                "bytes",
                [
                    (gauge("gigarouter_model_memory_bytes", by="model"), "{{model}}"),
                    (gauge("process_resident_memory_bytes"), "the server itself"),
                ],
            ),
            (
                "Tokens a call, p95",
                "short",
                [(quantile(0.95, "gigarouter_call_tokens", by="model"), "{{model}}")],
            ),
        ],
    ),
    (
        "What is earned?",
        [
            (
                "Credits a day at this rate",
                "short",
                [
                    (
                        EARNED,
                        "{{model}}",
                    )
                ],
            ),
            (
                "Credits a day by key, the ten largest",
                "short",
                [
                    (
                        SPENT,
                        "{{key}}",
                    )
                ],
            ),
            (
                "Credits left to spend",
                "short",
                [(f"{gauge('gigarouter_left_picocredits')} / {PICO}", "all prepaid keys")],
            ),
        ],
    ),
]


def dashboard() -> dict[str, Any]:
    """Return the document that Grafana imports."""
    panels: list[dict[str, Any]] = []
    down = 0
    for title, found in ROWS:
        place = {"x": 0, "y": down, "w": COLUMNS, "h": 1}
        panels.append({"type": "row", "title": title, "gridPos": place, "id": len(panels) + 1})
        down += 1
        for index, (name, unit, queries) in enumerate(found):
            across, below = index * WIDTH % COLUMNS, index * WIDTH // COLUMNS
            place = {"x": across, "y": down + below * HEIGHT, "w": WIDTH, "h": HEIGHT}
            panels.append(_panel(len(panels) + 1, name, unit, queries, place))
        down += -(-len(found) * WIDTH // COLUMNS) * HEIGHT
    instance = {
        "name": "instance",
        "type": "query",
        "datasource": DATA,
        "query": "label_values(gigarouter_calls_in_flight, instance)",
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
    }
    source = {"name": "source", "type": "datasource", "query": "prometheus"}
    return {
        "title": "gigarouter",
        "uid": "gigarouter",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "tags": ["gigarouter"],
        "templating": {"list": [source, instance]},
        "panels": panels,
    }


def _panel(
    number: int, title: str, unit: str, queries: list[Query], place: dict[str, int]
) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": title,
        "datasource": DATA,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + n), "expr": expression, "legendFormat": legend}
            for n, (expression, legend) in enumerate(queries)
        ],
    }


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1))
