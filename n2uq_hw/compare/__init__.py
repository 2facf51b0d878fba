"""N2UQ's arithmetic beside that of nonuniform quantizers, measured."""
