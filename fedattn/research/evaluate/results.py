"""Results on disk: one JSON line a case, so that an evaluation that was stopped goes on."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fedattn.research.evaluate.scores import CaseScore, ScoresByName


class ResultLog:
    """Cases that are done, in a file.

    Args:
        path: the file; made if it is not there, replaced if it belongs to another evaluation.
        evaluation: everything results depend on, as JSON values.
    """

    def __init__(self, path: Path, evaluation: dict[str, Any]) -> None:
        self._path = path
        header = json.dumps({"evaluation": evaluation}, sort_keys=True)
        self.done = _read(path, header)
        if not self.done:
            path.write_text(header + "\n", encoding="utf-8")

    def add(self, scores: ScoresByName) -> None:
        """One more case, the next in order."""
        self.done.append(scores)
        record = {name: asdict(score) for name, score in scores.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def _read(path: Path, header: str) -> list[ScoresByName]:
    """Cases in the file; none if it is another evaluation's. A torn last line is left out."""
    if not path.exists():
        return []
    first, *lines = path.read_text(encoding="utf-8").split("\n")
    if first != header:
        return []
    done: list[ScoresByName] = []
    for line in lines:
        try:
            record = json.loads(line)
            done.append({name: CaseScore(**fields) for name, fields in record.items()})
        except (ValueError, TypeError):
            break
    path.write_text("\n".join([header, *lines[: len(done)], ""]), encoding="utf-8")
    return done
