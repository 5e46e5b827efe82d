"""Questions and answers, in words and as a page."""
