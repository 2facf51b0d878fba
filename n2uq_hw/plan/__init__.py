"""The folding for a rate or a budget, at the least estimated cost."""
