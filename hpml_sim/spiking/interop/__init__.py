"""snnTorch and NIR."""
