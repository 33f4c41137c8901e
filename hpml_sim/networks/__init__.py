"""Networks by name: built in, known architectures without weights, and code of your own."""
