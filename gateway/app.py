"""Composition of the gateway."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry
from starlette.middleware.cors import CORSMiddleware

from fedattn import __version__
from fedattn.runtime.extras import require_extras
from fedattn.wire.security import OwnCertificates
from gateway.callers import Limits
from gateway.error_handlers import install_error_handlers
from gateway.heads import HeadMiddleware
from gateway.hosts import LOOPBACK_HOSTS, HostMiddleware
from gateway.openapi import add_schemas
from gateway.publishers import Publishers
from gateway.routes import probe_router, query_router
from gateway.settings import GatewaySettings
from gateway.sign_in import KEY_HEADER, KeyRing, ReadsTokens, SignIn, SignInMiddleware

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

    Raises:
        ConfigurationError: the file of keys or the issuer is of no use.
    """
    logging.getLogger("sse_starlette.sse").setLevel(logging.INFO)  # its debug holds the answer
    publishers = Publishers(
        settings.endpoint,
        settings.max_concurrent_queries,
        settings.publisher,
        certificates,
        registry,
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
    app.add_middleware(SignInMiddleware, sign_in=_sign_in(settings))
    install_error_handlers(app, MAX_BODY_BYTES)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", KEY_HEADER],
            expose_headers=["Retry-After", "WWW-Authenticate"],
        )
    if not (settings.needs_sign_in or settings.open):
        hosts = LOOPBACK_HOSTS | {settings.listen.host.lower()}
        app.add_middleware(HostMiddleware, hosts=hosts)
    app.add_middleware(HeadMiddleware)
    add_schemas(app, needs_sign_in=settings.needs_sign_in)
    return app


def _sign_in(settings: GatewaySettings) -> SignIn | None:
    """How callers sign in; None if anyone may ask."""
    if not settings.needs_sign_in:
        return None
    limits = Limits(
        queries_per_minute=settings.queries_per_minute,
        max_concurrent=settings.max_concurrent,
        kv_bytes_per_day=settings.kv_bytes_per_day,
    )
    keys = None if settings.keys is None else KeyRing(settings.keys, limits)
    return SignIn(keys, _token_reader(settings, limits))


def _token_reader(settings: GatewaySettings, limits: Limits) -> ReadsTokens | None:
    if settings.oidc_issuer is None or settings.oidc_audience is None:
        return None
    require_extras("oidc", "client")
    from gateway.oidc import Issuer, TokenReader  # noqa: PLC0415 - an extra brings its libraries

    issuer = Issuer(
        url=settings.oidc_issuer,
        audience=settings.oidc_audience,
        subject_claim=settings.oidc_subject_claim,
        publishers_claim=settings.oidc_publishers_claim,
    )
    return TokenReader(issuer, limits)
