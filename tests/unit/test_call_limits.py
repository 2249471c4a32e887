"""Calls of one peer at once, told apart by certificates."""

import pytest

from fedattn.core.errors import NodeBusyError
from fedattn.wire.call_limits import CallLimits


class Context:
    """A call of a peer; of nobody in particular in plaintext."""

    def __init__(self, name: str | None) -> None:
        self._name = name

    def auth_context(self) -> dict[str, list[bytes]]:
        if self._name is None:
            return {}
        return {"transport_security_type": [b"ssl"], "x509_common_name": [self._name.encode()]}


def test_calls_of_one_peer_are_bounded_and_those_of_others_are_not() -> None:
    limits = CallLimits(2)
    with limits.within(Context("a")):
        with limits.within(Context("a")):
            with pytest.raises(NodeBusyError, match="a has 2 calls here"):
                limits.within(Context("a")).__enter__()
            with limits.within(Context("b")):
                pass
        with limits.within(Context("a")):
            pass


def test_a_call_that_fails_is_over() -> None:
    limits = CallLimits(1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), limits.within(Context("a")):
            raise ZeroDivisionError


def test_in_plaintext_nobody_is_counted() -> None:
    limits = CallLimits(1)
    with limits.within(Context(None)), limits.within(Context(None)):
        pass
