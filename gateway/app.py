"""Composition of the gateway."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry

from fedattn import __version__
from fedattn.wire.security import OwnCertificates
from gateway.error_handlers import install_error_handlers
from gateway.openapi import add_schemas
from gateway.publishers import Publishers
from gateway.routes import probe_router, query_router
from gateway.settings import GatewaySettings

MAX_BODY_BYTES = 256 << 10

_TAGS = [
    {"name": "queries", "description": "Ask one question of many private texts."},
    {"name": "network", "description": "Who is there."},
    {"name": "probes", "description": "For whatever supervises the gateway."},
]


def create_app(
    settings: GatewaySettings,
    certificates: OwnCertificates | None = None,
    registry: CollectorRegistry | None = None,
) -> FastAPI:
    """The gateway's application; speaks plaintext to participants without certificates.

    A further API is a further router, made here.
    """
    logging.getLogger("sse_starlette.sse").setLevel(logging.INFO)  # its debug holds the answer
    publishers = Publishers(
        settings.publishers, settings.max_concurrent_queries, certificates, registry
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with publishers:
            yield

    app: FastAPI = FastAPIOffline(  # its /docs takes nothing from elsewhere
        title="Federated Attention gateway",
        version=__version__,
        summary="Edge nodes answer one question together without handing over their texts.",
        openapi_tags=_TAGS,
        lifespan=lifespan,
        redoc_url=None,
    )
    app.include_router(query_router(publishers, settings.share))
    app.include_router(probe_router(publishers))
    install_error_handlers(app, MAX_BODY_BYTES)
    add_schemas(app)
    return app
