"""The compiled sampler on CPUs; mirrors csrc/cpu."""
