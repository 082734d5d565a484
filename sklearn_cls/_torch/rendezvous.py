"""How the processes that a launcher has started find each other.

They share a store, which may be older than they are: if one of them fails, torchrun starts all of
them again with the same store, in which addresses of the failed processes are left. So each group
has a name of its own under which its addresses are stored.
"""

import hashlib
import time
import uuid
from datetime import timedelta
from functools import cache

import torch.distributed as dist

from sklearn_cls._torch.processes import LostProcessError

POLL_INTERVAL = 0.02  # seconds


@cache
def launcher_store():
    """Return the store of the launcher, the rank of this process, and the number of processes."""
    from torch.distributed.rendezvous import rendezvous  # slow to import

    return next(rendezvous("env://"))


def store_of_new_group(timeout):
    """Return a new part of the store of the launcher, the rank and the number of processes.

    Raises
    ------
    LostProcessError
        If some process does not come within `timeout` seconds.
    """
    try:
        store, rank, size = launcher_store()
        store.set_timeout(timedelta(seconds=timeout))
        name = agreed_name(dist.PrefixStore("sklearn_cls", store), rank, size, timeout)
    except dist.DistError as error:
        raise LostProcessError(f"The store of the launcher is lost: {error}") from error
    return dist.PrefixStore(f"sklearn_cls {name}", store), rank, size


def agreed_name(store, rank, size, timeout):
    """Return a name on which all processes agree, and no earlier ones.

    Each process stores a random word. The process with rank 0 proposes a list with the words of
    all, again and again, until each of them has confirmed a list that has its own word.
    """
    word, end = uuid.uuid4().hex, time.monotonic() + timeout
    store.set(f"word {rank}", word)
    words = [f"word {i}" for i in range(size)]
    confirmed = [f"confirmed {i}" for i in range(size)]
    while time.monotonic() < end:
        if rank == 0 and store.check(words):
            store.set("proposed", " ".join(_texts(store, words)))
        (proposed,) = _texts(store, ["proposed"]) or [""]
        if word in proposed.split():
            store.set(f"confirmed {rank}", proposed)
        if rank == 0 and set(_texts(store, confirmed)) == {proposed}:
            store.set("agreed", proposed)
        (agreed,) = _texts(store, ["agreed"]) or [""]
        if word in agreed.split():
            return hashlib.sha256(agreed.encode()).hexdigest()
        time.sleep(POLL_INTERVAL)
    raise LostProcessError(f"Not all of {size} processes have come within {timeout:g} seconds.")


def _texts(store, keys):
    """Return the values of some keys as text; none of them unless all have been set."""
    return [store.get(key).decode() for key in keys] if store.check(keys) else []
