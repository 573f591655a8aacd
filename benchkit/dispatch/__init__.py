"""Where jobs run: this process, and later worker processes and clusters."""
