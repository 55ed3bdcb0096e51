"""Many configurations and seeds: points, batches of them, parts on disk, results."""
