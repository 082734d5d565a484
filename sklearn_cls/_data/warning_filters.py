"""A lock around code that changes the warning filters of the process.

scikit-learn and pandas use `warnings.catch_warnings` to validate data. It replaces the filters of
the whole process, and restores the earlier ones at its end. If two threads did this at the same
time, the second one would restore the filters that the first one had set.
"""

import os
import threading

FILTERS_LOCK = threading.RLock()

if hasattr(os, "register_at_fork"):
    # A forked child gets the filters and the lock while no other thread uses them.
    os.register_at_fork(
        before=FILTERS_LOCK.acquire,
        after_in_parent=FILTERS_LOCK.release,
        after_in_child=FILTERS_LOCK.release,
    )
