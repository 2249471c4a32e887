"""One gateway at a time keeps jobs in a folder."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fedattn.runtime.state import JOBS_FILE, failing_in_one_line, locked, make_state_dir


@contextmanager
def keeping_jobs_alone(state: Path | None) -> Iterator[None]:
    """Hold the folder: a second gateway would take the first one's jobs for lost.

    Args:
        state: the folder, which is made; None if jobs are kept in memory.

    Raises:
        ConfigurationError: another gateway holds it, or it cannot be written.
    """
    with ExitStack() as stack:
        if state is not None:
            path = make_state_dir(state) / JOBS_FILE
            with failing_in_one_line("jobs", path, "let this user write there"):
                stack.enter_context(locked(path.with_name(f"{JOBS_FILE}.lock")))
        yield
