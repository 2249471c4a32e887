"""API keys that all gateways know."""

import time
from collections.abc import Callable

from fedattn.core.errors import GatewayUnavailableError
from fedattn.runtime.api_keys import find_key, id_of
from gateway.callers import Caller, Limits
from gateway.cluster.link import Link
from gateway.sign_in import caller_with


class SharedKeyRing:
    """The API keys in NATS, as they are now; while it is away, as they were.

    Args:
        link: to NATS.
        defaults: limits of keys that have none of their own.
        clock: seconds since the epoch.
    """

    def __init__(self, link: Link, defaults: Limits, clock: Callable[[], float] = time.time):
        self._link, self._defaults, self._clock = link, defaults, clock

    def find(self, given: str) -> Caller:
        """Whose key it is.

        Raises:
            NotSignedInError: nobody's, or one that has expired.
            GatewayUnavailableError: the keys have not been read since the gateway's start.
        """
        if not self._link.keys.is_complete:
            raise GatewayUnavailableError(
                "this gateway has not reached NATS yet, where the API keys are; try again in a "
                "moment, or look into its log"
            )
        key_id = id_of(given)
        held = self._link.keys.held.get(key_id)
        known = {} if held is None else {key_id: held.value}
        return caller_with(find_key(known, given, self._clock()), self._defaults)
