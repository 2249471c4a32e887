"""Weights in blocks of a few bits: read as they are stored, mapped, multiplied by ggml."""
