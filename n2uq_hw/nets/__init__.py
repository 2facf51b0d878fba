"""Trained networks that ship with the package, and the table of what they reach."""
