"""Networks to aihwkit, and from aihwkit-lightning."""
