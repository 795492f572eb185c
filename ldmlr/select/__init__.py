"""Selection: generator and settings chosen on held-out rows, never on the test split."""
