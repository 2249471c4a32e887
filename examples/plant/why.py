"""Ask a plant's machines three times why, each time about what the last answer named.

fedattn up --file examples/plant/federation.toml
python examples/plant/why.py
"""

import sys

from fedattn.client import Client
from fedattn.rest.answers import QueryAnswer

QUESTIONS = (
    "Why did press P3 stop?",
    "Why is the air pressure low?",
    "Why does the drain valve leak?",
)
FIRST_SENTENCE = {"max_new_tokens": 32, "stop": [". ", "\n"]}  # a small model repeats itself


def main() -> None:
    """Ask the gateway of the command line, of the environment, or of this machine."""
    gateway = sys.argv[1] if len(sys.argv) > 1 else None
    with Client(gateway) as client:
        for question in QUESTIONS:
            answer = client.ask(question, sampling=FIRST_SENTENCE)
            print(f"{question}\n  {answer.answer}\n  {describe(answer)}")


def describe(answer: QueryAnswer) -> str:
    """Which machines the answer looked at, and how much of them left."""
    looked_at = ", ".join(
        f"{member.node_id} {member.influence:.0%}"
        for member in answer.participants
        if member.influence is not None and member.role == "contributor"
    )
    return f"from {looked_at}; {answer.totals.kv_bytes / 1000:.0f} kB of rows travelled"


if __name__ == "__main__":
    main()
