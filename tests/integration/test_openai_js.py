"""The gateway asked by OpenAI's JavaScript client."""

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.harness.gateway import ANSWER, SESSION_ID, running, served

MODEL = "publisher/SmolLM2-135M-Instruct"
FOLDER = "FEDATTN_TEST_NODE_FOLDER"
"""Where `npm install openai` was run."""
NODE = shutil.which("node")


async def test_the_javascript_client_is_answered() -> None:
    folder = Path(os.environ.get(FOLDER) or "/nowhere")
    if NODE is None or not (folder / "node_modules" / "openai").is_dir():
        pytest.skip(f"needs node, and {FOLDER}=DIR where `npm install openai` was run")
    async with running() as gateway, served(gateway) as (url, _):
        script = Path(__file__).with_name("openai_client.mjs")
        node = await asyncio.create_subprocess_exec(
            NODE, script, folder, f"{url}/v1", MODEL, stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await node.communicate()
    assert json.loads(printed) == {
        "chat": ANSWER,
        "session": SESSION_ID,
        "streamed": ANSWER,
        "response": ANSWER,
        "lastEvent": "response.completed",
        "models": [MODEL],
        "retrieved": MODEL,
        "unknown": ["NotFoundError", 404, "model_not_found", None],
        "wrong": ["BadRequestError", 400, "invalid_request", "n"],
    }
