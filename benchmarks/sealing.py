"""What sealing rows costs, beside the session it belongs to, in one run.

    python -m benchmarks.sealing [--tokens 256] [--repeats 7] [--json FILE]

Three contributors and a publisher of the embedded model, default plan and codec, one thread. Prints
medians and their ratio:

    session   CPU seconds of all members in this process: compute, encode, decode; nothing sealed
    first     CPU seconds of what certificates add: key pairs, signatures, their verification, keys
              sealed and opened, every frame encrypted once and decrypted by each receiver; of
              members that have not met within the last minute
    sealing   the same of members that have, and so know each other's certificates
    bytes     that sealing adds to what travels, a frame and receiver
"""

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.one_process import OneProcess
from benchmarks.session import CONTRIBUTORS, PUBLISHER, QUESTION, make_contexts
from fedattn.cli.certificates import init_certificates
from fedattn.core.agreement import MemberStatement
from fedattn.core.frames import ReceivedFrame, check_frame
from fedattn.core.plans import RolePlans
from fedattn.core.request import SessionRequest, describe_prefix
from fedattn.core.seals import SEAL_SIZE
from fedattn.core.session import SessionState
from fedattn.core.spans import PrefixMode
from fedattn.core.terms import SessionTerms
from fedattn.model.engine import open_engine
from fedattn.model.exchange import KvStore
from fedattn.model.prepare import prepare_model
from fedattn.wire.identity import Identity, Kind
from fedattn.wire.requests import request_to_wire, statement_to_wire
from fedattn.wire.sealing import KeyPair
from fedattn.wire.security import read_certificates
from services.participant.sealing import SealedMember, SessionSealing
from services.participant.terms import read_request, read_statements

Place = tuple[int, int]
"""(member, layer)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """The members of a session with certificates.

    Attributes:
        terms: of the session.
        identities: of the members, in their order.
        state: who gets which frames of whom.
    """

    terms: SessionTerms
    identities: list[Identity]
    state: SessionState

    def agree(self) -> list[SessionSealing]:
        """Draw keys, sign, and verify what the others signed, as nodes do."""
        members = self.terms.layout.members
        *contributors, publisher = members
        pairs = [KeyPair() for _ in members]
        request = SessionRequest(
            node_id=PUBLISHER,
            span_len=len(publisher.span),
            prefix=describe_prefix(PrefixMode.PUBLIC, [0] * self.terms.layout.prefix_len),
            plans=RolePlans(contributors=contributors[0].plan, publisher=publisher.plan),
            max_new_tokens=1,
            key=pairs[-1].public,
        )
        payload = request_to_wire(request).SerializeToString()
        asked = self.identities[-1].sign(Kind.REQUEST, payload)
        publishers = [read_request(asked, one).publisher for one in self.identities[:-1]]
        statements = [
            MemberStatement(
                session_id=self.terms.session_id,
                request_digest=hashlib.sha256(payload).digest(),
                node_id=member.node_id,
                span_len=len(member.span),
                key=pair.public,
            )
            for member, pair in zip(contributors, pairs, strict=False)
        ]
        signed = [
            identity.sign(Kind.STATEMENT, statement_to_wire(statement).SerializeToString())
            for identity, statement in zip(self.identities, statements, strict=False)
        ]
        sealings = []
        for index, identity in enumerate(self.identities):
            own = statements[index] if index < len(statements) else None
            _, known = read_statements(signed, identity, own)
            others = {place: known[one.node_id] for place, one in enumerate(contributors)
                      if place != index}  # fmt: skip
            if own is not None:
                others[len(contributors)] = SealedMember(publishers[index], pairs[-1].public)
            sealings.append(SessionSealing(self.terms, index, identity, pairs[index], others))
        return sealings

    def pass_keys(self, sealings: list[SessionSealing]) -> int:
        """Seal each key for those who need it, and open it there; returns bytes."""
        num_bytes = 0
        for index, sealing in enumerate(sealings[:-1]):
            for message in sealing.keys_for(self.state.key_receivers(index)):
                message.sender = index
                num_bytes += message.ByteSize()
                sealings[message.receiver].accept(message)
        return num_bytes

    def seal_frames(self, sealings: list[SessionSealing], store: KvStore) -> dict[Place, bytes]:
        """Every frame, sealed once."""
        return {
            (index, layer): sealings[index].seal(store.get(index, layer))
            for index, route in enumerate(self.state.routes)
            for layer in route.uploads
        }

    def check_frames(self, frames: dict[Place, bytes]) -> list[tuple[int, int, ReceivedFrame]]:
        """Every frame as its receivers check it, sealed or not: (receiver, sender, frame)."""
        return [
            (receiver, sender, check_frame(frame, self.state.frame_specs(sender, {layer})[layer]))
            for (sender, layer), frame in frames.items()
            for receiver in self.state.receivers(sender, layer)
        ]


def seal_session(company: Company, store: KvStore) -> tuple[float, int]:
    """All that members do besides if they have certificates: CPU seconds, and bytes of keys."""
    begun = time.process_time()
    sealings = company.agree()
    num_bytes = company.pass_keys(sealings)
    frames = company.seal_frames(sealings, store)
    sealed = time.process_time()
    checked = company.check_frames(frames)  # counts in the session, where it is done too
    opening = time.process_time()
    for receiver, sender, frame in checked:
        sealings[receiver].open(sender, frame)
    return time.process_time() - opening + sealed - begun, num_bytes


def measure(tokens: int, repeats: int) -> dict[str, Any]:
    """Medians of both, in turn."""
    torch.set_num_threads(1)
    engine = open_engine(prepare_model("default"))
    texts = make_contexts(tokens)
    named = dict(zip((*CONTRIBUTORS, PUBLISHER), texts, strict=True))
    members = OneProcess.of(engine, named, QUESTION)
    clear, sealed = (members.lay_out("auto", is_sealed=flag) for flag in (False, True))
    terms = SessionTerms(
        session_id="0" * 32,
        layout=sealed,
        shape=engine.prefiller.shape,
        deadline_s=60,
        progress_timeout_s=60,
        min_participants=1,
    )
    state = SessionState(sealed, engine.prefiller.shape)
    session_s: list[float] = []
    first_s: list[float] = []
    again_s: list[float] = []
    key_bytes = 0
    with tempfile.TemporaryDirectory() as folder:
        names = (*CONTRIBUTORS, PUBLISHER)
        init_certificates(Path(folder), names, 30, report=lambda _: None)
        read = [read_certificates(Path(folder) / name) for name in names]
    now_s = time.time()  # stands still for those who have met: their minute is never over
    friends = [Identity(one, lambda: now_s) for one in read]
    known = Company(terms=terms, identities=friends, state=state)
    for _ in range(repeats + 1):
        strangers = replace(known, identities=list(map(Identity, read)))
        for company, sealing_s in ((strangers, first_s), (known, again_s)):
            begun = time.process_time()
            store = members.run(clear)
            session_s.append(time.process_time() - begun)
            cost_s, key_bytes = seal_session(company, store)
            sealing_s.append(cost_s)
    deliveries = sum(
        len(state.receivers(index, layer))
        for index, route in enumerate(state.routes)
        for layer in route.uploads
    )
    session, first, again = (
        statistics.median(one) for one in (session_s[2:], first_s[1:], again_s[1:])
    )
    return {
        "prompt_tokens": sealed.num_tokens,
        "session_cpu_s": session,
        "sealing_cpu_s": again,
        "cpu_share": again / session,
        "first_sealing_cpu_s": first,
        "first_cpu_share": first / session,
        "frames": deliveries,
        "bytes_a_frame": SEAL_SIZE + key_bytes / deliveries,
        "frame_bytes": store.uploaded_bytes / sum(len(route.uploads) for route in state.routes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tokens", type=int, default=256, help="tokens a context, about")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = measure(arguments.tokens, arguments.repeats)
    print(f"{figures['prompt_tokens']} tokens, CPU seconds, medians of {arguments.repeats}")
    print(f"session   {figures['session_cpu_s']:.3f}")
    for what, name in (("first", "first_sealing"), ("sealing", "sealing")):
        share = figures[f"{name.removesuffix('sealing')}cpu_share"]
        print(f"{what:9s} {figures[f'{name}_cpu_s']:.4f}  {share:.2%} of the session")
    print(
        f"bytes     {figures['bytes_a_frame']:.0f} added to a frame of "
        f"{figures['frame_bytes']:.0f} on its way to one receiver"
    )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
