"""Settings: environment and flags, and a clear refusal of everything that is not one."""

import os

import pytest
from pydantic import Field, ValidationError

from fedattn.core.errors import ConfigurationError
from fedattn.runtime.settings import ServiceSettings, service_config


class DemoSettings(ServiceSettings):
    """Settings of a service that does not exist."""

    model_config = service_config("UNITDEMO_", "unit-demo")

    port: int = Field(7000, ge=0, le=65535)
    listen_host: str = "127.0.0.1"
    with_reflection: bool = False
    peers: list[str] = Field(default_factory=list)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in os.environ:
        if key.upper().startswith("UNITDEMO_"):
            monkeypatch.delenv(key)


def test_defaults_hold_without_environment_and_flags() -> None:
    settings = DemoSettings.load([])
    assert settings.port == 7000
    assert settings.log_level == "info"
    assert settings.log_format == "console"
    assert settings.peers == []


def test_environment_sets_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITDEMO_PORT", "7001")
    monkeypatch.setenv("UNITDEMO_WITH_REFLECTION", "true")
    settings = DemoSettings.load([])
    assert settings.port == 7001
    assert settings.with_reflection


def test_flag_overrides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITDEMO_PORT", "7001")
    monkeypatch.setenv("UNITDEMO_LISTEN_HOST", "::1")
    settings = DemoSettings.load(["--port", "7002", "--with-reflection"])
    assert settings.port == 7002
    assert settings.listen_host == "::1"
    assert settings.with_reflection


def test_flags_are_those_of_the_process_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["unit-demo", "--port", "7003"])
    assert DemoSettings.load().port == 7003
    assert DemoSettings.load([]).port == 7000


def test_flags_are_written_with_hyphens() -> None:
    assert DemoSettings.load(["--listen-host", "h", "--log-level", "debug"]).listen_host == "h"


def test_unknown_key_of_the_environment_is_named_with_the_known_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UNITDEMO_PRT", "7001")
    with pytest.raises(
        ConfigurationError, match=r"unknown setting UNITDEMO_PRT; known are .*_PORT"
    ):
        DemoSettings.load([])


def test_keys_of_other_programs_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHERDEMO_PRT", "7001")
    assert DemoSettings.load([]).port == 7000


@pytest.mark.parametrize(
    ("key", "flag", "value"),
    [
        ("UNITDEMO_PORT", "--port", "70001"),
        ("UNITDEMO_PORT", "--port", "-1"),
        ("UNITDEMO_PORT", "--port", "many"),
        ("UNITDEMO_PORT", "--port", ""),
        ("UNITDEMO_LOG_LEVEL", "--log-level", "loud"),
        ("UNITDEMO_WITH_REFLECTION", "--with-reflection", "perhaps"),
    ],
)
def test_malformed_value_of_the_environment_is_named_with_its_key(
    monkeypatch: pytest.MonkeyPatch, key: str, flag: str, value: str
) -> None:
    monkeypatch.setenv(key, value)
    with pytest.raises(ConfigurationError) as caught:
        DemoSettings.load([])
    assert str(caught.value).startswith(f"{key} ({flag}): ")
    assert str(caught.value).endswith(f"got {value!r}")


def test_malformed_flag_is_named_with_its_value() -> None:
    with pytest.raises(ConfigurationError, match=r"UNITDEMO_PORT \(--port\): .*, got '70001'"):
        DemoSettings.load(["--port", "70001"])


def test_all_malformed_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITDEMO_PORT", "many")
    monkeypatch.setenv("UNITDEMO_LOG_FORMAT", "xml")
    with pytest.raises(ConfigurationError, match=r"LOG_FORMAT.*'xml'; .*PORT.*'many'"):
        DemoSettings.load([])


def test_malformed_list_of_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNITDEMO_PEERS", "a,b")
    with pytest.raises(ConfigurationError, match=r"peers|PEERS"):
        DemoSettings.load([])


def test_malformed_list_flag_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"peers|PEERS"):
        DemoSettings.load(["--peers", "[a"])


@pytest.mark.parametrize(
    "argv", [["--prt", "1"], ["--por", "1"], ["--listen_host", "h"], ["stray"], ["--port"]]
)
def test_unknown_or_incomplete_flag_ends_the_program_with_its_usage(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        DemoSettings.load(argv)
    assert caught.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("usage: unit-demo")
    assert argv[0] in shown


def test_help_lists_every_flag_with_its_description(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        DemoSettings.load(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("--port", "--listen-host", "--log-level", "--peers"))
    assert "Least severe log entries to write." in shown


def test_settings_cannot_be_changed_once_read() -> None:
    settings = DemoSettings.load([])
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1
