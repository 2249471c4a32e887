"""The cost model against what a session really moves and computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fedattn.core.codecs import CODECS, Codec
from fedattn.core.compression import Compression
from fedattn.core.costs import session_bytes, session_costs, session_memory
from fedattn.core.sampling import SamplingParams
from fedattn.model.decode import generate_tokens
from fedattn.model.exchange import InProcessExchange, KvStore
from fedattn.model.families import Windows
from fedattn.model.prefill import Prefiller, PrefillResult
from fedattn.model.roomy_rows import with_room
from tests.harness.learned import ragged, random_scorer
from tests.harness.scenarios import LOSSLESS, SCENARIOS, Scenario, context_words
from tests.harness.tiny import FAMILIES, tiny_model

COMPRESSIONS = {
    "every row": LOSSLESS,
    "half the rows": replace(LOSSLESS, keep_ratio=0.5),
    "half the inputs": replace(LOSSLESS, input_keep_ratio=0.5),
    "few of few": replace(LOSSLESS, keep_ratio=0.3, input_keep_ratio=0.7),
}
BYTES_OF = {
    **COMPRESSIONS,
    "heads apart": ragged(LOSSLESS, tiny_model("llama").shape),
    "few of heads apart": ragged(
        replace(LOSSLESS, input_keep_ratio=0.7), tiny_model("llama").shape
    ),
}


def run_all(case: Scenario, prefiller: Prefiller, store: KvStore) -> PrefillResult:
    prefix, spans, question = case.tokens()
    layout = store.layout
    for index, token_ids in enumerate(spans):
        exchange = InProcessExchange(store, index)
        prefiller.contribute(layout.members[index], prefix, token_ids, exchange)
    exchange = InProcessExchange(store, len(spans))
    return prefiller.publish(layout.publisher, prefix, question, exchange)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@pytest.mark.parametrize("compression", BYTES_OF.values(), ids=BYTES_OF)
def test_foretold_bytes_are_those_that_move(compression: Compression, codec: Codec) -> None:
    model = tiny_model("llama")
    case = Scenario(
        name="",
        contexts=context_words(13, 0, 40),
        plan="1,3",
        publisher_plan="all",
        compression=replace(compression, codec=codec),
    )
    store = KvStore(case.layout(), model.shape, model.rotaries, scorer=random_scorer(model.shape))
    run_all(case, Prefiller(model), store)
    for index, foretold in enumerate(session_bytes(store.layout, model.shape)):
        for layer, size in foretold.up.items():
            moved = len(store.get(index, layer))
            assert moved == size if codec.is_fixed_size else moved <= size
    assert store.uploaded_bytes <= sum(m.total_up for m in session_bytes(store.layout, model.shape))


@pytest.mark.parametrize("case", SCENARIOS, ids=lambda case: case.name)
def test_every_byte_of_every_scenario_is_foretold(case: Scenario) -> None:
    model = tiny_model("llama")
    store = KvStore(case.layout(), model.shape, model.rotaries)
    run_all(case, Prefiller(model), store)
    foretold = session_bytes(store.layout, model.shape)
    assert store.uploaded_bytes == sum(member.total_up for member in foretold)


@contextmanager
def counted() -> Iterator[FlopCounterMode]:
    """Operations of matrix products and of attention, which torch does not count on a CPU."""
    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={on_cpu: _attention_flops}) as counter:
        yield counter


def _attention_flops(query: torch.Size, key: torch.Size, *_: Any, **__: Any) -> int:
    batch, heads, num_queries, head_dim = query
    return 2 * 2 * batch * heads * num_queries * key[2] * head_dim


@pytest.mark.parametrize("compression", COMPRESSIONS.values(), ids=COMPRESSIONS)
@pytest.mark.parametrize("plans", [("1,3", "all"), ("all", "2"), ("none", "none"), ("2", "1,3")])
@pytest.mark.parametrize("family", FAMILIES)
def test_foretold_operations_are_those_that_are_computed(
    family: str, plans: tuple[str, str], compression: Compression
) -> None:
    require_operations_foretold(family, plans, compression)


@pytest.mark.parametrize("family", FAMILIES)
def test_operations_are_foretold_where_heads_have_rows_of_their_own(family: str) -> None:
    """They are in proportion to the rows of all heads, so the mean of heads tells them."""
    compression = ragged(LOSSLESS, tiny_model(family).shape)
    require_operations_foretold(family, ("1,3", "all"), compression)


def test_operations_are_foretold_where_blocks_have_windows() -> None:
    """And windows are what tells them: they are shorter than the texts."""
    sizes = tiny_model("gemma3_text").sizes
    assert sizes.windows == (5, 5, None, 5, None)
    require_operations_foretold("gemma3_text", ("all", "all"), LOSSLESS)


@pytest.mark.parametrize("plans", [("1,3", "all"), ("none", "none"), ("2", "1,3")])
@pytest.mark.parametrize("compression", COMPRESSIONS.values(), ids=COMPRESSIONS)
def test_no_prefill_takes_more_operations_than_foretold_where_windows_have_gaps(
    compression: Compression, plans: tuple[str, str]
) -> None:
    *prefills, decoding = operations("gemma3_text", plans, compression)
    for counted_flops, foretold in prefills:
        assert 0.98 * foretold <= counted_flops <= foretold
    assert decoding[0] == decoding[1]


def test_a_prefill_is_foretold_where_heads_have_rows_of_their_own_behind_windows() -> None:
    """Rows that have left the window are only masked then."""
    compression = ragged(LOSSLESS, tiny_model("gemma3_text").shape)
    *prefills, _ = operations("gemma3_text", ("all", "all"), compression)
    for counted_flops, foretold in prefills:
        assert counted_flops == foretold


def test_a_decoder_copies_as_many_rows_as_foretold() -> None:
    """Those within the windows, and room for the answer."""
    model = tiny_model("gemma3_text")
    case = Scenario(name="", contexts=context_words(13, 8), plan="all", publisher_plan="all")
    store = KvStore(case.layout(), model.shape, model.rotaries)
    prefill = run_all(case, Prefiller(model), store)

    def copied_bytes(windows: Windows) -> int:
        layers = zip(prefill.cache.layers, windows, strict=True)
        rows = [with_room(layer, 7, prefill.next_position, window) for layer, window in layers]
        return sum(one._rows.nbytes for one in rows)  # type: ignore[attr-defined]

    def foretold_bytes(windows: Windows) -> int:
        sizes = replace(model.sizes, windows=windows)
        return session_memory(store.layout, sizes, 2, num_new_tokens=7)

    nowhere = (None,) * model.shape.num_layers
    spared = copied_bytes(nowhere) - copied_bytes(model.windows)
    assert spared > 0
    assert foretold_bytes(nowhere) - foretold_bytes(model.windows) == spared


def require_operations_foretold(
    family: str, plans: tuple[str, str], compression: Compression
) -> None:
    for counted_flops, foretold in operations(family, plans, compression):
        assert counted_flops == foretold


def operations(
    family: str, plans: tuple[str, str], compression: Compression
) -> Iterator[tuple[int, int]]:
    """Counted and foretold ones of every prefill in token order, and of decoding."""
    model = tiny_model(family)
    case = Scenario(
        name="",
        contexts=context_words(13, 0, 8),
        plan=plans[0],
        publisher_plan=plans[1],
        compression=compression,
    )
    layout = case.layout()
    foretold = session_costs(layout, model.sizes, num_new_tokens=4)
    prefix, spans, question = case.tokens()
    prefiller = Prefiller(model)
    prefiller.warm_prefix(prefix)  # once a process
    store = KvStore(layout, model.shape, model.rotaries, scorer=random_scorer(model.shape))
    for index, token_ids in enumerate(spans):
        exchange = InProcessExchange(store, index)
        with counted() as counter:
            prefiller.contribute(layout.members[index], prefix, token_ids, exchange)
        yield counter.get_total_flops(), foretold[index].flops_prefill
    last = InProcessExchange(store, len(spans))
    with counted() as counter:
        prefill = prefiller.publish(layout.publisher, prefix, question, last)
    yield counter.get_total_flops(), foretold[-1].flops_prefill
    with counted() as counter:
        tokens = list(generate_tokens(model, prefill, SamplingParams(max_new_tokens=4)))
    assert len(tokens) == 4
    yield counter.get_total_flops(), foretold[-1].flops_decode


def test_peak_memory_is_near_the_tensors_that_torch_holds() -> None:
    """Weights and rows are exact; the working set is an upper estimate of one block's."""
    model = tiny_model("llama")
    case = Scenario(name="", contexts=context_words(20), plan="all", publisher_plan="all")
    layout = case.layout()
    foretold = session_costs(layout, model.sizes)[-1].peak_memory_bytes
    rows = layout.num_tokens * model.shape.num_layers * model.shape.values_per_row * 4
    weights = sum(
        parameter.nbytes for parameter in {*model.backbone.parameters(), *model.head.parameters()}
    )
    assert model.sizes.weight_bytes == weights
    assert weights + rows < foretold < weights + 3 * rows
    assert torch.finfo(torch.float32).bits == 8 * model.sizes.bytes_per_scalar
