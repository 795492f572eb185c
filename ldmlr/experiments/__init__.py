"""The paper's ablations: one setting of generation is varied, everything else stays."""
