"""What is installed, and what a name means."""
