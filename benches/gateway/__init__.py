"""What `scripts/bench` does: see its help."""
