"""The pattern catalogue: one module per pattern, over the isolation modes."""
