"""A federation of a tiny model, for programs: `with prepared_federation(...)`."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedattn.cli import network as network_of_processes
from fedattn.model.prepare import prepare_model
from tests.chaos.federation import Federation, running_federation
from tests.harness.forks import fork_part
from tests.harness.tiny import save_tiny_model


@contextmanager
def prepared_federation(
    seed: int, num_aggregators: int, *, has_defaults: bool = False
) -> Iterator[Federation]:
    """All started and joined, from forks of a process that has imported all they need.

    Args:
        seed, num_aggregators, has_defaults: as for `running_federation`.
    """
    network_of_processes._start_process = fork_part  # type: ignore[assignment]
    with tempfile.TemporaryDirectory(prefix="fedattn-chaos-") as folder:
        weights, texts = Path(folder, "weights"), Path(folder, "texts")
        weights.mkdir()
        texts.mkdir()
        save_tiny_model(weights)
        model = prepare_model(str(weights), cache_dir=Path(folder, "models")).path
        with running_federation(
            model, texts, seed, num_aggregators, has_defaults=has_defaults
        ) as federation:
            yield federation
