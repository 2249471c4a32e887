"""Matrices in blocks against the floats that they stand for; the file that they are mapped from."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fedattn.core.errors import InternalError
from fedattn.model.graph_layers import GraphLinear
from fedattn.model.weights import matrix as matrix_module
from fedattn.model.weights.direct import DirectProducts, most_bytes
from fedattn.model.weights.formats import BlockFormat
from fedattn.model.weights.ggml import ggml
from fedattn.model.weights.gguf_file import expand_slowly
from fedattn.model.weights.graphs import Draft
from fedattn.model.weights.matrix import BlocksMatrix
from fedattn.model.weights.modules import BlocksEmbedding, BlocksLinear, direct_products
from fedattn.model.weights.stored import BLOCKS_FILE, StoredTensors, read_tensors, write_tensors
from fedattn.model.weights.written import note_written

FORMATS = [BlockFormat.Q4_0, BlockFormat.Q4_1, BlockFormat.Q5_0, BlockFormat.Q5_1]
FORMATS += [BlockFormat.Q8_0, BlockFormat.Q4_K, BlockFormat.Q5_K, BlockFormat.Q6_K]
FORMATS += [BlockFormat.IQ4_NL, BlockFormat.IQ4_XS]


def random_matrix(form: BlockFormat, rows: int = 24, width: int = 256) -> BlocksMatrix:
    weights = torch.randn(rows, width, generator=torch.Generator().manual_seed(rows))
    return BlocksMatrix(form, ggml().quantize(form, weights))


def multiply(matrices: list[BlocksMatrix], x: torch.Tensor) -> torch.Tensor:
    """Rows [N, in] by all matrices as a graph does it, [N, sum of out]."""
    library = ggml().graphs
    draft = Draft(library, 64)
    rows = draft.take(x)
    products = [torch.empty(len(x), matrix.num_rows) for matrix in matrices]
    for matrix, product in zip(matrices, products, strict=True):
        drawn = GraphLinear.of(BlocksLinear(matrix)).draw(draft, rows)
        draft.into(product, 0, "cont", drawn)
    library.draw(draft)(torch.get_num_threads())
    return torch.cat(products, dim=-1)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_blocks_are_near_the_weights_they_were_made_of(form: BlockFormat) -> None:
    weights = torch.randn(24, 256, generator=torch.Generator().manual_seed(24))
    matrix = random_matrix(form)
    assert (matrix.num_rows, matrix.width) == (24, 256)
    error = (matrix.expand() - weights).norm() / weights.norm()
    assert float(error) < (0.01 if form is BlockFormat.Q8_0 else 0.12)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_expanding_by_ggml_and_by_numpy_is_the_same(form: BlockFormat) -> None:
    matrix = random_matrix(form)
    torch.testing.assert_close(matrix.expand(), expand_slowly(matrix), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("num_tokens", [1, 13, 40])
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_products_are_those_of_the_expanded_matrix(
    form: BlockFormat, num_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix_module, "_FLOATS", 7 * 256)  # the last part is smaller
    monkeypatch.setattr(matrix_module, "_FLOATS_OF_FEW", 5 * 256)
    matrix, x = random_matrix(form), torch.randn(num_tokens, 256)
    torch.testing.assert_close(matrix.apply(x), x @ matrix.expand().T, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_products_of_blocks_round_the_rows_to_8_bits(form: BlockFormat) -> None:
    matrices = [random_matrix(form, rows) for rows in (24, 8, 16)]
    x = torch.randn(5, 256, generator=torch.Generator().manual_seed(1))
    exact = torch.cat([x @ one.expand().T for one in matrices], dim=-1)
    rounded = multiply(matrices, x)
    assert float((rounded - exact).norm() / exact.norm()) < 0.01
    alone = torch.cat([multiply(matrices, x[row : row + 1]) for row in range(5)])
    assert torch.equal(alone, rounded)


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(matrix_module, "_WORTH_A_THREAD", 256)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_products_are_the_same_on_two_threads() -> None:
    matrix, x = random_matrix(BlockFormat.Q4_1, 25), torch.randn(20, 256)
    torch.testing.assert_close(matrix.apply(x), x @ matrix.expand().T, atol=1e-4, rtol=1e-5)
    for _ in range(3):
        shared = multiply([matrix, matrix], x[:2])
        torch.set_num_threads(1)
        assert torch.equal(shared, multiply([matrix, matrix], x[:2]))
        torch.set_num_threads(2)


def test_a_graph_that_ggml_does_not_compute_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ggml().graphs.cpu, "ggml_graph_compute", lambda *_: -1)
    with pytest.raises(InternalError, match="expected status 0, got -1"):
        multiply([random_matrix(BlockFormat.Q4_0)], torch.randn(1, 256))


def test_formats_may_differ_between_matrices_of_one_product() -> None:
    matrices = [random_matrix(BlockFormat.Q4_K), random_matrix(BlockFormat.Q6_K, 8)]
    x = torch.randn(2, 256)
    exact = torch.cat([x @ one.expand().T for one in matrices], dim=-1)
    assert float((multiply(matrices, x) - exact).norm() / exact.norm()) < 0.02


def test_a_linear_layer_has_its_bias_and_lets_gradients_through() -> None:
    matrix = random_matrix(BlockFormat.Q8_0)
    bias = torch.nn.Parameter(torch.randn(24), requires_grad=False)
    layer, plain = BlocksLinear(matrix, bias), torch.nn.Linear(256, 24)
    plain.weight.data, plain.bias.data = matrix.expand(), bias.data
    x = torch.randn(2, 3, 256)
    torch.testing.assert_close(layer(x), plain(x).detach(), atol=1e-4, rtol=1e-5)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    (expected,) = torch.autograd.grad(plain(x).sum(), x)
    torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-5)


def test_direct_products_are_for_few_rows_and_for_this_thread_only() -> None:
    matrix = random_matrix(BlockFormat.Q8_0)
    bias = torch.nn.Parameter(torch.randn(24), requires_grad=False)
    layer, x = BlocksLinear(matrix, bias), torch.randn(1, 5, 256)
    exact, rounded = layer(x), DirectProducts().multiply(matrix, x[0]) + bias
    with direct_products(DirectProducts()):
        assert torch.equal(layer(x)[0], rounded)
        each = [layer(x[:, at : at + 1]) for at in range(5)]
        assert torch.equal(torch.cat(each, dim=1), layer(x))  # to the bit
        many = torch.randn(17, 256)
        torch.testing.assert_close(layer(many), matrix.apply(many) + bias, atol=0, rtol=0)
        with ThreadPoolExecutor(1) as elsewhere:
            assert torch.equal(elsewhere.submit(layer, x).result(), exact)
    assert torch.equal(layer(x), exact)
    assert not torch.equal(exact[0], rounded)


def test_direct_products_of_several_matrices_share_room_and_nothing_else() -> None:
    products = DirectProducts()
    small, large = random_matrix(BlockFormat.Q4_K, 8), random_matrix(BlockFormat.Q8_0, 40, 512)
    for count in (3, 1, 16, 2):
        for matrix in (small, large, small):
            x = torch.randn(count, matrix.width)
            assert torch.equal(products.multiply(matrix, x), multiply([matrix], x))


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_what_direct_products_hold_is_known_before(
    form: BlockFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrices = [random_matrix(form, 8, 4096), random_matrix(form, 4096, 256)]
    work, cpu = [], ggml().graphs.cpu
    plan = cpu.ggml_graph_plan

    def noted(*given: Any) -> Any:
        work.append(plan(*given).work_size)
        return plan(*given)

    monkeypatch.setattr(cpu, "ggml_graph_plan", noted)
    products = DirectProducts()
    for matrix in matrices:
        for count in range(1, 17):
            products.multiply(matrix, torch.zeros(count, matrix.width))
    rooms = 16 * 4 * (4096 + 4096)
    assert len(work) == 10
    assert 0.5 * most_bytes(matrices) < sum(work) + rooms < most_bytes(matrices)


def test_an_embedding_expands_the_rows_it_looks_up() -> None:
    matrix = random_matrix(BlockFormat.Q8_0)
    ids = torch.tensor([[3, 0], [3, 23]])
    assert torch.equal(BlocksEmbedding(matrix)(ids), matrix.expand()[ids])
    assert torch.equal(BlocksEmbedding(matrix, 2.0)(ids), 2 * matrix.expand()[ids])


@pytest.mark.parametrize(("form", "width"), [(BlockFormat.Q8_0, 48), (BlockFormat.Q4_K, 288)])
def test_rows_that_end_within_a_block_are_refused(form: BlockFormat, width: int) -> None:
    with pytest.raises(ValueError, match=f"{form.name} has blocks of {form.block_size}"):
        form.row_bytes(width)
    with pytest.raises(ValueError, match="bytes, 33 are none"):
        form.row_weights(33)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    matrices = {"a.weight": random_matrix(BlockFormat.Q8_0, 2048)}
    tensors = StoredTensors(matrices=matrices, floats={"n": torch.ones(3)})
    write_tensors(tensors, tmp_path / BLOCKS_FILE)
    return tmp_path / BLOCKS_FILE


def test_a_file_gives_back_what_was_written(file: Path) -> None:
    tensors = read_tensors(file)
    expected = random_matrix(BlockFormat.Q8_0, 2048)
    assert torch.equal(tensors.matrices["a.weight"].blocks, expected.blocks)
    assert tensors.matrices["a.weight"].form is BlockFormat.Q8_0
    assert torch.equal(tensors.floats["n"], torch.ones(3))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    save_file({"n": torch.ones(3)}, tmp_path / BLOCKS_FILE)
    note_written(tmp_path / BLOCKS_FILE)
    with pytest.raises(ValueError, match="expected fedattn-blocks-1, got None"):
        read_tensors(tmp_path / BLOCKS_FILE)


def pages(path: Path) -> dict[str, int]:
    """KiB of this process's mapping of a file."""
    found: dict[str, int] = {}
    is_ours = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        key, _, rest = line.partition(":")
        if " " in key:
            is_ours = line.endswith(str(path))
        elif is_ours and rest.endswith("kB"):
            found[key] = found.get(key, 0) + int(rest.split()[0])
    return found


READER = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
sum(mapped[::512])
print("read", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_processes_share_the_pages_of_a_file(file: Path) -> None:
    arguments = [sys.executable, "-c", READER, str(file)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"read\n"
        matrix = read_tensors(file).matrices["a.weight"]
        matrix.expand()
        found = pages(file)
        other.communicate()
    assert found["Rss"] * 1024 >= matrix.nbytes
    assert found["Private_Dirty"] == found["Private_Clean"] == 0
    assert found["Shared_Clean"] + found["Shared_Dirty"] == found["Rss"]
