"""NATS: where services of one kind find each other, and keep what they share."""
