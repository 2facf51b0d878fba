"""Ways out of the package for the integer graph: files that other tools read."""
