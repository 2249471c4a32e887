"""The last entries of a node's audit log over HTTP, and whether its chain holds."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from fedattn.core.errors import ConfigurationError
from fedattn.runtime.audit_chain import NO_HASH, read_log
from fedattn.runtime.state import AUDIT_FILE

DEFAULT_ENTRIES, MAX_ENTRIES = 50, 1000


class AuditAnswer(BaseModel):
    """The end of an audit log."""

    entries: list[dict[str, Any]] = Field(description="The last good ones, oldest first.")
    num_entries: int = Field(description="Good entries in all files that are kept.")
    head: str = Field(description="Hash of the last good entry; note it elsewhere.")
    broken_line: int | None = Field(
        description="First line of its file that breaks the chain; null if none does."
    )
    broken_file: str | None = Field(description="Name of that file.")
    why: str = Field(description="What is wrong there; empty if nothing is.")


def audit_router(folder: Path) -> APIRouter:
    """The route that reads the log of a node.

    Args:
        folder: the node's state.
    """
    router = APIRouter(prefix="/v1/audit")

    @router.get("")
    def get_audit(
        last: Annotated[
            int, Query(ge=1, le=MAX_ENTRIES, description="Entries at most.")
        ] = DEFAULT_ENTRIES,
    ) -> AuditAnswer:
        """What the node gave to whom, of late; the whole chain is checked."""
        path = folder / AUDIT_FILE
        try:
            chain = read_log(path)
        except FileNotFoundError:
            return AuditAnswer(
                entries=[], num_entries=0, head=NO_HASH, broken_line=None, broken_file=None, why=""
            )
        except OSError as error:
            raise ConfigurationError(
                f"audit log {path}: cannot be read ({(error.strerror or str(error)).lower()}); let "
                f"this user read it"
            ) from error
        return AuditAnswer(
            entries=list(chain.entries[-last:]),
            num_entries=chain.num_lines,
            head=chain.head,
            broken_line=chain.broken_line or None,
            broken_file=chain.path.name if chain.broken_line else None,
            why=chain.why,
        )

    return router
