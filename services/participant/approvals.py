"""Lets a session in only if the node's owner has approved it."""

from dataclasses import dataclass

import structlog

from fedattn.core.consent import Ask
from fedattn.core.errors import ApprovalNeededError, ConfigurationError, PolicyRefusedError
from fedattn.runtime.approvals import Approval, ApprovalStore, Decision

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ApprovalGate:
    """Asks the store, and queues what nobody has decided. Waits for the disk."""

    store: ApprovalStore

    def require(self, ask: Ask) -> Approval:
        """Use an approval of this ask, and return it as it is then.

        Raises:
            ApprovalNeededError: nobody has decided yet; the ask is in the list now.
            PolicyRefusedError: the owner has denied it.
        """
        try:
            entry = self.store.use(ask)
        except ConfigurationError as error:
            log.warning("approvals_unreadable", why=str(error))
            raise ApprovalNeededError(
                "its owner has to approve this, but its list of asks cannot be read; its log says "
                "why"
            ) from None
        if entry is None:
            raise ApprovalNeededError(
                "its owner has to approve this, and has too many asks to decide already; ask again "
                "once the owner has decided some"
            )
        match entry.decision:
            case Decision.APPROVED:
                log.info("approval_used", id=entry.id, uses_left=entry.uses_left)
                return entry
            case Decision.DENIED:
                left_s = max(0.0, entry.expires_at - self.store.clock())
                raise PolicyRefusedError(
                    f"its owner has denied this publisher, subject and purpose; it stays so for "
                    f"{left_s / 60:.0f} minutes, and only the owner can change that"
                )
            case Decision.PENDING:
                log.warning("approval_needed", id=entry.id, publisher=ask.publisher)
                raise ApprovalNeededError(
                    f"its owner has to approve this; ask again once it is approved (there it is "
                    f"the ask {entry.id}, {len(ask.layers)} blocks, {ask.num_rows} rows, "
                    f"{ask.keep_ratio:.0%} of its tokens, "
                    f"{ask.num_bytes} bytes)"
                )

    def give_back(self, used: Approval) -> None:
        """Nothing came of a use; one that cannot be given back is lost, and the log says why."""
        try:
            self.store.give_back(used)
        except ConfigurationError as error:
            log.warning("approval_not_given_back", id=used.id, why=str(error))
