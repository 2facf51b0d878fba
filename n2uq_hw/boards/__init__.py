"""Onto a board: the design around an accelerator, its bitstream, and the host's side."""
