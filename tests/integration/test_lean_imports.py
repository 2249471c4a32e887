"""A node never loads what transformers imports and inference does not call."""

import json
import subprocess
import sys
from pathlib import Path

from tests.harness.tiny import save_tiny_model

HEAVY = ("torch._dynamo", "torch._inductor", "torch.distributed.tensor", "torch.onnx")
ANSWER = """
from pathlib import Path
import services.participant.app
from fedattn.core.sampling import SamplingParams
from fedattn.model.cache import FederatedCache
from fedattn.model.decode import generate_tokens
from fedattn.model.engine import open_engine
from fedattn.model.placement import choose_decoder
from fedattn.model.prefill import PrefillResult, forward_tokens

engine = open_engine(sys.argv[1], cache_dir=Path(sys.argv[2]))
model = engine.model
ids = engine.tokenizer.question("what is it")
with torch.inference_mode():
    cache = FederatedCache(model.windows, model.device)
    hidden = forward_tokens(model, cache, ids, range(len(ids)))
    logits = model.head(hidden[-1:])[0]
prefill = PrefillResult(cache=cache, logits=logits, next_position=len(ids))
sampling = SamplingParams(max_new_tokens=4, temperature=1.0, top_p=0.9, top_k=5)
list(generate_tokens(model, prefill, sampling, choose_decoder("auto", model)))
"""
USE = """
import fedattn.model.hugging_face
assert torch.distributed.is_available()
double = torch.compile(lambda x: 2 * x, backend="eager")
assert double(torch.ones(1)) == 2
"""


def loaded(script: str, *arguments: str) -> list[str]:
    """Which of HEAVY a fresh process has loaded at the end of a script."""
    tell = f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    run = subprocess.run(
        [sys.executable, "-c", f"import json, sys, torch\n{script}\n{tell}", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    names: list[str] = json.loads(run.stdout.splitlines()[-1])
    return names


def test_a_node_starts_and_answers_without_them(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model")
    assert loaded(ANSWER, str(tmp_path / "model"), str(tmp_path / "cache")) == []


def test_who_asks_for_them_later_gets_them() -> None:
    assert "torch._dynamo" in loaded(USE)
