"""Inner loops from arrays to arrays, without state; NumPy and CuPy."""
