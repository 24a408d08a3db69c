"""What is kept of runs after they ended."""
