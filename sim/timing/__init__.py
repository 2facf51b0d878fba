"""The timing model: exact cycles without simulation, and the FIFOs that they ask for."""
