"""Units of measure: bands, quantities, times."""
