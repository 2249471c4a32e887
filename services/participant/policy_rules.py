"""The rules by which a node's owner decides who gets rows: the keys of a policy file."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Annotated, Literal, NoReturn, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, field_validator, model_validator

from fedattn.core.answer_bounds import MAX_LEAST_ROWS, MAX_NOISE
from fedattn.core.consent import Ask
from fedattn.core.errors import PolicyRefusedError
from fedattn.core.limits import MAX_TOPIC_LENGTH
from fedattn.core.request import Exchange, SessionRequest
from fedattn.core.share import Share
from fedattn.core.spans import PrefixMode
from fedattn.passages.choice import Order, Standing
from services.participant.opening_hours import DAYS, OpeningWindow, is_open
from services.participant.withheld import BUILT_IN, Pattern, compile_pattern

MAX_ITEMS = 1000
_MAX_QUOTED = 80

Names = Annotated[tuple[str, ...], Field(max_length=MAX_ITEMS, title="a list of texts")]
WholeNumber = Annotated[int, Strict()]


class Policy(BaseModel):
    """What one node gives to whom. Every key is optional, and the default leaves it open."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    publishers: Names = Field(("*",), title='a list of node ids or patterns, such as ["desk-*"]')
    receivers: Names | None = Field(
        None, title='a list of node ids or patterns, such as ["ward-*"]'
    )
    subjects: Names = Field(("*",), title='a list of subjects or patterns, such as ["*@ward-1"]')
    purposes: Names | None = Field(None, title='a list of purposes, such as ["maintenance"]')
    shares: Annotated[
        tuple[Share, ...],
        Field(title=f"a list of some of {', '.join(Share)}"),
    ] = tuple(Share)
    rows_may_leave: Annotated[bool, Strict()] = Field(True, title="true or false")
    may_be_asked: Annotated[bool, Strict()] = Field(True, title="true or false")
    standing_order: Order = Field("newest", title='"newest" or "first"')
    standing_topic: str = Field(
        "", max_length=MAX_TOPIC_LENGTH, title="words, up to 2000 characters"
    )
    lowest_block: WholeNumber = Field(1, ge=0, title="a block, a whole number from 0")
    max_blocks: WholeNumber | None = Field(None, ge=1, title="a whole number from 1")
    max_rows: WholeNumber | None = Field(None, ge=1, title="a whole number from 1")
    max_bytes_per_query: WholeNumber | None = Field(None, ge=0, title="a whole number from 0")
    max_bytes_per_hour: WholeNumber | None = Field(None, ge=0, title="a whole number from 0")
    max_queries_per_hour: WholeNumber | None = Field(None, ge=0, title="a whole number from 0")
    max_answers_per_query: WholeNumber | None = Field(None, ge=0, title="a whole number from 0")
    max_answers_per_hour: WholeNumber | None = Field(None, ge=0, title="a whole number from 0")
    answer_least_rows: Annotated[float, Strict()] = Field(
        1.0, ge=1, le=MAX_LEAST_ROWS, title="a number from 1 to 1000"
    )
    answer_noise: Annotated[float, Strict()] = Field(
        0.0, ge=0, le=MAX_NOISE, title="a number from 0 to 100"
    )
    hours: str | None = Field(None, title='hours such as "08:00-18:00" or "22:00-06:00"')
    days: Names = Field(DAYS, min_length=1, title=f"a list of some of {', '.join(DAYS)}")
    cache_lifetime_s: Annotated[float, Strict()] | None = Field(
        None, ge=0, allow_inf_nan=False, title="a number of seconds from 0"
    )
    approval: Literal["never", "always"] | Names = Field(
        "never", title='"never", "always", or a list of purposes'
    )
    withhold: Names = Field((), title=f"a list of some of {', '.join(BUILT_IN)}")
    patterns: Mapping[str, str] = Field(
        {}, max_length=MAX_ITEMS, title="a table of names and regular expressions"
    )

    @field_validator("hours")
    @classmethod
    def _check_hours(cls, value: str | None) -> str | None:
        if value is not None:
            OpeningWindow.parse(value)
        return value

    @field_validator("days")
    @classmethod
    def _check_days(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _require_known("day", value, DAYS)
        return value

    @field_validator("patterns")
    @classmethod
    def _check_patterns(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name, expression in value.items():
            if name in BUILT_IN:
                raise ValueError(f"{name!r} is the name of a built-in one; choose another")
            compile_pattern(name, expression)
        return value

    @model_validator(mode="after")
    def _check_withheld(self) -> Self:
        _require_known("pattern", self.withhold, (*BUILT_IN, *self.patterns))
        return self

    @property
    def withheld(self) -> tuple[Pattern, ...]:
        """What must not leave: the built-in patterns it names, and every one of its own."""
        named = [BUILT_IN[name] for name in dict.fromkeys(self.withhold) if name in BUILT_IN]
        return (*named, *(compile_pattern(*item) for item in self.patterns.items()))

    @property
    def standing(self) -> Standing:
        """What takes part where nothing is known of the question."""
        return Standing(order=self.standing_order, topic=self.standing_topic)

    def check_share(self, share: Share) -> None:
        """Hold what a publisher lets this node know of its question against the policy.

        Raises:
            PolicyRefusedError: the owner does not want it so.
        """
        if share not in self.shares:
            refuse("shares", f"share {share.value} was asked for", ", ".join(self.shares) or "none")

    def is_asked(self, request: SessionRequest) -> bool:
        """Whether this node answers the publisher's queries in a session, and no row leaves it.

        Raises:
            PolicyRefusedError: the owner does not want it the way that was asked for.
        """
        exchange = request.options.exchange
        if self.rows_may_leave and exchange is not Exchange.ASK:
            return False
        wanted = f"exchange {exchange.value} was asked for"
        if exchange is Exchange.ROWS:
            refuse("rows_may_leave", wanted, "ask")
        if not self.may_be_asked:
            if not self.rows_may_leave:
                refuse("may_be_asked", "rows may not leave, and it may not be asked")
            refuse("may_be_asked", wanted, "rows")
        if not request.plans.asked.layers:
            refuse("rows_may_leave", "there is no block to ask at", "ask, at one block or more")
        if request.prefix.mode is not PrefixMode.PUBLIC:
            refuse("rows_may_leave", f"prefix {request.prefix.mode.value} was asked for", "public")
        return True

    def max_keep_ratio(self, num_rows: int) -> float:
        """Most of so many rows that may be sent at each block."""
        if self.max_rows is None or num_rows <= self.max_rows:
            return 1.0
        return self.max_rows / num_rows

    def cap_lifetime(self, lifetime_s: float) -> float:
        """How long others may hold rows, if the node's setting allows `lifetime_s`."""
        return (
            lifetime_s if self.cache_lifetime_s is None else min(lifetime_s, self.cache_lifetime_s)
        )

    def needs_approval(self, ask: Ask) -> bool:
        """Whether a person has to say yes to it."""
        if isinstance(self.approval, str):
            return self.approval == "always"
        return matches(ask.purpose, self.approval)

    def check(self, ask: Ask, moment: datetime) -> None:
        """Hold an ask against every rule that needs no memory.

        Args:
            ask: what is wanted.
            moment: local time.

        Raises:
            PolicyRefusedError: names the first rule it breaks, asked and allowed.
        """
        self._check_who(ask)
        self._check_sizes(ask)
        if not is_open(moment, self.hours, self.days):
            refuse(
                "hours" if self.hours else "days",
                f"it is {DAYS[moment.weekday()]} {moment:%H:%M} there",
                f"{self.hours or 'the whole day'} on {' '.join(self.days)}",
            )

    def check_receivers(self, node_ids: Iterable[str]) -> None:
        """Hold the other contributors that would read this node's rows against the policy.

        Args:
            node_ids: theirs; the publisher is judged by `check`.

        Raises:
            PolicyRefusedError: names one that may not.
        """
        allowed = self.publishers if self.receivers is None else self.receivers
        for node_id in node_ids:
            if not matches(node_id, allowed):
                refuse(
                    "receivers",
                    f"{quoted(node_id)} would read its rows too, as a contributor after it",
                    "others only (contributors read nobody's rows if they are independent)",
                )

    def _check_who(self, ask: Ask) -> None:
        if not matches(ask.publisher, self.publishers):
            refuse("publishers", f"{quoted(ask.publisher)} asked", "others only")
        if not matches(ask.subject, self.subjects):
            refuse("subjects", f"the subject is {quoted(ask.subject)}", "others only")
        if self.purposes is not None and not matches(ask.purpose, self.purposes):
            known = ", ".join(map(quoted, self.purposes[:8])) or "none"
            refuse("purposes", f"the purpose is {quoted(ask.purpose)}", known)

    def _check_sizes(self, ask: Ask) -> None:
        lowest = min(ask.layers, default=self.lowest_block)
        if lowest < self.lowest_block:
            refuse(
                "lowest_block",
                f"block {lowest} was asked for",
                f"{self.lowest_block} and up",
                f"choose a plan of those blocks{', such as auto' * (self.lowest_block == 1)}, or "
                f"have lowest_block = {lowest} set in its policy: only its owner can change that",
            )
        if self.max_blocks is not None and len(ask.layers) > self.max_blocks:
            refuse("max_blocks", f"{len(ask.layers)} blocks were asked for", str(self.max_blocks))
        limit = self.max_bytes_per_query
        if limit is not None and ask.num_bytes > limit:
            refuse("max_bytes_per_query", f"{ask.num_bytes} bytes were asked for", f"{limit}")


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of some shell patterns fits the whole name; case counts."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def quoted(name: str) -> str:
    """A name from outside, on one line and of bounded length."""
    return ascii(name[:_MAX_QUOTED])


def refuse(
    rule: str, asked: str, allowed: str = "", remedy: str = "only its owner can change that"
) -> NoReturn:
    """Say which rule stands in the way.

    Args:
        rule: key of the policy.
        asked: what was asked for.
        allowed: what would be let; empty if nothing would.
        remedy: for who asked.

    Raises:
        PolicyRefusedError: always.
    """
    limit = f", allowed: {allowed}" if allowed else ""
    raise PolicyRefusedError(f"its policy refuses by the rule {rule}: {asked}{limit}; {remedy}")


def _require_known(kind: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise ValueError(f"there is no {kind} {quoted(name)}")
