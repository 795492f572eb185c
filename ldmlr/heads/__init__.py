"""Classification heads: modules, losses and the fine-tuning of stage 3."""
