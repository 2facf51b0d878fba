"""Jinja2 texts: Verilog wrapper, test bench, reports."""
