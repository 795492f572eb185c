"""Engines of others that drive the work of this package on many machines: Ray, and ranks of torchrun.

There is no engine of our own. What is done in parallel is a shard, a file of its own: whoever writes it, it
is the same to the bit, so a worker may be lost at any time.
"""
