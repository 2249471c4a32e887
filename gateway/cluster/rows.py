"""Rows and events of jobs as they lie in NATS, before they are sealed."""

import base64
import json
from dataclasses import asdict

from fedattn.rest.jobs import JobStatus
from gateway.jobs_rows import JobEvent, JobRow


def write_row(row: JobRow) -> bytes:
    """A row without its question, which lies with the texts."""
    fields = asdict(row) | {"question": None}
    if row.body_sha256 is not None:
        fields["body_sha256"] = base64.b64encode(row.body_sha256).decode()
    return json.dumps(fields).encode()


def parse_row(content: bytes) -> JobRow:
    """The row; raises ValueError if it is none."""
    fields = json.loads(content)
    try:
        fields["status"] = JobStatus(fields["status"])
        if fields["body_sha256"] is not None:
            fields["body_sha256"] = base64.b64decode(fields["body_sha256"])
        return JobRow(**fields)
    except (TypeError, KeyError) as error:
        raise ValueError(f"not a row of this version ({error})") from None


def write_event(event: JobEvent) -> bytes:
    """An event with its number."""
    return json.dumps(asdict(event)).encode()


def parse_event(content: bytes) -> JobEvent:
    """The event; raises ValueError if it is none."""
    try:
        return JobEvent(**json.loads(content))
    except TypeError as error:
        raise ValueError(f"not an event of this version ({error})") from None
