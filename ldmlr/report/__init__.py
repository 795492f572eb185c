"""A self-contained HTML page of a run: figures first, then pictures and words of the same figures."""
