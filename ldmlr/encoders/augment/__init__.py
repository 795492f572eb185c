"""Augmentation of whole batches as tensors.

Every function takes a batch ``[n, C, H, W]`` and an explicit `torch.Generator` (on the CPU,
whatever the device of the images), treats each image by draws of its own, and gives the
same result for the same generator state. Pixel operations work on values 0 .. 255.
"""
