"""Who is calling from outside: one module for each method."""
