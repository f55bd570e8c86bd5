"""What the package promises as a whole, shown against real servers."""
