"""The parts of bench_nights: who lives the days, the sides that learn them, and the nights to be refused."""
