"""hpml_sim (the flat API is put here when all parts stand)."""
