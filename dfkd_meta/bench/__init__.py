"""The benchmark: a grid from a TOML file -> resumable runs -> one journal -> one table."""
