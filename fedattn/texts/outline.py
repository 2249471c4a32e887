"""The headings above a place in a text."""

from dataclasses import dataclass, field

from fedattn.texts.packing import shortened

_MAX_NAME = 80


@dataclass(slots=True)
class Outline:
    """Open headings, the outer ones first, and a number that changes with each section or table."""

    group: int = 0
    _open: list[tuple[int, str]] = field(default_factory=list)
    _is_bare: bool = False

    @property
    def path(self) -> str:
        """Such as "Pump house > Alarms"; empty above the first heading."""
        return " > ".join(name for _, name in self._open)

    def enter(self, level: int, name: str) -> str:
        """Begin a section.

        Args:
            level: 1 for the outermost.
            name: text of the heading.

        Returns:
            The path of a heading that had no content and is left now; empty if there is none.
        """
        left = self.path if self._is_bare and self._open and self._open[-1][0] >= level else ""
        self._open = [(outer, text) for outer, text in self._open if outer < level]
        self._open.append((level, shortened(name, _MAX_NAME)))
        self.group += 1
        self._is_bare = True
        return left

    def note_content(self) -> None:
        """Something stands under the headings that are open now."""
        self._is_bare = False

    def close(self) -> str:
        """At the end of the text: the path of a last heading without content."""
        return self.path if self._is_bare else ""
