"""Work directories: planned, rendered, checked and put in place, one per model."""
