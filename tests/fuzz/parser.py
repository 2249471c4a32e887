"""A parser that meets what strangers wrote, and what must hold of it, whatever they wrote."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from google.protobuf.message import DecodeError, Message

from fedattn.core.errors import FedAttnError
from tests.fuzz.checks import ViolationError
from tests.fuzz.damage import Material, damage
from tests.fuzz.fields import change_fields
from tests.fuzz.memory import peak_bytes

_LONGEST_MESSAGE = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Parser:
    """What reads, and valid inputs to start from.

    Attributes:
        name: of what is read.
        read: the parser itself; a result of any kind, or a refusal.
        seeds: valid inputs.
        words: what means something in that format.
        refusals: what it may raise.
        bytes_a_byte: most bytes of Python's memory that one byte of the input may take.
        slack_bytes: more of it, whatever the input: imports, caches, first buffers.
        message: the kind of message that the seeds are, whose fields are then changed too.
    """

    name: str
    read: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()
    refusals: tuple[type[Exception], ...] = (FedAttnError,)
    bytes_a_byte: int = 64
    slack_bytes: int = 1 << 20
    message: type[Message] | None = None
    material: Material = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "material", Material(self.seeds, self.words))

    def example(self, random: Random) -> bytes:
        """A damaged input."""
        seed = random.choice(self.seeds)
        if self.message is not None and random.random() < 0.8:
            message = self.message.FromString(seed)
            change_fields(message, random)
            return message.SerializeToString()
        return damage(seed, self.material, random)

    def check(self, data: bytes) -> bool:
        """Whether the input was read; False if it was refused in the way that is agreed.

        Raises:
            ViolationError: another error came, or too much memory was taken.
        """
        outcomes: list[bool] = []
        limit = self.slack_bytes + self.bytes_a_byte * len(data)
        peak = peak_bytes(lambda: outcomes.append(self._is_read(data)))
        if peak > limit:
            peak = peak_bytes(lambda: outcomes.append(self._is_read(data)), tries=3)
        if peak > limit:
            raise ViolationError(f"took {peak} bytes for {len(data)}, expected at most {limit}")
        if len(set(outcomes)) != 1:
            raise ViolationError("one input, two outcomes")
        return outcomes[0]

    def _is_read(self, data: bytes) -> bool:
        try:
            self.read(data)
        except self.refusals as error:
            if len(str(error)) > _LONGEST_MESSAGE:
                raise ViolationError(f"a message of {len(str(error))} characters") from error
            return False
        except Exception as error:
            raise ViolationError(f"raised {error!r:.500}") from error
        return True


def message_parser(
    name: str, convert: Callable[..., object], *seeds: Message, bytes_a_byte: int = 64
) -> Parser:
    """A parser of messages; bytes that are none are refused before they reach it."""
    kind = type(seeds[0])
    return Parser(
        name=name,
        read=lambda data: convert(kind.FromString(data)),
        seeds=tuple(seed.SerializeToString() for seed in seeds),
        refusals=(FedAttnError, DecodeError),
        bytes_a_byte=bytes_a_byte,
        message=kind,
    )
