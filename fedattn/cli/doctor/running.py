"""Running checks side by side, each for so long at most; one that fails leaves the others be."""

import threading
import time
from collections.abc import Iterator, Mapping

from fedattn.cli.doctor.finding import Check, Finding, Found, problem
from fedattn.cli.doctor.subject import Subject
from fedattn.core.errors import FedAttnError
from fedattn.core.printable import one_line
from fedattn.runtime.extras import missing_module

CHECK_WITHIN_S = 30.0
"""Longest time of all checks; they run at the same time."""


def run_checks(
    checks: Mapping[str, Check], subject: Subject, within_s: float = CHECK_WITHIN_S
) -> Iterator[Finding]:
    """Findings in the order of the checks, each as soon as those before are there.

    Args:
        checks: by name.
        subject: who is examined.
        within_s: longest wait for all.
    """
    running = {name: _Running(check, subject) for name, check in checks.items()}
    until = time.monotonic() + within_s
    for name, one in running.items():
        one.thread.join(max(0.0, until - time.monotonic()))
        for found in one.findings(within_s):
            yield Finding(
                check=name,
                state=found.state,
                found=one_line(found.found),
                remedy=one_line(found.remedy),
            )


class _Running:
    """One check in a thread, which nobody waits for if it hangs."""

    def __init__(self, check: Check, subject: Subject) -> None:
        self._found: list[Found] = []
        self.thread = threading.Thread(target=self._run, args=(check, subject), daemon=True)
        self.thread.start()

    def findings(self, within_s: float) -> list[Found]:
        found = list(self._found)
        if self.thread.is_alive():
            found.append(
                problem(f"not done within {within_s:g} s", "run it again when less is going on")
            )
        return found

    def _run(self, check: Check, subject: Subject) -> None:
        try:
            for found in check(subject):
                self._found.append(found)
        except FedAttnError as error:
            self._found.append(_told(error))
        except ModuleNotFoundError as error:
            self._found.append(_told(missing_module(error.name or "")))
        except Exception as error:  # border: a defect of one check hides no other
            self._found.append(
                problem(f"{type(error).__name__}: {error}", "report this: a check is wrong")
            )


def _told(error: FedAttnError) -> Found:
    what, _, remedy = str(error).partition("; ")
    return problem(what, remedy)
