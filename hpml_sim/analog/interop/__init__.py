"""aihwkit and aihwkit-lightning."""
