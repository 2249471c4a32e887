"""A small client of the gateway's REST API."""

from collections.abc import Iterator
from typing import Any

import httpx
from httpx_sse import connect_sse

from fedattn.core.errors import FedAttnError, GatewayUnavailableError, error_from_code

_CONNECT_TIMEOUT_S = 10.0
_MARGIN_S = 30.0


def stream_query(gateway: str, body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Ask, and yield (event name, data) as the gateway sends them; the last is `report`.

    Args:
        gateway: URL of the gateway.
        body: of POST /v1/queries, without `stream`.

    Raises:
        FedAttnError: the gateway's problem, with its code; or it cannot be reached.
    """
    timeout = httpx.Timeout(body.get("deadline_s", 120.0) + _MARGIN_S, connect=_CONNECT_TIMEOUT_S)
    url = f"{gateway.rstrip('/')}/v1/queries"
    try:
        with (
            httpx.Client(timeout=timeout) as client,
            connect_sse(client, "POST", url, json={**body, "stream": True}) as source,
        ):
            if source.response.status_code != httpx.codes.OK:
                source.response.read()
                raise _problem(source.response)
            for event in source.iter_sse():
                if event.event == "error":
                    problem = event.json()
                    raise error_from_code(problem["code"], problem["detail"])
                yield event.event, event.json()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise GatewayUnavailableError(
            f"the gateway at {gateway} cannot be reached: {error}; start it with `make up`, "
            f"or name another with --gateway"
        ) from error


def _problem(response: httpx.Response) -> FedAttnError:
    try:
        problem = response.json()
        return error_from_code(problem["code"], problem["detail"])
    except (ValueError, KeyError, TypeError):
        return GatewayUnavailableError(
            f"{response.url} answered {response.status_code} without a problem document; "
            f"is it a fedattn gateway?"
        )
