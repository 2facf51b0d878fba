"""Simulation of the generated Verilog: bench, harness and simulator runner."""
