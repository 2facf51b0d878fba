"""Build directories: written, verified, synthesized, measured, reported."""
