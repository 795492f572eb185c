"""Stage 1: encoder networks, their training on long-tailed images, and the encoding of images."""
