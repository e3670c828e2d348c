"""Files that are whole or not there: write to a temporary name beside the final one, then rename."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from runtime.errors import UserError
from runtime.stop_signals import removed_on_stop

try:
    import fcntl
except ImportError:  # Windows has no such lock: two runs into one folder are then not noticed
    fcntl = None

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)  # of os.open: a symbolic link is an error; Windows has no such flag

@contextlib.contextmanager
def atomic_path(path, sync=True):
    """
    A temporary path in the same folder, renamed to `path` when the block ends well and removed when it does not.

    It keeps the suffix, which some drivers need, and its name is the same in every run: the next run replaces what a killed one left. It is
    a new and empty file: a link that lies there is removed, not followed. `sync` forces the bytes to disk first, for files that must
    survive a power cut.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        with removed_on_stop(temporary):
            create_new(temporary)
            yield temporary
            if sync:
                sync_file(temporary)
            os.replace(temporary, path)
    except OSError as error:
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):  # a failing write doesn't say where
            error.filename = str(path)
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def create_new(path):
    """Make an empty file, in place of what has its name: neither a file nor a link that lies there is opened."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o666))


def open_own(path, mode, **options):
    """open() for a file that one of our folders has under a fixed name. UserError where it is a symbolic link, which is not followed."""
    try:
        return open(path, mode, opener=lambda name, flags: os.open(name, flags | NO_FOLLOW, 0o666), **options)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK) and os.path.islink(path):
            raise UserError(f"{path} is a symbolic link, which is not followed where something is written; remove it") from error
        raise


def make_own_folder(path):
    """Make a folder of a fixed name in one of ours. UserError where it is a symbolic link."""
    refuse_link(path)
    Path(path).mkdir(parents=True, exist_ok=True)


def refuse_link(path):
    """UserError where a folder that is ours is a symbolic link: what is written into it, or cleared there, is somebody else's."""
    if os.path.islink(path):
        raise UserError(f"{path} is a symbolic link, which is not followed where something is written; remove it")


def remove_tree(path):
    """Remove a folder and what is in it; of a link only the link. Nothing where there is none."""
    path = Path(path)
    if path.is_symlink():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def sync_file(path):
    """Return when the disk has the bytes."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def scratch_folder(path):
    """
    An empty folder for what several libraries write on the way, gone when the block ends.

    Like atomic_path's, its name should be the same in every run: what a killed run left in it goes when the next one begins. UserError
    while another process works in it.
    """
    path = Path(path)
    lock = lock_folder(path)
    try:
        with removed_on_stop(path):
            for leftover in path.iterdir():
                shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()
            yield path
    finally:
        remove_tree(path)
        if lock is not None:
            os.close(lock)


def lock_folder(path):
    """
    Make a folder that is this process's alone, until the file descriptor that is returned is closed or the process ends, however.

    A link of its name is removed: what it leads to is not ours to empty.
    """
    while True:
        if path.is_symlink():
            path.unlink(missing_ok=True)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if fcntl is None:
                return None
            lock = os.open(path, os.O_RDONLY | NO_FOLLOW)
        except (FileExistsError, FileNotFoundError) as error:  # whoever had it removes it just now, or what is there is no folder
            if os.path.lexists(path) and not path.is_dir():
                raise UserError(f"{path} is a file where a folder for temporary files has to be; remove it") from error
            if isinstance(error, FileExistsError) and not path.parent.is_dir():
                raise UserError(f"cannot write to {path.parent}: it is not a folder; choose another") from error
            continue
        if not try_lock(lock):
            os.close(lock)
            raise UserError(f"another run is working in {path}; wait for it, or choose another output")
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), os.stat(path)):
                return lock
        os.close(lock)  # whoever had it before has just removed it


def try_lock(file):
    """
    Lock an open file or folder until it is closed or the process ends. → False where another process has it.

    Where the platform or the disk has no such locks (NFS may have none), work continues without: True.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass
    return True


@contextlib.contextmanager
def folder_to_itself(path, waiting=lambda: None):
    """
    Makes a folder and keeps other processes that ask for it waiting until the block ends. waiting(): called once where another one has it.

    Where the platform or the disk has no locks, nobody waits.
    """
    Path(path).mkdir(parents=True, exist_ok=True)
    lock = None if fcntl is None else os.open(path, os.O_RDONLY)
    try:
        if lock is not None and not try_lock(lock):
            waiting()
            while not try_lock(lock):
                time.sleep(0.1)
        yield
    finally:
        if lock is not None:
            os.close(lock)


def clear_scratch(path):
    """Remove the scratch folder of a killed run whose output is whole and will not be written again. One in use stays."""
    path = Path(path)
    if path.is_dir() or path.is_symlink():
        with contextlib.suppress(UserError), scratch_folder(path):
            pass


def remove_leftovers(folder):
    """Delete the temporary files that a killed run left in `folder` (not below it)."""
    for path in Path(folder).glob(".*.part*"):
        if not path.is_dir():  # a folder is another program's, and not to be removed by its name alone
            path.unlink(missing_ok=True)


def write_text(path, text, sync=True):
    with atomic_path(path, sync) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, value, sync=True):
    """Write to_json(value). sync: see atomic_path."""
    write_text(path, to_json(value), sync)


def to_json(value):
    """Indented standard JSON: NaN and infinity become null."""
    return json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def parse_object(content):
    """The JSON object that `content`, bytes in UTF-8, is, as a dict. ValueError says what it is instead."""
    try:
        value = json.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("is not valid JSON (nested too deeply)") from error
    except ValueError as error:  # UnicodeDecodeError too
        raise ValueError(f"is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"is {shorten(value)}, expected an object in braces")
    return value


def read_json(path):
    """The object of a JSON file as a dict. UserError where there is none."""
    try:
        require_regular(path)
        return parse_object(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; expected a JSON file") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); expected a JSON file") from error
    except ValueError as error:
        raise UserError(f"{path} {error}; repair or remove it") from error


def scan_lines(path):
    """
    (lines as dicts, their bytes in the file, what is wrong with the next one or None) of a .jsonl file, up to the first that is torn.

    A kill leaves a last line without its end, which is no problem; a power cut leaves zeros, or anything. No file has no lines.
    """
    lines, size = [], 0
    try:
        require_regular(path)
        with open(path, "rb") as file:
            for text in file:
                if not text.endswith(b"\n"):
                    break
                lines.append(parse_object(text))
                size += len(text)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); expected a file of JSON lines") from error
    except ValueError as error:
        return lines, size, str(error)
    return lines, size, None


def read_lines(path):
    """The lines of a .jsonl file as dicts; none where it is missing. A last line that a killed run left unfinished is not there."""
    lines, _, problem = scan_lines(path)
    if problem:
        raise UserError(f"{path}, line {len(lines) + 1} {problem}; run the command that wrote it again")
    return lines


def plain(value):
    """`value` in JSON's own types; NaN and infinity are None, which JSON does not know."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(v) for v in (sorted(value) if isinstance(value, set) else value)]
    if isinstance(value, float):
        return value if value - value == 0 else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # numpy and torch scalars
        return plain(value.item())
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return str(value)


def settings_hash(settings):
    """A short fingerprint of settings: equal for equal content, whatever the order of the keys."""
    text = json.dumps(plain(settings), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def describe_difference(old, new):
    """`patch_size: 256 → 128, scene.mtime: …` for two settings that ought to be the same."""
    return ", ".join(differences(plain(old), plain(new)))


def differences(old, new):
    words = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            words += [f"{name}.{word}" for word in differences(before, after)]
        elif before != after:
            words.append(f"{name}: {shorten(before)} → {shorten(after)}")
    return words


def shorten(value, length=60):
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= length else text[: length - 1] + "…"


def refuse_existing(paths, overwrite):
    """UserError when one of `paths` exists and may not be replaced."""
    existing = [str(p) for p in paths if os.path.lexists(p)]
    if existing and not overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UserError(f"{existing[0]}{more} exists already; pass --overwrite to replace it, or choose another folder")


def require_writable(folder):
    """Make `folder`; UserError now, not after an hour of work, where it cannot be written to."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(prefix=".", suffix=".part", dir=folder):  # without a name on Linux: a killed run leaves none
            pass
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}); choose another folder or change its rights") from error


def require_regular(path):
    """OSError for a pipe, a socket or a device: opening it may wait for ever. What cannot be looked at is told by whoever opens it."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "a pipe, socket or device, not a regular file", str(path))


def free_bytes(folder):
    """Free bytes on the disk where `folder` is or will be."""
    folder = Path(folder).absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
