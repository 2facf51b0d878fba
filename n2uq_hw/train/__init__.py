"""Training: N2UQ's networks, other quantizers', and the study of both."""
