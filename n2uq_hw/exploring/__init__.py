"""What a network can be in hardware: foldings, forms and formats, priced, and the best of them."""
