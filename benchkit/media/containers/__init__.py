"""What a recording's container says of its length, read from the bytes themselves: nothing here decodes sound."""
