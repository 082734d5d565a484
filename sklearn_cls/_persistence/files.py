"""Regular files: opened without waiting, and replaced atomically, with one writer at a time.

Pipes, sockets, devices and directories are refused, because reading them may wait for ever and
replacing them would destroy them. A file is written under a temporary name, which ends in
".part", and renamed. Its writer holds a lock on it (`flock`), so a temporary file without a lock is
that of a process that was killed, and the next write of the same path removes it. On file systems
without locks, temporary files of killed processes remain.
"""

import errno
import os
import re
import stat
import warnings
from contextlib import contextmanager, suppress
from functools import partial
from secrets import token_hex
from shutil import SpecialFileError

try:
    import fcntl
except ImportError:  # Windows, where a file that is open can be neither removed nor replaced
    fcntl = None

MAX_LINKS = 40  # symbolic links to follow, as on Linux
MAX_PREFIX = 50  # characters of a name that its temporary files share; names have up to 255 bytes
PUBLIC, PRIVATE = 0o666, 0o600  # modes of new files, before the umask is subtracted
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class FileError(ValueError):
    """Raised if a file cannot be read; the message names the file and what is wrong."""


def check_path(path, name="path"):
    """Return a path as str; raise TypeError or ValueError if no file can have it."""
    try:
        text = os.fsdecode(path)
        is_valid = text != "" and b"\0" not in os.fsencode(text)
    except TypeError:
        raise TypeError(f"{name} must be the path of a file, not {path!r}.") from None
    except UnicodeEncodeError:
        is_valid = False
    if not is_valid:
        raise ValueError(
            f"{name} must be the path of a file, got {path!r}, which is empty or has a null or "
            "unencodable character."
        )
    return text


@contextmanager
def errors_name(path):
    """Raise every OSError of the system as one that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # raised by this module
            raise
        raise OSError(error.errno, error.strerror, path) from error


def open_regular(path, mode="rb"):
    """Open a regular file to read; raise an error at once if `path` is anything else."""
    with errors_name(path):
        # Opening some devices has an effect, so the kind is checked before; it may change in
        # between, so opening does not wait, and the kind is checked again.
        check_is_regular(path, os.stat(path))
        file = open(path, mode, opener=_open_without_waiting)
        try:
            check_is_regular(path, os.fstat(file.fileno()))
        except BaseException:
            file.close()
            raise
    return file


def _open_without_waiting(path, flags):
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def check_is_regular(path, status):
    """Raise an OSError that names `path` unless `status` is that of a regular file."""
    if stat.S_ISREG(status.st_mode):
        return
    kind = KINDS.get(stat.S_IFMT(status.st_mode), "not a regular file")
    error = IsADirectoryError if stat.S_ISDIR(status.st_mode) else SpecialFileError
    raise error(f"{path!r} is {kind}; give the path of a regular file.")


def resolve_links(path):
    """Return the path to write to: the target of a symbolic link, which need not exist."""
    for _ in range(MAX_LINKS):
        folder, name = os.path.split(path)
        if name in ("", ".", ".."):
            raise IsADirectoryError(f"{path!r} is a directory; give the path of a regular file.")
        if not os.path.islink(path):
            return path
        if os.path.realpath(folder).startswith("/proc/"):
            raise SpecialFileError(
                f"{path!r} is an open file of a process; give the path of a regular file."
            )
        path = os.path.join(folder, os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def write_atomically(path, data, mode=PUBLIC):
    """Write the bytes `data` to the file `path`, see `replace_file`."""
    unlock(replace_file(path, data, mode))


def replace_file(path, data, mode=PUBLIC, *, must_be_new=False):
    """Write the bytes `data` to the file `path` and return it, open and locked.

    A crash leaves either the old file or the new one: the bytes are written to a temporary file in
    the same folder, flushed to disk and renamed. A symbolic link is followed. Owner, mode and
    extended attributes of a file that exists are kept; otherwise, the file gets `mode`, less the
    umask.

    Raises
    ------
    FileExistsError
        If `must_be_new`, and there is a file.
    OSError
        If the file is not a regular file, or cannot be written.
    """
    path = resolve_links(path)
    with errors_name(path):
        status = None
        with suppress(FileNotFoundError):
            status = os.stat(path)
            check_is_regular(path, status)
        remove_temporary_files(path)
        temporary, file = _temporary_path(path), None
        first_mode = status.st_mode & PRIVATE if status else mode
        try:
            while (file := _create_locked(temporary, first_mode)) is None:
                temporary = _temporary_path(path)
            if status:
                _keep_attributes(file.fileno(), path, status)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(file.fileno(), rest) :]
            os.fsync(file.fileno())
            close_unless_locked(file)
            _move(temporary, path, must_be_new)
        except BaseException:
            if file is not None:
                with suppress(OSError):
                    file.close()
            with suppress(OSError):
                os.remove(temporary)
            raise
    _flush_folder(os.path.dirname(path))
    return file


def remove_temporary_files(path):
    """Remove the temporary files that killed processes left when they wrote `path`.

    Those of other paths with the same beginning may be among them, which does no harm.
    """
    folder, name = os.path.split(path)
    pattern = re.compile(rf"\.{re.escape(name[:MAX_PREFIX])}\.[0-9a-f]{{8}}\.part")
    names = []
    with suppress(OSError):  # without the permission to list a folder, files can still be written
        names = os.listdir(folder or ".")
    for temporary in (os.path.join(folder, name) for name in filter(pattern.fullmatch, names)):
        with suppress(OSError):  # it is being written, or has been removed, or cannot be removed
            if fcntl is None:
                os.remove(temporary)
                continue
            with open_regular(temporary, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.remove(temporary)


def lock(file):
    """Lock a file until it is closed; raise BlockingIOError if another open file has the lock.

    Nothing is locked where the system or the file system has no locks.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        pass


def close_unless_locked(file):
    """Close a file if the system has no locks: Windows cannot replace a file that is open."""
    if fcntl is None:
        file.close()


def unlock(file):
    """Unlock and close a file; closing is not enough if a forked process has the file, too."""
    with suppress(OSError, ValueError):  # ValueError if it is closed
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_UN)
    with suppress(OSError):
        file.close()


def is_at(path, status):
    """Return whether the file with this `status` is the one at `path`."""
    try:
        return os.path.samestat(status, os.stat(path))
    except FileNotFoundError:
        return False


def _temporary_path(path):
    """Return a new path in the same folder, see `remove_temporary_files`."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name[:MAX_PREFIX]}.{token_hex(4)}.part")


def _create_locked(path, mode):
    """Create a file and return it locked, or None if another process has removed it already."""
    file = open(path, "xb", buffering=0, opener=partial(os.open, mode=mode))
    try:
        lock(file)
        if is_at(path, os.fstat(file.fileno())):
            return file
    except BlockingIOError:  # another process is about to remove it
        pass
    except BaseException:
        file.close()
        raise
    file.close()
    return None


def _keep_attributes(descriptor, path, status):
    """Give a new file the owner, group, mode and extended attributes of the one it replaces.

    Only root may give a file away, and only members may give it to a group. Without the group, its
    rights are limited to those of everyone.
    """
    if not hasattr(os, "fchown"):  # Windows
        return
    mode, new, lost = stat.S_IMODE(status.st_mode), os.fstat(descriptor), []
    for name in ("gid", "uid"):
        before = getattr(status, f"st_{name}")
        if getattr(new, f"st_{name}") != before:
            try:
                os.fchown(descriptor, **{"uid": -1, "gid": -1, name: before})
            except OSError:
                lost.append(f"{name} {before}")
    if lost:
        warnings.warn(
            f"{path!r} has lost its {' and '.join(lost)}, because this process lacks the "
            "permission to keep them when it replaces the file; restore them with chown.",
            UserWarning,
            stacklevel=7,
        )
    if any(name.startswith("gid") for name in lost):
        mode &= 0o707 | (mode & 0o007) << 3
    else:
        _copy_extended_attributes(path, descriptor)
    if stat.S_IMODE(os.fstat(descriptor).st_mode) != mode:  # some file systems refuse any change
        os.fchmod(descriptor, mode)


def _copy_extended_attributes(path, descriptor):
    """Copy extended attributes, such as access control lists, where they are supported."""
    with suppress(OSError, AttributeError):
        for name in os.listxattr(path):
            with suppress(OSError):
                os.setxattr(descriptor, name, os.getxattr(path, name))


def _move(temporary, path, must_be_new):
    """Rename a file, or raise FileExistsError if `must_be_new` and there is a file."""
    if must_be_new:
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except (OSError, AttributeError):  # the file system or the system has no hard links
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from None
        else:
            os.remove(temporary)
            return
    os.replace(temporary, path)


def _flush_folder(folder):
    """Flush the entries of a folder to disk, if the system can."""
    with suppress(OSError, AttributeError):  # not every system can open folders
        descriptor = os.open(folder or ".", os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
