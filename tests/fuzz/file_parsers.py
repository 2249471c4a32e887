"""Files that somebody gives to a node, and short texts of settings and command lines."""

import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fedattn.core.address import HostPort
from fedattn.core.consent import Ask
from fedattn.core.errors import FedAttnError
from fedattn.core.plans import PlanSpec
from fedattn.core.profile_file import read_profile, write_profile
from fedattn.core.proxies import check_proxy_choice, find_endpoint
from fedattn.core.types import KvShape
from fedattn.runtime.approvals import ApprovalStore
from fedattn.runtime.audit import AuditEvent, AuditLog
from fedattn.runtime.audit_chain import read_log
from fedattn.runtime.state import APPROVALS_FILE
from fedattn.wire.chain import ChainVerifier
from services.participant.policy import read_policy
from tests.fuzz.parser import Parser
from tests.harness.identities import certificates_of
from tests.harness.profiles import profile_of

_POLICY = """publishers = ["desk-*"]
shares = ["question"]
max_rows = 12
hours = "22:00-06:00"
days = ["mon", "tue"]
cache_lifetime_s = 1.5
approval = ["maintenance"]
withhold = ["email", "badge"]

[patterns]
badge = "B-[0-9]{4}(?:-[a-z]+)*"
"""
_PROFILE = write_profile(profile_of(KvShape(num_layers=3, num_kv_heads=1, head_dim=2)))
_JSON_WORDS = (b"[", b"{", b'{"a":', b"[]", b"{}", b"null", b'"', b",", b"true", b"1e999", b"-")


@cache
def file_parsers() -> tuple[Parser, ...]:
    """All of them."""
    return (*_of_files(), _certificates(), *_of_texts())


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fedattn-fuzz-")


def _of_files() -> tuple[Parser, ...]:
    folder = Path(_folder().name)
    audit, approvals = folder / "audit.jsonl", folder / APPROVALS_FILE
    with closing(AuditLog(audit)) as log:
        for number in range(3):
            log.append(AuditEvent(event="sent", detail=f"row {number}"))
    lines = audit.read_bytes()
    ask = Ask(
        publisher="a", subject="", purpose="", layers=(1,), num_rows=2, num_bytes=3, session_id=""
    )
    ApprovalStore(folder).use(ask)

    def read_approvals(data: bytes) -> None:
        approvals.write_bytes(data)
        ApprovalStore(folder).entries()

    def read_audit(data: bytes) -> None:
        audit.write_bytes(data)
        read_log(audit)

    return (
        Parser(
            name="policy",
            read=lambda data: read_policy(Path("policy.toml"), data),
            seeds=(_POLICY.encode(),),
            words=(b"[", b"[[", b"{a=", b"'''", b'"""', b"=", b"\n[a.b]\n", b"1979-05-27T07:32:00Z",
                   b"(?:", b"){2}", b"*+", b"(?R)", b"[[:", b"\\p{L}", b"{4294967295}"),
            bytes_a_byte=512,
        ),
        Parser(
            name="profile",
            read=lambda data: read_profile(data.decode("utf-8", "replace"), "p.json"),
            seeds=(_PROFILE.encode(),),
            words=_JSON_WORDS,
        ),
        Parser(name="approvals", read=read_approvals, seeds=(approvals.read_bytes(),),
               words=_JSON_WORDS),
        Parser(name="audit log", read=read_audit, seeds=(lines,), words=_JSON_WORDS),
    )  # fmt: skip


def _certificates() -> Parser:
    made = certificates_of("b")
    authorities = x509.load_pem_x509_certificates(made.authority)
    leaf = x509.load_pem_x509_certificates(made.certificate)[0]
    return Parser(
        name="certificate",
        read=lambda data: ChainVerifier(authorities).verify([data], "it"),
        seeds=(leaf.public_bytes(serialization.Encoding.DER),),
        words=(b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\x06\x03\x55\x1d\x11", b"\x02\x01\x00"),
    )


def _of_texts() -> tuple[Parser, ...]:
    peer = HostPort("node.example.org", 50051)

    def text(name: str, read: Callable[[str], object], *seeds: str, words: str = "") -> Parser:
        return Parser(
            name=name,
            read=lambda data: read(data.decode("utf-8", "replace")),
            seeds=tuple(seed.encode() for seed in seeds),
            words=tuple(words.encode().split()),
            refusals=(FedAttnError,),
        )

    def read_address(words: str) -> None:
        read = HostPort.parse(words)
        assert HostPort.parse(str(read)) == read
        assert str(read).isprintable()

    def resolve(words: str) -> None:
        PlanSpec(words).resolve(30)

    return (
        text("address", read_address, "node-1.lan:50", "[::1]:5", "[fe80::1%eth0]:1", "1.2.3.4:5",
             words=": [ ] % . :: 0x1 ://"),
        text("proxy", check_proxy_choice, "http://me:pw@proxy.lan:3128", words=": // @ [ ] http://"),
        text("no_proxy", lambda words: find_endpoint(peer, {"no_proxy": words}),
             ".lan,10.0.0.0/8,::1/64,*.example.org", words=", / . * :: 0.0.0.0/0 /33"),
        text("plan", resolve, "7,9,10-12", "auto@1/3", "uniform:4", "middle@8",
             words=", - @ : all none"),
    )  # fmt: skip
