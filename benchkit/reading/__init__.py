"""What the registry says, as tables, comparisons and Python."""
