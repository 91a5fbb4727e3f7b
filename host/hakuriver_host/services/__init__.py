"""What a request or a loop does: it asks the domain, writes what was decided, and only then tells anyone."""
