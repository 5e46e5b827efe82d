"""What was asked and answered, in words and as a page."""
