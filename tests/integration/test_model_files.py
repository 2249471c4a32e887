"""Damaged and missing model files, and cache folders that cannot be written: one line each."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import ByT5Tokenizer

from fedattn.core.errors import ModelError
from fedattn.model import prepare
from fedattn.model.engine import open_engine
from fedattn.model.loading import load_model, load_tokenizer, read_sizes
from fedattn.model.prepare import PreparedModel, prepare_model, weights_folder
from fedattn.model.source import resolve_source
from fedattn.model.store import default_cache_dir, written_at_once
from fedattn.model.weights.choice import FLOAT32_WEIGHTS, Weights
from fedattn.model.weights.written import note_written
from tests.harness.tiny import save_tiny_model

HALF = Weights(dtype=torch.bfloat16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny_model(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def prepared(folder: Path, tmp_path: Path) -> PreparedModel:
    return prepare_model(str(folder), cache_dir=tmp_path / "cache")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def configure(folder: Path, **settings: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def one_line(error: pytest.ExceptionInfo[ModelError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text.count(";") >= 1, "no remedy"
    return text


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: truncate(folder / "model.safetensors"), "weights .* cannot be read"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b""), "weights .* cannot be read"),
    (lambda folder: truncate(folder / "config.json"), "config .* cannot be read"),
    (lambda folder: configure(folder, hidden_size="many"), "config .* cannot be read"),
    (lambda folder: configure(folder, hidden_size=96), "weights .* cannot be read"),
    (lambda folder: configure(folder, num_hidden_layers=7), r"weights .* lack model\.layers\.5"),
    (lambda folder: configure(folder, num_hidden_layers=3), r"against the config.* model\.layers"),
    (lambda folder: truncate(folder / "tokenizer.json"), "tokenizer .* cannot be read"),
    (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer .* cannot be read"),
    (no_tokenizer, "tokenizer .* cannot be read"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES)
def test_a_damaged_source_is_named_in_one_line(
    folder: Path, tmp_path: Path, damage: Callable[[Path], object], said: str
) -> None:
    damage(folder)
    with pytest.raises(ModelError, match=said) as error:
        prepare_model(str(folder), cache_dir=tmp_path / "c")
    assert str(folder) in one_line(error)
    assert not list((tmp_path / "c" / "models").glob("tiny*/*"))


@pytest.mark.parametrize(("damage", "said"), DAMAGES)
def test_a_prepared_folder_damaged_since_is_named_in_one_line(
    prepared: PreparedModel, damage: Callable[[Path], object], said: str
) -> None:
    damage(prepared.path)
    with pytest.raises(ModelError, match=said) as error:
        open_engine(prepared)
    assert f"delete {prepared.path}" in one_line(error)


def spoil(path: Path) -> None:
    """Zeros over part of it; its length stays."""
    with path.open("r+b") as stream:
        stream.seek(-1000, os.SEEK_END)
        stream.write(bytes(1000))


@pytest.mark.parametrize("weights", [FLOAT32_WEIGHTS, HALF], ids=lambda weights: weights.name)
def test_weights_that_are_not_those_written_are_named_in_one_line(
    prepared: PreparedModel, weights: Weights
) -> None:
    load_model(prepared, weights)
    place = weights_folder(prepared, weights)
    spoil(place / "model.safetensors")
    with pytest.raises(ModelError, match=r"weights .* cannot be read .*SHA-256") as error:
        load_model(prepared, weights)
    assert f"delete {place} " in one_line(error)


def test_weights_that_are_not_numbers_are_named_in_one_line(prepared: PreparedModel) -> None:
    file = prepared.path / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.3.self_attn.v_proj.weight"][0, 0] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})
    note_written(file)
    with pytest.raises(ModelError, match="block 3 makes rows of no finite length") as error:
        load_model(prepared)
    assert f"delete {prepared.path} " in one_line(error)


def test_a_damaged_copy_in_half_precision_is_named_itself(prepared: PreparedModel) -> None:
    copy = weights_folder(prepared, HALF)
    truncate(copy / "model.safetensors")
    with pytest.raises(ModelError, match=f"delete {copy}"):
        load_model(prepared, HALF)


@pytest.mark.parametrize("size", [0, 3, 100, 5000])
def test_a_truncated_gguf_file_is_named_in_one_line(tmp_path: Path, size: int) -> None:
    source = resolve_source("default").path
    assert source is not None
    with source.open("rb") as whole:
        (tmp_path / "cut.gguf").write_bytes(whole.read(size))
    with pytest.raises(ModelError, match=r"cut\.gguf cannot be read") as error:
        prepare_model(str(tmp_path / "cut.gguf"), cache_dir=tmp_path / "c")
    one_line(error)


def test_sizes_need_a_config_that_can_be_read(prepared: PreparedModel) -> None:
    truncate(prepared.path / "config.json")
    with pytest.raises(ModelError, match=r"config .* cannot be read"):
        read_sizes(prepared)


@pytest.mark.parametrize(
    "settings",
    [
        {"num_key_value_heads": 0},
        {"head_dim": 0},
        {"head_dim": -8},
        {"hidden_act": "none of them"},
        {"pad_token_id": 5000},
        {"vocab_size": 0},
        {"layer_types": 5},
    ],
)
def test_a_config_that_makes_no_network_is_named_in_one_line(
    prepared: PreparedModel, settings: dict[str, Any]
) -> None:
    configure(prepared.path, **settings)
    with pytest.raises(ModelError, match=r"config .* cannot be read") as error:
        read_sizes(prepared)
    assert f"delete {prepared.path}" in one_line(error)


def test_a_tokenizer_that_cannot_stream_text_is_refused(prepared: PreparedModel) -> None:
    for file in prepared.path.glob("tokenizer*"):
        file.unlink()
    ByT5Tokenizer().save_pretrained(prepared.path)
    with pytest.raises(ModelError, match=r"ByT5Tokenizer, expected one with a tokenizer\.json"):
        load_tokenizer(prepared)


def test_a_file_in_place_of_the_cache_folder_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "c").write_text("a file")
    with pytest.raises(ModelError, match=f"cache folder {tmp_path}/c.* move away") as error:
        prepare_model(str(folder), cache_dir=tmp_path / "c")
    assert "FEDATTN_CACHE" in one_line(error)


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (OSError(errno.ENOSPC, "no space"), "no room in .* MiB free.* FEDATTN_CACHE"),
        (SafetensorError("I/O error: no space (os error 28)"), "no room in .* FEDATTN_CACHE"),
        (OSError(errno.EROFS, "read-only"), "read-only file system.* FEDATTN_CACHE"),
        (PermissionError(errno.EACCES, "denied"), "let this user write there.* FEDATTN_CACHE"),
    ],
)
def test_a_cache_folder_that_cannot_be_written_is_named_in_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, said: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(prepare, "save_file", fail)
    with pytest.raises(ModelError, match=said) as error:
        prepare_model(str(folder), cache_dir=tmp_path / "c")
    assert str(tmp_path / "c") in one_line(error)
    assert not list((tmp_path / "c" / "models").glob("*/*"))


def test_a_full_disk_costs_the_shared_copy_in_half_precision_only(
    prepared: PreparedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(prepare, "save_file", fail)
    model = load_model(prepared, HALF)
    assert model.sizes.bytes_per_scalar == 2
    assert not (prepared.path / "bfloat16").exists()


def test_a_folder_of_an_older_format_is_refused(prepared: PreparedModel) -> None:
    record = json.loads((prepared.path / "fedattn.json").read_text())
    (prepared.path / "fedattn.json").write_text(json.dumps(record | {"format": 1}))
    with pytest.raises(ModelError, match="another version of this program"):
        prepare_model(str(prepared.path))


@pytest.mark.parametrize("record", ["{", "[]", '{"fingerprint": 5, "name": "x"}'])
def test_a_damaged_record_is_named(prepared: PreparedModel, record: str) -> None:
    (prepared.path / "fedattn.json").write_text(record)
    with pytest.raises(ModelError, match=r"fedattn\.json is damaged; delete"):
        prepare_model(str(prepared.path))


@pytest.mark.parametrize("name", ["a" * 5000, "~nobody-of-this-name/x", "nul\0"])
def test_what_cannot_be_a_path_is_no_model(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="is no folder") as error:
        prepare_model(name, cache_dir=tmp_path)
    assert len(one_line(error)) < 400


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "FEDATTN_CACHE", "~nobody-of-this-name/x")
    with pytest.raises(ModelError, match="set FEDATTN_CACHE"):
        default_cache_dir()


def test_whoever_may_read_other_folders_of_a_user_may_read_prepared_ones(
    prepared: PreparedModel, tmp_path: Path
) -> None:
    load_model(prepared, HALF)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    folders, files = ((tmp_path / name).stat().st_mode for name in ("folder", "file"))
    for path in (prepared.path, *prepared.path.rglob("*")):
        if path.suffix != ".lock":
            assert path.stat().st_mode == (folders if path.is_dir() else files), path


def test_what_an_ended_run_left_half_written_is_removed_by_the_next(tmp_path: Path) -> None:
    leftover, other = tmp_path / ".preparing-model-x1", tmp_path / ".preparing-another-x1"
    leftover.mkdir()
    other.mkdir()
    with written_at_once(tmp_path / "model") as staging:
        assert not leftover.exists()
        (staging / "weights").write_text("whole")
    assert (tmp_path / "model" / "weights").read_text() == "whole"
    assert other.exists()
