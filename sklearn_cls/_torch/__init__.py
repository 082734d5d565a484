"""Device, random numbers and threads of torch, set for the calling thread and restored."""
