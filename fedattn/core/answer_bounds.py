"""What a contributor that is asked holds queries and its own parts to."""

from dataclasses import dataclass

from fedattn.core.errors import CorruptFrameError, InvalidRequestError
from fedattn.core.row_bounds import RowBounds
from fedattn.core.spans import Member
from fedattn.core.types import FloatArray

MAX_LEAST_ROWS = 1000.0
MAX_NOISE = 100.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnswerBounds:
    """What is asked of queries, and done to what leaves.

    Attributes:
        lengths: of the model: longer queries are refused; None to take any.
        least_rows: rows that a query's attention is spread over at least, as exp(entropy): sharper
            attention is flattened, to as many as it sees at most; 1 leaves it as it is.
        noise: standard deviation of Gaussian noise: on outputs, times the root mean square of the
            head's values; on lse, in nats; 0 for none.
        end: position that queries stand before; None for any.
        seed: of the noise, for repeatable measurements; None to draw it from the system.
    """

    lengths: RowBounds | None = None
    least_rows: float = 1.0
    noise: float = 0.0
    end: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.least_rows <= MAX_LEAST_ROWS:
            raise InvalidRequestError(
                f"least rows must be between 1 and {MAX_LEAST_ROWS:g}, got {self.least_rows}"
            )
        if not 0 <= self.noise <= MAX_NOISE:
            raise InvalidRequestError(
                f"noise must be between 0 and {MAX_NOISE:g}, got {self.noise}"
            )

    def check(self, queries: FloatArray, layer: int, first_position: int, member: Member) -> None:
        """Refuse queries that no honest publisher sends.

        One that stands among the rows sees only those up to its place: asked at one place after
        the other it would read every row by subtraction. The publisher's span is the last.

        Args:
            queries: [Hq, T, D] float32 after RoPE, scaled.
            layer: zero-based.
            first_position: global, of the first of the T tokens.
            member: whose rows these are.

        Raises:
            CorruptFrameError: they stand before the end of the member's span, one is longer than
                the model can make it, or not finite.
        """
        if first_position < member.span.stop:
            raise CorruptFrameError(
                f"queries of the publisher at block {layer} stand at position {first_position}, "
                f"expected at least {member.span.stop}, behind the rows of {member.node_id}"
            )
        last_position = first_position + queries.shape[1]
        if self.end is not None and last_position > self.end:
            raise CorruptFrameError(
                f"queries of the publisher at block {layer} reach position {last_position}, the "
                f"session ends before {self.end}"
            )
        if self.lengths is not None:
            self.lengths.check_queries(queries, layer, "the publisher")
