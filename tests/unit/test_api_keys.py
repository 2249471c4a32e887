"""API keys: shown once, kept as digests, looked up by id."""

import re
from pathlib import Path

import pytest

from fedattn.core.errors import ConfigurationError, InvalidRequestError
from fedattn.runtime.api_keys import ApiKey, KeyFile, find_key


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


def make(keys: KeyFile, name: str = "anna", **fields: object) -> str:
    return keys.create(
        lambda key_id, sha256: ApiKey.model_validate(
            {"id": key_id, "name": name, "sha256": sha256, "created_at": 0.0, **fields}
        )
    )


def found(keys: KeyFile, given: str, now: float = 1.0) -> ApiKey | None:
    return find_key({key.id: key for key in keys.read()}, given, now)


def test_a_key_has_256_bits_and_the_file_none_of_them(keys: KeyFile) -> None:
    key = make(keys)
    match = re.fullmatch(r"fa_([0-9a-f]{12})_([\w-]{43})", key)
    assert match is not None
    content = keys.path.read_text()
    assert match[1] in content
    assert match[2] not in content


def test_only_the_owner_may_read_the_file(keys: KeyFile) -> None:
    make(keys)
    assert keys.path.stat().st_mode & 0o777 == 0o600


def test_a_key_is_found_and_nothing_like_it(keys: KeyFile) -> None:
    anna, bert = make(keys), make(keys, "bert")
    known = found(keys, anna)
    assert known is not None
    assert known.name == "anna"
    crossed = anna[:16] + bert[16:]
    last = "A" if anna[-1] != "A" else "B"
    for given in ("", "fa_", anna[:-1], anna + "A", anna[:-1] + last, crossed, anna.upper()):
        assert found(keys, given) is None


def test_an_expired_key_is_not_found(keys: KeyFile) -> None:
    key = make(keys, expires_at=10.0)
    assert found(keys, key, now=9.9) is not None
    assert found(keys, key, now=10.0) is None


def test_revoking_takes_one_id_or_all_of_a_name(keys: KeyFile) -> None:
    first, second, other = make(keys), make(keys), make(keys, "bert")
    assert len(keys.revoke(first[3:15])) == 1
    assert found(keys, first) is None
    assert found(keys, second) is not None
    assert [key.name for key in keys.revoke("anna")] == ["anna"]
    assert found(keys, other) is not None
    with pytest.raises(InvalidRequestError, match="fedattn keys list"):
        keys.revoke("anna")


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "a\n"])
def test_a_name_that_policies_cannot_know_is_refused(keys: KeyFile, name: str) -> None:
    with pytest.raises(InvalidRequestError, match="name"):
        make(keys, name)
    assert keys.read() == ()


@pytest.mark.parametrize("content", ["", "{}", '[{"id": 1}]', "nonsense"])
def test_a_file_of_something_else_is_named(keys: KeyFile, content: str) -> None:
    keys.path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"keys\.json: expected a list"):
        make(keys)
    assert keys.path.read_text() == content
