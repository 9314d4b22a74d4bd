"""What ingredients are to each other before they are mixed."""
