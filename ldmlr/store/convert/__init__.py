"""Feature stores to and from other formats."""
