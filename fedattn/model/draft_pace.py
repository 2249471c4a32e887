"""How many tokens of an answer to draft before others are asked about them.

A pass through all blocks takes as long as the others take to answer at each of them, almost
whatever number of tokens it has. With k drafts it has k + 1, and yields one token more than the
drafts that hold. If each holds with probability p, that is on average

    1 + p + ... + p^k      tokens in      k * draft_s + pass_s(k + 1)      seconds
"""

MOST_DRAFTS = 8
_FIRST = 2
"""Drafts before anything is known."""
_KEPT = 0.85
"""Of what was measured, with each new measurement: some seven of them count."""
_PRIOR_HELD, _PRIOR_TRIED = 2.0, 3.0
"""As if of so many drafts so many had held."""
_PROBE_EVERY = 16
"""Passes without drafts until one is drafted, so that a change shows."""


class DraftPace:
    """Chooses how many tokens to draft, by measured times and by how many drafts held."""

    def __init__(self) -> None:
        self._held, self._tried = _PRIOR_HELD, _PRIOR_TRIED
        self._draft_s: float | None = None
        self._passes = _Line()
        self._since_drafts = 0

    @property
    def acceptance(self) -> float:
        """Probability that a draft holds if all before it did, as estimated."""
        return self._held / self._tried

    def choose(self, most: int) -> int:
        """How many tokens to draft now, at most so many; 0 if asking is faster than drafting."""
        most = min(most, MOST_DRAFTS)
        if self._draft_s is None or not self._passes.is_known:
            return min(_FIRST, most)
        best = max(range(most + 1), key=self.tokens_per_s)
        if best == 0 and self._since_drafts >= _PROBE_EVERY:
            best = min(1, most)
        return best

    def tokens_per_s(self, num_drafts: int) -> float:
        """Tokens a second that so many drafts are expected to give, once times are known."""
        assert self._draft_s is not None
        tokens = sum(self.acceptance**power for power in range(num_drafts + 1))
        pass_s = self._passes.at(num_drafts + 1, most_slope=self._draft_s)
        return tokens / max(num_drafts * self._draft_s + pass_s, 1e-9)

    def drafted(self, num_drafts: int, seconds: float) -> None:
        """So many tokens were drafted in that time."""
        each = seconds / num_drafts
        known = each if self._draft_s is None else self._draft_s
        self._draft_s = _KEPT * known + (1 - _KEPT) * each

    def verified(self, num_drafts: int, num_held: int, seconds: float) -> None:
        """A pass with so many drafts took that time, others' answers included."""
        num_tried = min(num_drafts, num_held + 1)  # what follows a wrong one says nothing
        if num_tried:
            self._held = _KEPT * self._held + num_held
            self._tried = _KEPT * self._tried + num_tried
        self._passes.add(num_drafts + 1, seconds)
        self._since_drafts = 0 if num_drafts else self._since_drafts + 1


class _Line:
    """Seconds of a pass by its tokens: a line through what was measured, the newest most."""

    def __init__(self) -> None:
        self._weight = self._x = self._y = self._xx = self._xy = 0.0

    @property
    def is_known(self) -> bool:
        return self._weight > 0

    def add(self, x: float, y: float) -> None:
        sums = (self._weight, 1.0), (self._x, x), (self._y, y), (self._xx, x * x), (self._xy, x * y)
        self._weight, self._x, self._y, self._xx, self._xy = (
            _KEPT * known + new for known, new in sums
        )

    def at(self, x: float, most_slope: float) -> float:
        """The line at x; its slope is at most that, which it is taken to be while unknown."""
        mean_x, mean_y = self._x / self._weight, self._y / self._weight
        spread = self._xx / self._weight - mean_x**2
        slope = most_slope
        if spread > 1e-6:
            slope = (self._xy / self._weight - mean_x * mean_y) / spread
        return mean_y + min(max(slope, 0.0), most_slope) * (x - mean_x)
