"""RTL simulation: harness, runner and bench."""
