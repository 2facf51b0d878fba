"""Formal proofs of units: the stream contract, and golden's function, for all inputs."""
