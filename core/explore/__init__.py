"""A trained model on a page: what can be moved, what it makes of that, and the server that shows it."""
