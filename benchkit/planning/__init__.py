"""From what a user asks for to the cells that are still to be computed."""
