"""Several gateways as one, through NATS."""
