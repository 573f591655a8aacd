"""What is kept, and how it travels."""
