"""What monitoring asks for."""

from __future__ import annotations

from starlette.responses import Response

from hakuriver_host.api.endpoint import Call, Endpoint
from hakuriver_host.services.access import Permission
from hakuriver_host.services.metrics import Metrics


def metric_endpoints(metrics: Metrics) -> list[Endpoint]:
    async def show_metrics(call: Call) -> Response:
        del call
        content, headers = metrics.page()
        return Response(content, headers=dict(headers))

    return [
        Endpoint(
            "GET",
            "/metrics",
            show_metrics,
            Permission.SEE,
            "Give the metrics in Prometheus' text format",
            str,
            media_type="text/plain",
        )
    ]
