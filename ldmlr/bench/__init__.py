"""Measuring this machine: ceilings, achieved rates and the PyTorch baselines, pair by pair."""
