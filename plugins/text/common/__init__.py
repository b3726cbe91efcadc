"""What the methods for sentences share."""
