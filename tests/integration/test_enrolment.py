"""Nodes get certificates from the authority, renew them and lose them, over a real socket."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from fedattn.authority.office import Office
from fedattn.authority.service import MAX_BODY_SIZE, create_app
from fedattn.core.address import HostPort
from fedattn.core.errors import (
    AuthorityUnavailableError,
    ConfigurationError,
    IdentityMismatchError,
    InvalidRequestError,
)
from fedattn.runtime.doors import Doors, tls_context
from fedattn.runtime.listening import open_listeners
from fedattn.runtime.serving import serve_app
from fedattn.wire.authority_client import AuthorityClient
from fedattn.wire.certificate_folder import CertificateFolder
from fedattn.wire.certificate_keeper import CertificateKeeper
from fedattn.wire.enrolment import join, own_certificate

DAY_S = 24 * 3600.0
LOOPBACK = HostPort("127.0.0.1", 0)


@asynccontextmanager
async def running_authority(office: Office) -> AsyncIterator[HostPort]:
    """Yields its address."""
    listeners = open_listeners(LOOPBACK)
    address = LOOPBACK.with_port(listeners[0].getsockname()[1])
    stopping = asyncio.Event()
    serving = asyncio.create_task(
        serve_app(
            create_app(office),
            listeners,
            stopping,
            1,
            Doors(tls=tls_context(*office.service_files)),
        )
    )
    try:
        yield address
    finally:
        stopping.set()
        await serving


async def joined(office: Office, address: HostPort, folder: Path) -> CertificateFolder:
    token = office.make_token(folder.name, address, 3600.0)
    await asyncio.to_thread(join, token, folder)
    return CertificateFolder(folder)


async def test_node_joins_renews_and_is_revoked(tmp_path: Path) -> None:
    office = Office.open_or_make(tmp_path / "authority")
    async with running_authority(office) as address:
        folder = await joined(office, address, tmp_path / "a")
        assert folder.path.stat().st_mode & 0o777 == 0o700
        assert (folder.path / "tls.key").stat().st_mode & 0o777 == 0o600
        first, now_s = own_certificate(folder), dt.datetime.now(dt.UTC).timestamp()

        await CertificateKeeper(folder, lambda: now_s + 3 * DAY_S).look()
        assert own_certificate(folder) == first  # not half its life is over
        await CertificateKeeper(folder, lambda: now_s + 3.6 * DAY_S).look()
        second = own_certificate(folder)
        assert second != first
        assert second.public_key() != first.public_key()

        office.revoke("a")
        keeper = CertificateKeeper(folder, lambda: now_s + 3.6 * DAY_S)
        with capture_logs() as logs:
            await keeper.look()
            await keeper.look()
        assert folder.revocations.is_revoked([second.serial_number])
        assert own_certificate(folder) == second
        reasons = [str(entry) for entry in logs if entry["event"] != "refused"]  # the node's own
        assert len(reasons) == 2  # each is told once
        assert "fedattn certs token a" in reasons[0]
        assert "own certificate is revoked" in reasons[1]
        assert CertificateFolder(folder.path).revocations.is_revoked([first.serial_number])
    with capture_logs() as logs:  # out of reach: what is known still counts
        await keeper.look()
        await keeper.look()
    assert [entry["event"] for entry in logs] == ["revocations_not_heard"]
    assert folder.revocations.is_revoked([second.serial_number])


async def test_folder_that_cannot_be_written_costs_no_certificates(tmp_path: Path) -> None:
    office = Office.open_or_make(tmp_path / "authority")
    async with running_authority(office) as address:
        folder = await joined(office, address, tmp_path / "a")
        now_s = dt.datetime.now(dt.UTC).timestamp() + 3.6 * DAY_S
        keeper = CertificateKeeper(folder, lambda: now_s)
        (folder.path / ".tls.key.next").mkdir()
        with capture_logs() as logs:
            for pause_s in (0, 59, 1, 119, 1, 240, 480, 960, 1920):
                now_s += pause_s
                await keeper.look()
        pauses = [entry["again_in_s"] for entry in logs if entry["event"] == "not_renewed"]
        assert pauses == [60, 120, 240, 480, 960, 1920, 3600]
        assert len(office.issued()) == 1
        (folder.path / ".tls.key.next").rmdir()
        now_s += 3600
        await keeper.look()
        assert len(office.issued()) == 2
        assert {path.name for path in folder.path.iterdir() if "next" in path.name} == set()


async def test_other_authority_gets_neither_secret_nor_node(tmp_path: Path) -> None:
    office = Office.open_or_make(tmp_path / "authority")
    other = Office.open_or_make(tmp_path / "other")
    async with running_authority(other) as address:
        token = office.make_token("a", address, 3600.0)
        with pytest.raises(IdentityMismatchError, match="somebody else answers there"):
            await asyncio.to_thread(join, token, tmp_path / "a")
        client = AuthorityClient(address, office.authority.pem)
        with pytest.raises(AuthorityUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            await asyncio.to_thread(client.revoked)
    assert not (tmp_path / "a" / "tls.key").exists()
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        join(token, tmp_path / "open")


async def test_large_and_broken_bodies_are_refused(tmp_path: Path) -> None:
    office = Office.open_or_make(tmp_path)
    async with running_authority(office) as address:
        client = AuthorityClient(address, office.authority.pem)
        with pytest.raises(InvalidRequestError, match=f"more than {MAX_BODY_SIZE} bytes"):
            await asyncio.to_thread(client.renew, "a", b"x" * (MAX_BODY_SIZE + 1))
        with pytest.raises(InvalidRequestError, match="signed request"):
            await asyncio.to_thread(client.renew, "a", b"x")
        with pytest.raises(InvalidRequestError, match="expected node_id"):
            await asyncio.to_thread(client.enrol, "a" * 100, "", "")
