"""Days into weights: lessons from what was said, the night that learns them, the verdict."""
