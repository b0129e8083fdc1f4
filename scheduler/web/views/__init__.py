"""What the pages show and the API tells: pure functions from the folds to typed data, one module a page."""
