"""What is known about models and hardware, as data."""
