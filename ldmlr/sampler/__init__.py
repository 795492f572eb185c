"""Stage 2, drawing: the samplers and what prepares a model for them."""
