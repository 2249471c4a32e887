"""What an attacker holds: the public prefix, and the rows that one contributor sent."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from fedattn.core.codecs import Codec
from fedattn.core.compression import Compression
from fedattn.core.errors import ContextTooLongError, InvalidRequestError
from fedattn.core.plans import RolePlans, SyncPlan, shared_plan
from fedattn.core.row_scores import RowScorer
from fedattn.core.spans import SessionLayout, Span, build_layout
from fedattn.core.types import FloatArray, HeadRows, IntArray, KvRows, Queries
from fedattn.model.exchange import InProcessExchange, KvStore
from fedattn.model.prefill import Prefiller
from fedattn.research.simulate import MakeExchange

MAX_NOISE = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """The rows of one private text, decoded as their receiver decodes them.

    Attributes:
        prefix: token ids of the public prefix, P of them; the attacker knows them.
        truth: token ids of the text, T of them; the attacker does not know them.
        rows: by block, of each head those that travelled; keys after RoPE, positions from P.
        codec: that wrote them.
        kv_bytes: of all its frames.
    """

    prefix: tuple[int, ...]
    truth: tuple[int, ...]
    rows: dict[int, HeadRows]
    codec: Codec
    kv_bytes: int

    @property
    def span(self) -> Span:
        return Span(len(self.prefix), len(self.prefix) + len(self.truth))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenRows:
    """What came of one token at one block.

    Attributes:
        heads: [H] int64 key/value heads whose row came, in order, at least one.
        rows: [2, H, D] float32, K and V.
    """

    heads: IntArray
    rows: FloatArray


def by_token(rows: HeadRows) -> dict[int, TokenRows]:
    """The rows of every token that has any, by position."""
    heads = np.repeat(np.arange(len(rows.counts)), rows.counts)
    both = np.stack([rows.keys, rows.values])
    of_tokens = {}
    for position in np.unique(rows.positions).tolist():
        places = np.flatnonzero(rows.positions == position)
        of_tokens[position] = TokenRows(heads=heads[places], rows=both[:, places])
    return of_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How a contributor's rows travel.

    Attributes:
        plan: blocks at which the publisher receives.
        compression: of the contributor.
        make_exchange: what the rows go through.
        scorer: for the selector `learned`.
    """

    plan: SyncPlan
    compression: Compression
    make_exchange: MakeExchange = InProcessExchange
    scorer: RowScorer | None = None

    @property
    def plans(self) -> RolePlans:
        """The same plan for both roles."""
        return shared_plan(self.plan.layers)


class NoisyExchange(InProcessExchange):
    """Adds noise to rows before they are encoded: a defence to be measured.

    Args:
        store: of the session.
        index: place of the participant.
        noise: standard deviation, as a share of the root mean square of each row.
        seed: of the draws.
    """

    def __init__(self, store: KvStore, index: int, *, noise: float, seed: int) -> None:
        super().__init__(store, index)
        self._noise, self._seed = noise, [seed, index]

    def send(self, layer: int, rows: KvRows, queries: Queries) -> None:
        random = np.random.default_rng([*self._seed, layer])
        super().send(layer, add_noise(rows, self._noise, random), queries)


def noisy_exchange(noise: float, seed: int) -> MakeExchange:
    """Makes exchanges whose rows are noisy; plain ones for no noise.

    Raises:
        InvalidRequestError: the noise is out of range.
    """
    if not 0 <= noise <= MAX_NOISE:
        raise InvalidRequestError(f"noise must be between 0 and {MAX_NOISE:g}, got {noise}")
    return partial(NoisyExchange, noise=noise, seed=seed) if noise else InProcessExchange


def add_noise(rows: KvRows, noise: float, random: np.random.Generator) -> KvRows:
    """Rows with Gaussian noise of `noise` times the root mean square of each row's K, and V."""
    keys, values = (_blur(array, noise, random) for array in (rows.keys, rows.values))
    return KvRows(keys=keys, values=values, positions=rows.positions)


def _blur(array: FloatArray, noise: float, random: np.random.Generator) -> FloatArray:
    size = np.sqrt(np.square(array).mean(axis=(0, 2), keepdims=True))  # [1, T, 1]
    drawn = random.standard_normal(array.shape, dtype=np.float32)
    return np.asarray(array + np.float32(noise) * size * drawn, dtype=np.float32)


def receive_rows(
    prefiller: Prefiller,
    prefix: list[int],
    token_ids: list[int],
    sending: Sending,
    withheld: Collection[int] = (),
) -> Received:
    """Run a contributor alone with a publisher, and keep all that it sends.

    Args:
        prefiller: of the model.
        prefix: token ids of the public prefix, at least one.
        token_ids: token ids of the private text, at least one.
        sending: plan, compression and exchange.
        withheld: tokens of the text, counted from its first, whose rows never travel.

    Raises:
        InvalidRequestError: no rows travel, or all are withheld.
        ContextTooLongError: the text does not fit the model's window.
    """
    model = prefiller.model
    length = len(prefix) + len(token_ids) + 1
    if length > model.max_positions:
        raise ContextTooLongError(
            f"the text makes a prompt of {length} tokens, but the model's window is "
            f"{model.max_positions}; shorten it"
        )
    if len(withheld) >= len(token_ids):
        raise InvalidRequestError("every token of the text is withheld, so no row travels")
    lengths = (len(prefix), len(token_ids), len(withheld))
    layout = _layout(lengths, sending, model.shape.num_layers)
    scorer = sending.scorer
    store = KvStore(layout, model.shape, model.rotaries, scorer=scorer, withheld={0: withheld})
    uploads = sorted(store.routes[0].uploads)
    if not uploads:
        raise InvalidRequestError("no rows travel with this plan; name at least one block")
    prefiller.contribute(layout.members[0], prefix, token_ids, sending.make_exchange(store, 0))
    return Received(
        prefix=tuple(prefix),
        truth=tuple(token_ids),
        rows={layer: store.rows(0, layer) for layer in uploads},
        codec=sending.compression.codec,
        kv_bytes=store.uploaded_bytes,
    )


def _layout(lengths: tuple[int, int, int], sending: Sending, num_layers: int) -> SessionLayout:
    """One contributor, and a publisher of one token.

    Args:
        lengths: tokens of prefix and text, and of the text those withheld.
        sending: plan and compression.
        num_layers: of the model.
    """
    prefix_len, text_len, num_withheld = lengths
    layout = build_layout(
        num_layers=num_layers,
        prefix_len=prefix_len,
        contributors=[("contributor", text_len)],
        publisher=("publisher", 1),
        plans=sending.plans,
        compression=sending.compression,
    )
    contributor = replace(layout.members[0], num_withheld=num_withheld)
    return replace(layout, members=(contributor, *layout.members[1:]))
