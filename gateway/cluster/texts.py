"""Questions, events and answers of jobs in a stream of NATS."""

from dataclasses import replace

import nats.js.errors
from cachetools import LRUCache
from nats.js import api

from fedattn.core.errors import JobsUnavailableError
from gateway.cluster.link import Link
from gateway.cluster.rows import parse_event, write_event
from gateway.jobs_rows import JobEvent

_QUESTION, _EVENT = "question", "event"
_MAX_PLACES = 1000
_HEADROOM = 1024
"""Bytes of a message besides its value."""
_WRONG_LAST = frozenset({10071, 10164})
"""Codes of NATS for a subject that another message came to meanwhile."""


class Texts:
    """Writes and reads them; raises Failure of NATS, and JobsUnavailableError.

    Args:
        link: to NATS, with the key that seals.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._places: LRUCache[str, tuple[int, int]] = LRUCache(_MAX_PLACES)

    async def ask(self, job_id: str, question: str) -> None:
        """Keep what was asked."""
        await self._publish(self._subject(job_id, _QUESTION), question.encode())

    async def question(self, job_id: str) -> str | None:
        """What was asked, if it is kept."""
        subject = self._subject(job_id, _QUESTION)
        found = await self._get(subject, None)
        return None if found is None else self._link.key.open(subject, found[0]).decode()

    async def append(
        self, job_id: str, event: JobEvent, message_id: str, number: int | None = None
    ) -> None:
        """Keep an event as the next one, or with a number; after the last one none is kept.

        Args:
            job_id: whose.
            event: what happened.
            message_id: the same for each attempt, of which NATS keeps one.
            number: its number, if it is not the next one.

        Raises:
            JobsUnavailableError: another gateway has ended the job.
        """
        subject = self._subject(job_id, _EVENT)
        for _ in range(3):
            known = await self._last(job_id)
            last, place = (None, 0) if known is None else known
            if last is not None and last.is_last:
                return
            following = number or (1 if last is None else last.number + 1)
            content = write_event(replace(event, number=following))
            try:
                await self._publish(subject, content, place, message_id)
            except nats.js.errors.APIError as error:
                if error.err_code not in _WRONG_LAST:
                    raise
            else:
                return
        raise JobsUnavailableError("another gateway writes to this job; look at it again")

    async def events(self, job_id: str, after: int) -> list[JobEvent]:
        """What comes after a number."""
        subject, found = self._subject(job_id, _EVENT), list[JobEvent]()
        number, place = self._places.get(job_id, (0, 0))
        place = place if number <= after else 0
        while (message := await self._get(subject, place + 1)) is not None:
            event = parse_event(self._link.key.open(subject, message[0]))
            place = message[1]
            if event.number > after:
                found.append(event)
            else:
                self._places[job_id] = (event.number, place)
        return found

    async def last_event(self, job_id: str) -> JobEvent | None:
        """The last one."""
        known = await self._last(job_id)
        return None if known is None else known[0]

    async def remove(self, job_id: str) -> None:
        """Remove question and events."""
        self._places.pop(job_id, None)
        connection = self._link.connection()
        await connection.js.purge_stream(connection.texts, subject=self._subject(job_id, ">"))

    async def _last(self, job_id: str) -> tuple[JobEvent, int] | None:
        subject = self._subject(job_id, _EVENT)
        found = await self._get(subject, None)
        if found is None:
            return None
        return parse_event(self._link.key.open(subject, found[0])), found[1]

    def _subject(self, job_id: str, kind: str) -> str:
        return self._link.connection().subject("text", self._link.key.name(job_id), kind)

    async def _get(self, subject: str, after: int | None) -> tuple[bytes, int] | None:
        """The last message of a subject, or the first from a place on; with its place."""
        connection = self._link.connection()
        try:
            message = await connection.js.get_msg(
                connection.texts, subject=subject, seq=after, next=after is not None
            )
        except nats.js.errors.NotFoundError:
            return None
        return message.data or b"", message.seq or 0

    async def _publish(
        self, subject: str, content: bytes, last: int | None = None, message_id: str | None = None
    ) -> None:
        connection = self._link.connection()
        sealed = self._link.key.seal(subject, content)
        if len(sealed) > connection.client.max_payload - _HEADROOM:
            raise JobsUnavailableError(
                f"{len(sealed)} bytes are to be kept at once, NATS takes "
                f"{connection.client.max_payload}; raise its max_payload"
            )
        headers = dict[str, str]()
        if last is not None:
            headers[api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE] = str(last)
        if message_id is not None:
            headers[api.Header.MSG_ID] = message_id
        await connection.js.publish(subject, sealed, headers=headers)
