"""What comes in: trained checkpoints become nets."""
