"""A session whose members all run in this process, one after the other, each on its own rows."""

from dataclasses import dataclass

from fedattn.cli.plans import choose
from fedattn.core.compression import Compression
from fedattn.core.spans import SessionLayout, build_layout
from fedattn.model.engine import Engine
from fedattn.model.exchange import InProcessExchange, KvStore


@dataclass(frozen=True, slots=True)
class OneProcess:
    """The tokens of one session.

    Attributes:
        engine: model and tokenizer of every member.
        contributors: tokens of each, by node id, in token order.
        publisher: its id and tokens, question included.
    """

    engine: Engine
    contributors: dict[str, list[int]]
    publisher: tuple[str, list[int]]

    @classmethod
    def of(cls, engine: Engine, texts: dict[str, str], question: str) -> "OneProcess":
        """Tokenize the texts by node id; the last one is the publisher's."""
        prompt = engine.tokenizer
        *contributors, publisher = texts
        return cls(
            engine,
            {node: prompt.context(texts[node]) for node in contributors},
            (publisher, prompt.question(question, texts[publisher])),
        )

    def lay_out(
        self, plan: str, compression: Compression | None = None, *, is_sealed: bool = False
    ) -> SessionLayout:
        """The session with a plan of everybody."""
        model, (publisher, question) = self.engine.model, self.publisher
        return build_layout(
            num_layers=model.shape.num_layers,
            prefix_len=len(self.engine.tokenizer.prefix()),
            contributors=[(node, len(ids)) for node, ids in self.contributors.items()],
            publisher=(publisher, len(question)),
            plans=choose(plan, None, model.shape.num_layers, model.fingerprint).plans,
            compression=compression,
            is_sealed=is_sealed,
        )

    def run(self, layout: SessionLayout) -> KvStore:
        """All members up to the first answer token; returns the frames that travelled."""
        prefiller, prefix = self.engine.prefiller, self.engine.tokenizer.prefix()
        store = KvStore(layout, prefiller.shape, prefiller.model.rotaries)
        for index, token_ids in enumerate(self.contributors.values()):
            exchange = InProcessExchange(store, index)
            prefiller.contribute(layout.members[index], prefix, token_ids, exchange)
        last = InProcessExchange(store, len(self.contributors))
        prefiller.publish(layout.publisher, prefix, self.publisher[1], last)
        return store
