"""A checkpoint seen without running it: what is in there, what is fragile, what which scheme costs."""
