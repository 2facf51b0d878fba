"""From floats to integers, exactly."""
