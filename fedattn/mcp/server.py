"""The tools, in front of a client of a gateway."""

from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

from fedattn import __version__
from fedattn.client import AsyncClient
from fedattn.client.options import query_of
from fedattn.client.reading import no_report
from fedattn.core.errors import FedAttnError
from fedattn.core.limits import DEFAULT_DEADLINE_S, MAX_DEADLINE_S, MAX_QUESTION_LENGTH
from fedattn.core.sampling import MAX_NEW_TOKENS
from fedattn.core.share import Share
from fedattn.mcp.progress import Progress
from fedattn.mcp.results import FederationAnswer, Nodes
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.query import QueryBody

INSTRUCTIONS = """\
Several nodes each hold a private text that nobody else may read. ask_federation answers a question
from all of them together, without moving the texts; list_nodes says who is there. Ask one short,
whole question at a time: nodes choose fitting passages by its words, a small model writes the
answer. Check support and participants before you rely on it."""

_LOOKS = ToolAnnotations(read_only_hint=True, open_world_hint=True)


def _option(name: str, **more: Any) -> Any:
    """A field of an argument that means what the field of a query means."""
    return Field(description=QueryBody.model_fields[name].description, **more)


def make_server(client: AsyncClient) -> MCPServer:
    """A server whose tools ask through a client, which stays open as long.

    Its log, on stderr, holds no question and no answer.
    """
    server: MCPServer = MCPServer(
        "fedattn",
        title="Federated Attention",
        instructions=INSTRUCTIONS,
        version=__version__,
        log_level="WARNING",
    )

    @server.tool(title="Ask the federation", annotations=_LOOKS, structured_output=True)
    async def ask_federation(
        context: Context,
        question: Annotated[str, _option("question", max_length=MAX_QUESTION_LENGTH)],
        publisher: Annotated[str | None, _option("publisher")] = None,
        contributors: Annotated[list[str] | None, _option("contributors")] = None,
        plan: Annotated[str, _option("plan")] = "auto",
        max_new_tokens: Annotated[
            int, Field(ge=1, le=MAX_NEW_TOKENS, description="Most tokens of the answer.")
        ] = 64,
        share: Annotated[Share | None, _option("share")] = None,
        topic: Annotated[str, _option("topic")] = "",
        min_support: Annotated[float, _option("min_support", ge=0, le=1)] = 0.0,
        purpose: Annotated[str, _option("purpose")] = "",
        deadline_s: Annotated[
            float, _option("deadline_s", gt=0, le=MAX_DEADLINE_S)
        ] = DEFAULT_DEADLINE_S,
    ) -> FederationAnswer:
        """Answer one question from the private texts of all nodes, which stay where they are."""
        with _as_tool_errors():
            body = query_of(
                question,
                {
                    "publisher": publisher,
                    "contributors": contributors,
                    "plan": plan,
                    "sampling": {"max_new_tokens": max_new_tokens},
                    "share": share,
                    "topic": topic,
                    "min_support": min_support,
                    "purpose": purpose,
                    "deadline_s": deadline_s,
                },
            )
            progress = Progress(context.report_progress, max_new_tokens)
            async with aclosing(client.stream(body)) as events:
                async for event in events:
                    if isinstance(event, QueryAnswer):
                        return FederationAnswer.of(event)
                    await progress.tell(event)
            raise no_report()

    @server.tool(title="List the nodes", annotations=_LOOKS, structured_output=True)
    async def list_nodes() -> Nodes:
        """Say which nodes are joined or left of late, what they hold, and which may publish."""
        with _as_tool_errors():
            return Nodes(nodes=await client.participants())

    return server


@contextmanager
def _as_tool_errors() -> Iterator[None]:
    """Let the agent read what is wrong and what to do, as the error's message says it."""
    try:
        yield
    except FedAttnError as error:
        raise ToolError(f"[{error.code}] {error}") from error
