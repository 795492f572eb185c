"""Damaged files by the thousand: every format that is read, mutated by a seed, in processes with limits."""
