"""What drives the work of this package in many places at once: processes, Ray, and the ranks of torchrun.

On many machines there is no engine of our own. What is done in parallel is a shard, a file of its own:
whoever writes it, it is the same to the bit, so a worker may be lost at any time.
"""
