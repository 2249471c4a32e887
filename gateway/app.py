"""Composition of the gateway."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry
from starlette.middleware.cors import CORSMiddleware

from fedattn import __version__
from fedattn.page import add_page
from fedattn.runtime.extras import require_extras
from fedattn.runtime.quiet_fastapi import NO_TELEMETRY
from fedattn.wire.aggregators import Aggregators
from fedattn.wire.security import OwnCertificates
from gateway.asking import Asking
from gateway.callers import Limits
from gateway.error_handlers import install_error_handlers
from gateway.heads import HeadMiddleware
from gateway.hosts import LOOPBACK_HOSTS, HostMiddleware
from gateway.jobs_routes import job_router
from gateway.keeping import keeping
from gateway.openai_errors import OPENAI_RENDERERS
from gateway.openai_routes import openai_router
from gateway.openapi import add_schemas
from gateway.publishers import Publishers
from gateway.rendering import Rendering
from gateway.routes import probe_router, query_router
from gateway.settings import GatewaySettings
from gateway.sign_in import FindsKeys, KeyRing, ReadsTokens, SignIn, SignInMiddleware
from gateway.tracing import TraceMiddleware

MAX_BODY_BYTES = 256 << 10

_TAGS = [
    {"name": "queries", "description": "Ask one question of many private texts."},
    {"name": "jobs", "description": "Queries asked in the background, or with an idempotency key."},
    {"name": "network", "description": "Who is there."},
    {"name": "openai", "description": "The same for clients of OpenAI's API."},
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
        ConfigurationError: the file of keys, the issuer or the state folder is of no use.
    """
    for name in ("sse_starlette.sse", "aiosqlite"):
        logging.getLogger(name).setLevel(logging.INFO)  # their debug holds the answer
    kept = keeping(settings)
    publishers = Publishers(
        Aggregators(settings.endpoints, certificates, settings.find_way),
        settings.query_limits,
        settings.publisher,
        certificates,
        registry,
    )
    jobs = kept.jobs

    kept.share_counts(publishers.quotas)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with kept.link, publishers, jobs:
            yield

    app: FastAPI = FastAPIOffline(  # its /docs takes nothing from elsewhere
        title="Federated Attention gateway",
        version=__version__,
        summary="Edge nodes answer one question together without handing over their texts.",
        openapi_tags=_TAGS,
        lifespan=lifespan,
        redoc_url=None,
        telemetry=NO_TELEMETRY,
    )
    app.state.keeping = kept
    render = Rendering(OPENAI_RENDERERS)
    asking = Asking(publishers, settings.share)
    app.include_router(query_router(asking, jobs))
    app.include_router(job_router(jobs))
    app.include_router(openai_router(asking))
    app.include_router(probe_router(publishers))
    add_page(app, Path(__file__).parent / "page")
    app.add_middleware(
        SignInMiddleware, sign_in=_sign_in(settings, kept.shared_keys), render=render
    )
    install_error_handlers(app, MAX_BODY_BYTES, render)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],  # clients name their own, such as x-stainless-lang
            expose_headers=["Retry-After", "WWW-Authenticate", "Location", "Content-Location"],
        )
    if not (settings.needs_sign_in or settings.open):
        hosts = LOOPBACK_HOSTS | {settings.listen.host.lower()}
        app.add_middleware(HostMiddleware, hosts=hosts, render=render)
    app.add_middleware(HeadMiddleware, render=render)
    app.add_middleware(TraceMiddleware)
    add_schemas(app, needs_sign_in=settings.needs_sign_in, share=settings.share)
    return app


def _sign_in(settings: GatewaySettings, shared_keys: FindsKeys | None) -> SignIn | None:
    """How callers sign in; None if anyone may ask."""
    if not settings.needs_sign_in:
        return None
    limits = settings.caller_limits
    keys = shared_keys if settings.keys is None else KeyRing(settings.keys, limits)
    return SignIn(keys, _token_reader(settings, limits))


def _token_reader(settings: GatewaySettings, limits: Limits) -> ReadsTokens | None:
    if settings.oidc_issuer is None or settings.oidc_audience is None:
        return None
    require_extras("oidc")
    from gateway.oidc import Issuer, TokenReader  # noqa: PLC0415 - an extra brings its libraries

    issuer = Issuer(
        url=settings.oidc_issuer,
        audience=settings.oidc_audience,
        subject_claim=settings.oidc_subject_claim,
        publishers_claim=settings.oidc_publishers_claim,
    )
    return TokenReader(issuer, limits)
