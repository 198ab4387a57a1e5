"""One story that a stranger can run: a day, a night, a morning, a poisoned night, and the way back."""
