"""Where keys and values are: pages, and the tree of texts that they hold. Plain Python, no torch."""
