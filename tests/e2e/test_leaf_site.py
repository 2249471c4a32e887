"""A site with a NATS leaf node of its own, whose uplink is a real link that is cut and healed."""

from pathlib import Path

import pytest

from benchmarks.namespaces import require_namespaces
from benchmarks.sites import EVERYBODY, NATS_SERVER, THIN, both, outcomes, running_sites, wait_until
from benchmarks.uplink import uplink
from fedattn.core.errors import ConfigurationError
from fedattn.core.report import Outcome
from tests.harness.nats import NO_NATS


@pytest.fixture
def _namespaces() -> None:
    """Skip where none can be made, and say why."""
    try:
        require_namespaces()
        with uplink():
            pass
    except ConfigurationError as error:
        pytest.skip(str(error))


@pytest.mark.skipif(NATS_SERVER is None, reason=NO_NATS)
@pytest.mark.usefixtures("_namespaces")
def test_a_site_goes_on_among_its_own_nodes_while_its_thin_uplink_is_cut(
    tiny_folder: Path,
) -> None:
    with running_sites(tiny_folder) as (link, hub, site):
        sides = hub, site
        link.set_link(THIN)
        for answer in both(lambda side: side.ask(), sides):
            assert outcomes(answer) == dict.fromkeys(EVERYBODY, Outcome.COMPLETE)
        link.cut()
        for side, answer in zip(sides, both(lambda side: side.ask(), sides), strict=True):
            found = outcomes(answer)  # nobody has noticed yet
            assert {found[name] for name in side.nodes} == {Outcome.COMPLETE}
            assert Outcome.COMPLETE not in {found[name] for name in EVERYBODY - side.nodes}
        wait_until(lambda: all(side.joined() == side.nodes for side in sides))
        for side, answer in zip(sides, both(lambda side: side.ask(), sides), strict=True):
            assert outcomes(answer) == {
                name: Outcome.COMPLETE if name in side.nodes else Outcome.DEPARTED
                for name in EVERYBODY
            }
        link.heal()
        wait_until(lambda: all(side.joined() == EVERYBODY for side in sides))
        everybody = dict.fromkeys(EVERYBODY, Outcome.COMPLETE)
        wait_until(  # who asks first may find out which connections did not survive
            lambda: all(
                outcomes(answer) == everybody for answer in both(lambda side: side.ask(), sides)
            )
        )
