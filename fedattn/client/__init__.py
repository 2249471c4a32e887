"""A client of the gateway, which needs neither torch nor gRPC.

    from fedattn.client import Client

    with Client("http://127.0.0.1:8000") as client:
        print(client.ask("Which pier?", sampling={"max_new_tokens": 32}).answer)

Errors are those of `fedattn.core.errors`, results and events those of `fedattn.rest`.
"""

from fedattn.client.async_client import AsyncClient
from fedattn.client.async_job import AsyncJob
from fedattn.client.client import Client
from fedattn.client.job import Job

__all__ = ["AsyncClient", "AsyncJob", "Client", "Job"]
