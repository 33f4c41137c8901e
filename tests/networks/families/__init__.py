"""Small networks of the families that researchers use, each with its multiply-accumulates counted by hand."""
