"""All benchmarks as one proof: what each shows, what was aimed at, the page of what was measured."""
