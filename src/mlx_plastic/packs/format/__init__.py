"""What a pack is on disk: written whole, read with suspicion, and without MLX."""
