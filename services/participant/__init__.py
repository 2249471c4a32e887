"""A participant: a node with a model and a private context."""

import os

# Rows are refitted by numpy in threads beside the model's, and threads of its own would only stand
# in their way: the demo's first token took three times as long. Read when numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
