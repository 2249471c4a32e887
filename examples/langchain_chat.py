"""Ask any of these networks through LangChain.

pip install langchain-openai
python examples/langchain_chat.py http://127.0.0.1:8000 desk "Why is the air pressure low?"
"""

import os
import sys

from langchain_openai import ChatOpenAI

gateway, publisher, question = sys.argv[1:]
key = os.getenv("FEDATTN_API_KEY", "none")
chat = ChatOpenAI(base_url=f"{gateway}/v1", api_key=key, model=publisher, max_tokens=16)
print(chat.invoke(question).content)
