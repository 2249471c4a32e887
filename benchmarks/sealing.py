"""What sealing rows costs, beside the session it belongs to, in one run.

    python -m benchmarks.sealing [--tokens 256] [--repeats 7] [--json FILE]

Three contributors and a publisher of the embedded model, default plan and codec, one thread. Prints
medians and their ratio:

    session   CPU seconds of all members in this process: compute, encode, decode; nothing sealed
    sealing   CPU seconds of what certificates add: key pairs, signatures, their verification, keys
              sealed and opened, every frame encrypted once and decrypted by each receiver
    bytes     that sealing adds to what travels, a frame and receiver
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.one_process import OneProcess
from benchmarks.session import CONTRIBUTORS, PUBLISHER, QUESTION, make_contexts
from fedattn.cli.certificates import init_certificates
from fedattn.core.agreement import MemberStatement
from fedattn.core.frames import SEAL_SIZE, check_frame
from fedattn.core.plans import RolePlans
from fedattn.core.request import SessionRequest, describe_prefix
from fedattn.core.session import SessionState
from fedattn.core.spans import PrefixMode
from fedattn.core.terms import SessionTerms
from fedattn.core.transfer import frame_spec
from fedattn.model.engine import open_engine
from fedattn.model.exchange import KvStore
from fedattn.model.prepare import prepare_model
from fedattn.wire.identity import Identity, Kind
from fedattn.wire.sealing import KeyPair
from fedattn.wire.security import read_certificates
from fedattn.wire.sessions import request_to_wire, statement_to_wire
from services.participant.sealing import SealedMember, SessionSealing
from services.participant.terms import read_request


def seal_session(terms: SessionTerms, identities: list[Identity], store: KvStore) -> int:
    """All that members of a session with certificates do besides; returns bytes of keys."""
    members, state = terms.layout.members, SessionState(terms.layout, terms.shape)
    pairs = [KeyPair() for _ in members]
    plans = RolePlans(contributors=members[0].plan, publisher=members[-1].plan)
    request = SessionRequest(
        node_id=PUBLISHER,
        span_len=len(members[-1].span),
        prefix=describe_prefix(PrefixMode.PUBLIC, [0] * terms.layout.prefix_len),
        plans=plans,
        max_new_tokens=1,
        key=pairs[-1].public,
    )
    signed = [identities[-1].sign(Kind.REQUEST, request_to_wire(request).SerializeToString())]
    for index, member in enumerate(members[:-1]):
        read = read_request(signed[0], identities[index])
        statement = MemberStatement(
            session_id=terms.session_id,
            request_digest=read.digest,
            node_id=member.node_id,
            span_len=len(member.span),
            key=pairs[index].public,
        )
        payload = statement_to_wire(statement).SerializeToString()
        signed.append(identities[index].sign(Kind.STATEMENT, payload))
    sealings = []
    for index in range(len(members)):
        known = {
            other: SealedMember(
                identities[index].verify(Kind.STATEMENT, signed[other + 1], member.node_id),
                pairs[other].public,
            )
            for other, member in enumerate(members[:-1])
        }
        publisher = read_request(signed[0], identities[index]).publisher
        known[len(members) - 1] = SealedMember(publisher, pairs[-1].public)
        del known[index]
        sealings.append(SessionSealing(terms, index, identities[index], pairs[index], known))
    num_bytes = 0
    for index, member in enumerate(members[:-1]):
        for message in sealings[index].keys_for(state.key_receivers(index)):
            message.sender = index
            num_bytes += message.ByteSize()
            sealings[message.receiver].accept(message)
        for layer in sorted(state.routes[index].uploads):
            frame = sealings[index].seal(store.get(index, layer))
            for receiver in state.receivers(index, layer):
                sealings[receiver].open(index, check_frame(frame, frame_spec(member, terms.shape)))
    return num_bytes


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
    with tempfile.TemporaryDirectory() as folder:
        init_certificates(Path(folder), [*CONTRIBUTORS, PUBLISHER], 30, report=lambda _: None)
        names = (*CONTRIBUTORS, PUBLISHER)
        identities = [Identity(read_certificates(Path(folder) / name)) for name in names]
    session_s, sealing_s, key_bytes = [], [], 0
    for _ in range(repeats + 1):
        begun = time.process_time()
        store = members.run(clear)
        middle = time.process_time()
        key_bytes = seal_session(terms, identities, store)
        session_s.append(middle - begun)
        sealing_s.append(time.process_time() - middle)
    state = SessionState(sealed, engine.prefiller.shape)
    deliveries = sum(
        len(state.receivers(index, layer))
        for index, route in enumerate(state.routes)
        for layer in route.uploads
    )
    session, sealing = statistics.median(session_s[1:]), statistics.median(sealing_s[1:])
    return {
        "prompt_tokens": sealed.num_tokens,
        "session_cpu_s": session,
        "sealing_cpu_s": sealing,
        "cpu_share": sealing / session,
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
    print(f"sealing   {figures['sealing_cpu_s']:.3f}  {figures['cpu_share']:.2%} of the session")
    print(
        f"bytes     {figures['bytes_a_frame']:.0f} added to a frame of "
        f"{figures['frame_bytes']:.0f} on its way to one receiver"
    )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
