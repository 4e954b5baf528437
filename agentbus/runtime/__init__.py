"""Where time, randomness, tasks and sockets meet the pure core."""
