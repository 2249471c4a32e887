"""Ask a road junction's systems with OpenAI's client, and print the answer while it is written.

pip install openai
fedattn up --file examples/junction/federation.toml
python examples/junction/stream.py
"""

import os
import sys

from openai import OpenAI

DEFAULT_GATEWAY = "http://127.0.0.1:8000"
QUESTION = "How many minutes does the detour take, and which lane of Mill Street is closed?"


def main() -> None:
    """Ask the gateway of the command line, of the environment, or of this machine."""
    gateway = sys.argv[1] if len(sys.argv) > 1 else os.getenv("FEDATTN_GATEWAY", DEFAULT_GATEWAY)
    key = os.getenv("FEDATTN_API_KEY", "none")  # counts where the gateway asks who you are
    with OpenAI(base_url=f"{gateway}/v1", api_key=key) as client:
        model = next(iter(client.models.list())).id  # the first is the default publisher
        chunks = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": QUESTION}],
            max_completion_tokens=19,  # a small model goes on, and repeats itself
            stream=True,
        )
        print(QUESTION)
        for chunk in chunks:
            for choice in chunk.choices:
                print(choice.delta.content or "", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
