"""Gateware: one file per unit."""
