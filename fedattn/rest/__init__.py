"""What travels over the gateway's REST API.

One contract for the gateway, its client, the command line, evaluations and benchmarks: `query` goes
there, `answers` and `problems` come back.
"""
