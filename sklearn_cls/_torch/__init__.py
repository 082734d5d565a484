"""Device, random generators and number of threads.

They are changed only in the calling thread, and then restored.
"""
