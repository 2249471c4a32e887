"""Several aggregators as one federation, through NATS."""
