"""What travels over the gateway's REST API, and a client of it.

One contract for the gateway, the command line, evaluations and benchmarks: `query` goes there,
`answers` and `problems` come back.
"""
