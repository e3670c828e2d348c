"""Folders of training sessions: which epochs they have, where a run begins, the link to the newest checkpoint."""

import os

from runtime.checkpoint import load_checkpoint
from runtime.errors import UserError
from runtime.files import require_writable
from runtime.run_folder import LAST


def epoch_path(folder, epoch):
    return os.path.join(folder, "checkpoints", f"checkpoint_epoch_{epoch}.pt")


def saved_epochs(folder):
    """Numbers of the epochs that a session has checkpoints of, sorted."""
    place = os.path.join(folder, "checkpoints")
    names = os.listdir(place) if os.path.isdir(place) else []
    stems = [n.removeprefix("checkpoint_epoch_").removesuffix(".pt") for n in names if n.startswith("checkpoint_epoch_")]
    return sorted(int(stem) for stem in stems if stem.isdecimal())


def find_past(sessions_dir, session, load_epoch, load_from, kind):
    """
    (checkpoint or None, whether it is this session's own): of --load-epoch, else the session's latest, else what --load-from names.

    UserError where what was asked for is not there.
    """
    folder = os.path.join(sessions_dir, session)
    epochs = saved_epochs(folder)
    if load_epoch is not None:
        if load_epoch not in epochs:
            known = f"has epochs {epochs[0]} to {epochs[-1]}" if epochs else "has no checkpoints"
            raise UserError(f"--load-epoch {load_epoch}: session {session} in {sessions_dir} {known}; pass one that is there")
        return load_checkpoint(epoch_path(folder, load_epoch), kind), True
    last = os.path.join(folder, "checkpoints", LAST)
    if epochs and not os.path.exists(last):
        last = epoch_path(folder, epochs[-1])
    if os.path.exists(last):
        return load_checkpoint(last, kind), True
    if load_from:
        return load_checkpoint(path_of(load_from, sessions_dir), kind), False
    return None, False


def refuse_later_epochs(sessions_dir, session, epoch):
    """UserError where a session that is to continue from `epoch` has later ones, which would be overwritten."""
    later = [number for number in saved_epochs(os.path.join(sessions_dir, session)) if number > epoch]
    if later:
        raise UserError(f"session {session} has epochs up to {later[-1]}, which would be overwritten; begin another: --session NAME "
                        f"--load-from {session}/{epoch}")


def path_of(text, sessions_dir):
    """`demo`, `demo/63` or a path to a .pt file -> path."""
    if text.endswith(".pt"):
        return text
    session, _, number = text.partition("/")
    epochs = saved_epochs(os.path.join(sessions_dir, session))
    if not epochs or (number and (not number.isdecimal() or int(number) not in epochs)):
        known = f"it has epochs {epochs[0]} to {epochs[-1]}" if epochs else f"{sessions_dir} has no session {session} with checkpoints"
        raise UserError(f"--load-from {text}: {known}; expected SESSION, SESSION/EPOCH or a .pt file")
    return epoch_path(os.path.join(sessions_dir, session), int(number) if number else epochs[-1])


def checked_link(link, sessions_dir, processes):
    """The link to the newest checkpoint: `link`, or latest.pt in `sessions_dir`. Its folder is made. UserError where no link can be."""
    link = link or os.path.join(sessions_dir, "latest.pt")
    if processes.is_first:
        require_writable(os.path.dirname(link) or ".")
        if os.path.isdir(link) and not os.path.islink(link):
            raise UserError(f"{link} is a folder, expected the name of a link; pass --weight-link {os.path.join(link, 'latest.pt')}")
    return link


def link_newest(link, path, console):
    """Point a symbolic link at the newest checkpoint; a real file of that name is left alone."""
    if os.path.lexists(link) and not os.path.islink(link):
        console.warn(f"{link} is a file, not a link: it stays as it is")
        return
    # one name in every run of a session, which is locked: what a killed one leaves is what the next one replaces
    temporary = os.path.join(os.path.dirname(link), f".{os.path.basename(link)}.{path.parent.parent.name}.part")
    try:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        # real paths: seen from a folder that is itself a link, ".." is elsewhere
        os.symlink(os.path.relpath(os.path.realpath(path), os.path.realpath(os.path.dirname(link))), temporary)
        os.replace(temporary, link)
    except OSError as error:  # a disk that knows no links: no reason to lose an epoch
        console.warn(f"{link} cannot be made a link to {path} ({error.strerror})")
