"""/health, /metrics, /status and /slots: how the server is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import psutil
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from mlx_qwen3.server.generation.running import Generation
from mlx_qwen3.server.http import JsonResponse
from mlx_qwen3.server.models import ServedModel
from mlx_qwen3.server.monitoring.metrics import Labels
from mlx_qwen3.server.service import Service

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def status_routes(service: Service) -> Sequence[BaseRoute]:
    """The routes."""

    async def health(request: Request) -> Response:  # noqa: ARG001
        if (failure := service.models.failure()) is not None:
            return JsonResponse({"status": "error", "error": failure}, 503)
        if service.is_stopping:
            return JsonResponse({"status": "stopping"}, 503)
        return JsonResponse({"status": "ok"})

    async def metrics(request: Request) -> Response:  # noqa: ARG001
        return PlainTextResponse(service.metrics.text(gauges(service)), media_type=METRICS_TYPE)

    async def status(request: Request) -> Response:  # noqa: ARG001
        return JsonResponse(status_of(service))

    async def slots(request: Request) -> Response:  # noqa: ARG001
        return JsonResponse(status_of(service)["requests"])

    return [
        Route("/health", health),
        Route("/v1/health", health),
        Route("/metrics", metrics),
        Route("/status", status),
        Route("/slots", slots),
    ]


def status_of(service: Service) -> dict[str, Any]:
    """What the server is doing, without a word of any prompt."""
    return {
        "status": "stopping" if service.is_stopping else "error" if service.models.failure() else "ok",
        "models": [_model(model) for model in service.models],
        "requests": [_request(generation) for generation in list(service.running.values())],
        "memory": {
            "active_bytes": mx.get_active_memory(),
            "peak_bytes": mx.get_peak_memory(),
            "process_bytes": psutil.Process().memory_info().rss,
        },
        "generated_tokens": service.metrics.generated,
    }


def _model(model: ServedModel) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": model.name,
        "is_loaded": model.is_loaded,
        "is_pinned": model.is_pinned,
        "requests": model.users,
    }
    engine, store, queue = model.engine, model.store, model.queue
    if engine is None or store is None or queue is None:
        return shown
    stats, prefixes = engine.stats(), store.stats()
    return {
        **shown,
        "context": engine.context,
        "running": stats.running,
        "waiting": queue.waiting + stats.waiting,
        "slots": engine.scheduler.size,
        "tokens_per_second": round(stats.tokens_per_second, 2),
        "kv_bytes": stats.kv_bytes,
        "prefix_caches": {
            "count": prefixes.caches,
            "tokens": prefixes.tokens,
            "bytes": prefixes.nbytes,
            "limit_bytes": store.limit,
            "saved": prefixes.saved,
            "saved_bytes": prefixes.saved_nbytes,
            "continued": prefixes.continued,
            "copied": prefixes.copied,
            "loaded": prefixes.loaded,
            "missed": prefixes.missed,
        },
    }


def _request(generation: Generation) -> dict[str, Any]:
    progress = list(generation.prefilled.values())
    return {
        "id": generation.started.id,
        "model": generation.started.model,
        "key": generation.request.key,
        "state": generation.state,
        "choices": generation.request.choices,
        "prompt_tokens": generation.started.prompt_tokens,
        "cached_tokens": sum(each.cached for each in progress),
        "prefilled_tokens": sum(each.processed for each in progress),
        "generated_tokens": generation.generated,
        "seconds": round(time.perf_counter() - generation.arrived, 3),
    }


def gauges(service: Service) -> Mapping[str, tuple[str, Mapping[Labels, float]]]:
    """What is measured now, for /metrics."""
    status = status_of(service)
    models: dict[str, dict[Labels, float]] = {
        name: {} for name in ("loaded", "running", "waiting", "tokens_per_second", "kv_bytes")
    }
    prefixes: dict[str, dict[Labels, float]] = {}
    for model in status["models"]:
        labels: Labels = (("model", model["id"]),)
        models["loaded"][labels] = float(model["is_loaded"])
        for name in models:
            if name in model:
                models[name][labels] = float(model[name])
        for name, value in model.get("prefix_caches", {}).items():
            prefixes.setdefault(f"prefix_{name}", {})[labels] = float(value)
    meanings = {
        "loaded": "Whether the model is in memory.",
        "running": "Texts being generated.",
        "waiting": "Texts that wait for their turn.",
        "tokens_per_second": "Tokens generated a second, lately.",
        "kv_bytes": "Bytes of KV caches in use.",
    }
    shown = {name: (meanings[name], values) for name, values in models.items()}
    shown |= {
        name: (f"Kept KV caches: {name.removeprefix('prefix_')}.", values)
        for name, values in prefixes.items()
    }
    shown["memory_bytes"] = ("Memory of MLX's arrays.", {(): float(status["memory"]["active_bytes"])})
    return shown
