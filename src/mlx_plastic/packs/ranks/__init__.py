"""Which rank each module gets, and what of an update a budget of bytes can hold."""
