"""Federated Attention: several edge nodes answer one question without handing over their texts."""

__version__ = "0.1.0"
