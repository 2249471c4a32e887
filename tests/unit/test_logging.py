"""Logs carry what an operator needs and no private text."""

import json
import logging
import os
from collections.abc import Iterator

import pytest
import structlog

from fedattn.runtime.logging import configure_logging

SECRET = "the patient is allergic"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def fail() -> None:
    question = SECRET
    raise ValueError(question)


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("library", [False, True], ids=["ours", "a library's"])
def test_exception_shows_type_and_frames_but_no_message_or_locals(
    log_format: str, library: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info", log_format, "test")
    try:
        fail()
    except ValueError:
        if library:
            logging.getLogger("some.library").exception("it failed")
        else:
            structlog.get_logger("fedattn.test").exception("it_failed")
    written = capfd.readouterr().err
    assert "ValueError" in written
    assert "in fail" in written
    assert SECRET not in written


def test_a_full_disk_stops_nobody_who_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        monkeypatch.setattr("sys.stderr", full)
        configure_logging("info", "json", "test")
        structlog.get_logger("fedattn.test").info("told")
        logging.getLogger("some.library").error("told")
        monkeypatch.undo()
        with pytest.raises(OSError, match="No space left"):
            full.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), full.fileno())  # what waits goes there


def test_json_entries_are_one_object_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json", "test")
    structlog.get_logger("x").info("hello", node="a")
    entry = json.loads(capfd.readouterr().err)
    assert (entry["event"], entry["node"], entry["service"]) == ("hello", "a", "test")


def test_entries_below_the_level_are_not_written(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging("warning", "console", "test")
    structlog.get_logger("x").info("quiet")
    assert capfd.readouterr().err == ""
