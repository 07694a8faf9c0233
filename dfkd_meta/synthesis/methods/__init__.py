"""One file per method: a frozen configuration and a builder that returns a recipe."""
