"""What the report says in words and tables."""
