"""Scores on disk: a search that was stopped goes on where it was.

A search is deterministic, so running it again with the scores known so far brings it to the same
place in no time. No other state needs saving.
"""

import json
from pathlib import Path

from fedattn.core.plans import RolePlans
from fedattn.research.calibrate.search import Scorer


class ScoreLog:
    """A `Scorer` that remembers another's scores in a file, one JSON line each.

    Args:
        scorer: computes what is not known yet.
        path: the file; made if it is not there, replaced if it belongs to another search.
        search: what the scores depend on: model, cases, objective.
    """

    def __init__(self, scorer: Scorer, path: Path, search: str) -> None:
        self._scorer = scorer
        self._path = path
        self._known = _read(path, search)
        self._base: RolePlans | None = None
        self.num_recalled = 0
        if not self._known:
            path.write_text(json.dumps({"search": search}) + "\n", encoding="utf-8")

    def move_base(self, plans: RolePlans) -> None:
        """As `Scorer.move_base`, once a score has to be computed."""
        self._base = plans

    def score(self, plans: RolePlans) -> float:
        """As `Scorer.score`."""
        key = f"{plans.contributors}|{plans.publisher}"
        if key in self._known:
            self.num_recalled += 1
            return self._known[key]
        if self._base is not None:
            self._scorer.move_base(self._base)
            self._base = None
        score = self._scorer.score(plans)
        self._known[key] = score
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"plans": key, "score": score}) + "\n")
        return score


def _read(path: Path, search: str) -> dict[str, float]:
    """Scores in the file; none if it is another search's. A torn last line is left out."""
    if not path.exists():
        return {}
    known: dict[str, float] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        try:
            record = json.loads(line)
            if number == 0 and record["search"] != search:
                return {}
            if number > 0:
                known[record["plans"]] = float(record["score"])
        except (ValueError, KeyError, TypeError):
            return known
    return known
