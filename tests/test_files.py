"""Files at unusual paths, and writing that fails, is interrupted or happens twice at once."""

import errno
import os
import runpy
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from shutil import SpecialFileError

import pytest

from sklearn_cls import CLSTransformerClassifier
from sklearn_cls._persistence import checkpoint, files
from sklearn_cls._persistence.files import open_regular, write_atomically
from tests.helpers import Hook, small

needs_posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root"
)
NOBODY = 65534


@pytest.fixture
def path(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    return str(tmp_path / "file")


def permissions(path):
    return oct(stat.S_IMODE(os.stat(path).st_mode))


@pytest.fixture(params=["load", "save", "checkpoint"])
def use(request, fitted, data):
    """Return a function that loads from, saves to, or fits with the checkpoint `path`."""
    return {
        "load": CLSTransformerClassifier.load,
        "save": fitted.save,
        "checkpoint": lambda path: small(max_epochs=1).fit(*data, checkpoint=path),
    }[request.param]


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)


def make_link(target):
    return lambda path: os.symlink(target, path)


def make_chain(path):
    os.mkfifo(f"{path}.1")
    os.symlink(f"{path}.1", f"{path}.2")
    os.symlink(f"{path}.2", path)


SPECIAL_FILES = {
    "pipe": (make_fifo, "is a named pipe"),
    "socket": (make_socket, "is a socket"),
    "directory": (os.mkdir, "is a directory"),
    "link to a directory": (make_link("/"), "is a directory"),
    "link to a device": (make_link("/dev/null"), "is a character device"),
    "links to a pipe": (make_chain, "is a named pipe"),
    "loop of links": (lambda path: os.symlink(path, path), "Too many levels of symbolic links"),
    "link to an open file": (make_link("/proc/self/fd/0"), ""),
}


@needs_posix
@pytest.mark.parametrize(("make", "message"), SPECIAL_FILES.values(), ids=SPECIAL_FILES)
def test_only_regular_files_are_read_and_replaced(make, message, use, tmp_path):
    path = str(tmp_path / "file")
    make(path)
    before = os.lstat(path), sorted(os.listdir(tmp_path))
    with pytest.raises(OSError, match=f"file.*{message}|{message}.*file"):
        use(path)
    assert os.lstat(path)[:7] == before[0][:7]
    assert sorted(os.listdir(tmp_path)) == before[1]


@needs_posix
@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "/dev/tty", "/dev", "/"])
def test_devices_and_directories_are_neither_read_nor_replaced(path, use):
    before = os.stat(path)
    with pytest.raises(OSError, match=f"'{path}' is a (character device|directory)"):
        use(path)
    assert os.path.samestat(os.stat(path), before)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("stream", ["pipe", "file"])
def test_open_files_of_a_process_are_not_replaced(stream, fitted, tmp_path):
    output = tmp_path / "output"
    with open(output, "wb") as file:
        descriptor = file.fileno()
        if stream == "pipe":
            reader, descriptor = os.pipe()
        for name in ("/dev/fd/", "/proc/self/fd/", f"/proc/{os.getpid()}/fd/"):
            with pytest.raises(SpecialFileError, match=f"{descriptor}' is an open file of a proc"):
                fitted.save(f"{name}{descriptor}")
    if stream == "pipe":
        os.close(reader)
        os.close(descriptor)
    for name in ("/proc/self/comm", "/proc/self/mem", "/proc/self/nothing", "/sys/nothing"):
        with pytest.raises(OSError, match=name):
            fitted.save(name)
    assert os.listdir(tmp_path) == ["output"]


@needs_posix
@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("", ValueError, "must be the path of a file, got ''"),
        ("a\0b", ValueError, r"must be the path of a file, got 'a\\x00b'"),
        (b"a\0b", ValueError, r"must be the path of a file, got b'a\\x00b'"),
        ("\ud800", ValueError, r"must be the path of a file, got '\\ud800'"),
        ("folder/", OSError, "'folder/'"),
        ("new/", OSError, "'new/'"),
        ("new/.", OSError, "'new/.'"),
        ("folder/..", OSError, "'folder/..' is a directory"),
        ("file/", OSError, "'file/'"),
        ("file/x", OSError, "file"),
        ("nowhere/../new", OSError, "nowhere"),
        ("x" * 256, OSError, "File name too long: '.*xxx'"),
        ("x/" * 3000, OSError, "File name too long|is a directory"),
        (3, TypeError, "must be the path of a file, not 3"),
        (object, TypeError, "must be the path of a file, not <class"),
    ],
)  # fmt: skip
def test_a_path_that_no_file_can_have_raises(path, error, message, use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(error, match=message):
        use(path)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert os.listdir("folder") == []


class PathOf:
    """A path-like object."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


NAMES = {
    "bytes": b"model",
    "bytes that are not UTF-8": b"model\xff\xfe",
    "text for such bytes": "model\udcff\udcfe",
    "path-like of such bytes": PathOf(b"model\xff"),
    "pathlib": Path("model"),
    "path-like": PathOf("model"),
    "line break": "a\nb",
    "pattern": "[a-z]*(",
    "parent": "./folder/../model",
    "1": "m",
    **{f"{n} bytes": "x" * n for n in (235, 236, 237, 250, 254, 255)},
    "255 bytes of UTF-8": "é" * 127 + "x",
    "84 long characters": "\U0001f600" * 63,
}


@needs_posix
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_every_name_that_the_system_allows_is_written_and_read(
    name, fitted, data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    fitted.save(name)
    fitted.save(name)
    assert sorted(os.listdir(b".")) == sorted([b"folder", os.path.basename(os.fsencode(name))])
    loaded = CLSTransformerClassifier.load(name)
    assert (loaded.predict_proba(data[0]) == fitted.predict_proba(data[0])).all()
    os.remove(name)
    small(max_epochs=1).fit(*data, checkpoint=name)
    assert os.listdir(tmp_path) == ["folder"]


@needs_posix
def test_messages_about_a_name_that_is_not_utf_8_can_be_printed(data, tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff"
    with open(path, "wb") as file:
        file.write(b"notes" * 100)
    with pytest.raises(ValueError, match=r"/\\udcff' is truncated, or not a safe") as load_error:
        CLSTransformerClassifier.load(path)
    with pytest.raises(ValueError, match=r"/\\udcff' is not a checkpoint") as fit_error:
        small().fit(*data, checkpoint=path)
    f"{load_error.value} {fit_error.value}".encode()


def test_a_dangling_link_creates_its_target(fitted, tmp_path):
    (tmp_path / "link").symlink_to("other")
    (tmp_path / "other").symlink_to("model")
    fitted.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "other").is_symlink()
    assert (tmp_path / "model").is_file()


@needs_posix
def test_a_file_that_becomes_a_pipe_while_it_is_opened_is_refused(path, monkeypatch):
    def open_after_swap(path, flags):
        os.remove(path)
        os.mkfifo(path)
        return original(path, flags)

    original = files._open_without_waiting
    monkeypatch.setattr(files, "_open_without_waiting", open_after_swap)
    with pytest.raises(SpecialFileError, match="file' is a named pipe"):
        open_regular(path)


@needs_posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o444, 0o400, 0o777, 0o000, 0o2640])
def test_the_mode_of_a_file_is_kept(mode, path):
    os.chmod(path, mode)
    write_atomically(path, b"new")
    assert permissions(path) == oct(mode)


@needs_posix
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_follows_the_umask_and_a_private_one_is_readable_by_its_owner_only(
    mask, tmp_path
):
    before = os.umask(mask)
    try:
        write_atomically(str(tmp_path / "public"), b"new")
        write_atomically(str(tmp_path / "private"), b"new", files.PRIVATE)
    finally:
        os.umask(before)
    assert permissions(tmp_path / "public") == oct(0o666 & ~mask)
    assert permissions(tmp_path / "private") == oct(0o600)


@needs_root
def test_root_keeps_the_owner_and_the_group_of_a_file(path):
    os.chown(path, 1234, 5678)
    os.chmod(path, 0o640)
    write_atomically(path, b"new")
    status = os.stat(path)
    assert (status.st_uid, status.st_gid, permissions(path)) == (1234, 5678, "0o640")


@pytest.fixture
def as_nobody(tmp_path):
    """Run the test as a user without rights, in a folder that this user may write."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        os.chmod(folder, 0o777)
    groups = os.getgroups()
    os.setgroups([NOBODY])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    yield
    os.seteuid(0)
    os.setegid(0)
    os.setgroups(groups)


@needs_root
@pytest.mark.parametrize(
    ("owner", "lost", "mode"),
    [
        ((1234, 5678), "gid 5678 and uid 1234", "0o644"),
        ((NOBODY, 5678), "gid 5678", "0o644"),
        ((1234, NOBODY), "uid 1234", "0o674"),
    ],
    ids=["owner and group", "group", "owner"],
)
def test_losing_the_owner_or_the_group_of_a_file_warns_and_gives_no_group_more_rights(
    owner, lost, mode, path, request
):
    os.chown(path, *owner)
    os.chmod(path, 0o674)
    request.getfixturevalue("as_nobody")
    with pytest.warns(UserWarning, match=f"file' has lost its {lost}, because.*with chown"):
        write_atomically(path, b"new")
    status = os.stat(path)
    assert (status.st_uid, status.st_gid, permissions(path)) == (NOBODY, NOBODY, mode)


@needs_root
def test_the_warning_about_a_lost_owner_has_the_line_number_of_the_call_of_save(
    path, fitted, request
):
    os.chown(path, 1234, 5678)
    request.getfixturevalue("as_nobody")
    with pytest.warns(UserWarning, match="has lost its gid 5678 and uid 1234") as caught:
        fitted.save(path)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="needs extended attributes")
def test_extended_attributes_are_kept(path):
    try:
        os.setxattr(path, "user.origin", b"laboratory")
    except OSError:
        pytest.skip("the file system has no extended attributes")
    write_atomically(path, b"new")
    assert os.getxattr(path, "user.origin") == b"laboratory"


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="needs access control lists")
def test_an_access_control_list_is_kept(path):
    entries = [(1, 6, -1), (2, 4, 1234), (4, 0, -1), (16, 4, -1), (32, 0, -1)]  # tag, rights, id
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", acl)
    except OSError:
        pytest.skip("the file system has no access control lists")
    write_atomically(path, b"new")
    assert os.getxattr(path, "system.posix_acl_access") == acl
    assert permissions(path) == "0o640"


@needs_posix
@pytest.mark.parametrize(("is_new", "mode"), [(True, 0o600), (False, 0o600), (False, 0o400)])
def test_a_temporary_file_is_never_more_readable_than_the_final_one(
    is_new, mode, path, tmp_path, monkeypatch
):
    seen, real = [], {name: getattr(os, name) for name in ("open", "write", "fsync", "replace")}

    def record(name):
        def call(*args, **kwargs):
            result = real[name](*args, **kwargs)
            seen.extend(stat.S_IMODE(os.stat(p).st_mode) for p in tmp_path.glob(".*.part"))
            return result

        return call

    os.remove(path) if is_new else os.chmod(path, mode)
    for name in real:
        monkeypatch.setattr(os, name, record(name))
    write_atomically(path, b"new", files.PRIVATE)
    assert len(seen) >= 3
    assert not any(m & ~mode for m in seen)


def test_a_file_is_flushed_before_it_is_renamed_and_its_folder_afterwards(path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace

    def record_fsync(descriptor):
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def record_replace(source, target):
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    write_atomically(path, b"new")
    assert calls == ["file", "rename", "folder"]


def as_on_windows(monkeypatch):
    """Remove what Windows lacks."""
    monkeypatch.setattr(files, "fcntl", None)
    for name in ("O_DIRECTORY", "O_NONBLOCK", "O_NOCTTY", "fchown", "fchmod", "listxattr"):
        monkeypatch.delattr(os, name)


@needs_posix
def test_files_are_written_as_on_windows_without_locks_and_closed_before_they_are_renamed(
    path, monkeypatch
):
    (Path(path).parent / ".file.01234567.part").touch()
    as_on_windows(monkeypatch)
    file = files.replace_file(path, b"new")
    assert file.closed
    with open_regular(path) as file:
        assert file.read() == b"new"
    assert os.listdir(Path(path).parent) == ["file"]


def test_the_module_can_be_imported_where_there_are_no_locks(monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    assert runpy.run_path(files.__file__)["fcntl"] is None


def test_files_are_written_where_the_file_system_has_no_locks_and_stale_ones_remain(
    path, monkeypatch
):
    def flock(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    left = Path(path).with_name(".file.01234567.part")
    left.touch()
    monkeypatch.setattr(files.fcntl, "flock", flock)
    write_atomically(path, b"new")
    assert Path(path).read_bytes() == b"new"
    assert left.exists()


@pytest.mark.parametrize("limit", ["no system locks", "no locks of the file system", "no links"])
def test_a_fit_with_a_checkpoint_works_where_something_is_missing(
    limit, data, tmp_path, monkeypatch
):
    def unsupported(*args):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    def crash(net, **kwargs):
        if len(net.history) == 5:
            raise ZeroDivisionError

    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", float("inf"))
    if limit == "no system locks":
        as_on_windows(monkeypatch)
    elif limit == "no links":
        monkeypatch.setattr(os, "link", unsupported)
    else:
        monkeypatch.setattr(files.fcntl, "flock", unsupported)
    path = tmp_path / "checkpoint"
    clf = small(callbacks=[Hook(on_epoch_begin=crash)])
    with pytest.raises(ZeroDivisionError):
        clf.fit(*data, checkpoint=path)
    assert os.listdir(tmp_path) == ["checkpoint"]
    clf.set_params(callbacks=None).fit(*data, checkpoint=path)
    assert clf.loss_curve_ == small().fit(*data).loss_curve_
    assert os.listdir(tmp_path) == []


def test_a_file_that_must_be_new_is_not_replaced(path, monkeypatch):
    def unsupported(*args):
        raise OSError(errno.EPERM, "Operation not permitted")

    with pytest.raises(FileExistsError, match=r"'.*file'"):
        files.replace_file(path, b"new", must_be_new=True)
    monkeypatch.setattr(os, "link", unsupported)
    with pytest.raises(FileExistsError, match=r"'.*file'"):
        files.replace_file(path, b"new", must_be_new=True)
    assert Path(path).read_bytes() == b"old"
    assert os.listdir(os.path.dirname(path)) == ["file"]


def test_a_temporary_file_that_another_process_removes_at_once_is_created_anew(path, monkeypatch):
    flock, locked = files.fcntl.flock, []

    def remove_first(file, operation):
        locked.append(file.name)
        if len(locked) == 1:
            os.remove(file.name)
        elif len(locked) == 2:
            raise BlockingIOError
        flock(file, operation)

    monkeypatch.setattr(files.fcntl, "flock", remove_first)
    file = files.replace_file(path, b"new")
    monkeypatch.undo()
    file.close()
    assert len(set(locked)) == 3
    assert Path(path).read_bytes() == b"new"


CALLS = (
    "open", "write", "fsync", "fstat", "fchmod", "link", "replace", "remove", "listdir", "stat",
)  # fmt: skip


def fail_in_call(monkeypatch, k, error):
    """Make call number `k` of the functions of `os` above fail; return the list of calls.

    If `error` is None, a write writes 1 byte instead.
    """
    calls = []

    def wrap(name, function):
        def call(*args, **kwargs):
            calls.append(name)
            if len(calls) == k:
                if error is not None:
                    raise OSError(error, os.strerror(error))
                if name == "write":  # a short one
                    args = args[0], args[1][:1]
            return function(*args, **kwargs)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, wrap(name, getattr(os, name)))
    return calls


def n_descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("must_be_new", [False, True])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EINTR, errno.EDQUOT, None])
def test_whichever_call_fails_there_is_the_old_file_or_the_new_one(error, must_be_new, path):
    folder, old, new = os.path.dirname(path), b"old", b"new" * 1000
    n_before, n_failed = n_descriptors(), 0
    for k in range(1, 100):
        os.remove(path) if must_be_new else Path(path).write_bytes(old)
        with pytest.MonkeyPatch.context() as patch:
            calls = fail_in_call(patch, k, error)
            try:
                files.replace_file(path, new, must_be_new=must_be_new).close()
                message = None
            except OSError as raised:
                message = str(raised)
        content = Path(path).read_bytes() if os.path.exists(path) else None
        assert message is None or path in message
        expected = (new,) if message is None else (None if must_be_new else old, new)
        assert content in expected, calls
        left = set(os.listdir(folder)) - {"file"}
        if "remove" not in calls[k - 1 : k]:  # the file cannot be removed then
            assert left == set(), calls
        write_atomically(path, new)
        assert os.listdir(folder) == ["file"]
        assert n_descriptors() == n_before
        n_failed += message is not None
        if len(calls) < k:
            break
    assert k > 8
    assert n_failed == 0 if error is None else n_failed >= 4


@pytest.mark.skipif(sys.platform != "linux", reason="needs a POSIX resource limit")
def test_a_full_disk_leaves_the_old_file_and_no_temporary_file(path):
    import resource

    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**12, limits[1]))  # bytes in a file
    try:
        with pytest.raises(OSError, match=r"File too large: '.*file'"):
            write_atomically(path, bytes(2**16))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert Path(path).read_bytes() == b"old"
    assert os.listdir(os.path.dirname(path)) == ["file"]


@needs_posix
def test_a_close_that_fails_after_the_file_is_on_disk_does_no_harm(path, monkeypatch):
    fsync = os.fsync

    def close_too(descriptor):
        fsync(descriptor)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)

    monkeypatch.setattr(os, "fsync", close_too)
    write_atomically(path, b"new")
    assert Path(path).read_bytes() == b"new"


WRITE_AND_STOP = """
import os, sys, time
from sklearn_cls._persistence import files

def stop(*args):
    print("writing", flush=True)
    time.sleep(60)

os.fsync = stop
files.write_atomically(sys.argv[1], b"from another process")
"""


@needs_posix
def test_a_killed_write_leaves_a_file_that_the_next_write_removes_but_that_of_a_live_one_stays(
    path,
):
    folder = os.path.dirname(path)
    command = [sys.executable, "-c", WRITE_AND_STOP, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "writing\n"
        (part,) = set(os.listdir(folder)) - {"file"}
        assert part.startswith(".file.")
        write_atomically(path, b"new")
        assert sorted(os.listdir(folder)) == [part, "file"]
        writer.kill()
    write_atomically(path, b"newer")
    assert os.listdir(folder) == ["file"]


def test_only_temporary_files_of_the_same_path_are_removed(path):
    folder = Path(path).parent
    kept = {".file.part.txt", ".other.01234567.part", "file.part", ".file.st.01234567.part"}
    for name in (".file.01234567.part", *kept):
        (folder / name).touch()
    write_atomically(path, b"new")
    assert set(os.listdir(folder)) == {"file", *kept}


def test_many_threads_write_one_path_without_errors_and_leave_one_whole_file(path):
    errors = []

    def write(i):
        try:
            for _ in range(50):
                write_atomically(path, bytes([i]) * 10_000)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    content = Path(path).read_bytes()
    assert (len(content), len(set(content))) == (10_000, 1)
    assert os.listdir(os.path.dirname(path)) == ["file"]


@needs_posix
def test_a_folder_that_may_be_written_but_not_listed_gets_the_file(path, monkeypatch):
    def listdir(folder):
        raise PermissionError(errno.EACCES, "Permission denied", folder)

    monkeypatch.setattr(os, "listdir", listdir)
    write_atomically(path, b"new")
    assert Path(path).read_bytes() == b"new"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize(
    ("error", "step"),
    [
        (errno.ENOSPC, 7),
        *(pytest.param(e, 1, marks=pytest.mark.slow) for e in (errno.ENOSPC, errno.EIO, None)),
    ],
)
def test_whichever_call_fails_a_fit_raises_before_training_or_finishes_with_the_same_weights(
    error, step, data, tmp_path, monkeypatch
):
    X, y = data[0][::3], data[1][::3]
    monkeypatch.setattr(checkpoint, "INTERVAL", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", float("inf"))
    path = str(tmp_path / "checkpoint")
    expected = small(max_epochs=2).fit(X, y).loss_curve_
    n_before, messages = n_descriptors(), set()
    for k in range(1, 200, step):
        clf = small(max_epochs=2)
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            calls = fail_in_call(patch, k, error)
            try:
                clf.fit(X, y, checkpoint=path)
                message = "".join(str(warning.message) for warning in caught)
                assert clf.loss_curve_ == expected
            except OSError as raised:
                message = str(raised)
        messages.add(message)
        assert path in message or message == "", calls
        assert set(os.listdir(tmp_path)) <= {"checkpoint"}, calls
        assert n_descriptors() == n_before
        assert small(max_epochs=2).fit(X, y, checkpoint=path).loss_curve_ == expected
        assert os.listdir(tmp_path) == []
        if len(calls) < k:
            break
    assert k > 40
    assert any("could not be written after epoch 1" in m for m in messages) == bool(error)
