"""Access to the state's directory: commands of root must not do there what the directory's owner could not do.

Strategy: the owner of the directory may put links into it. SQLite follows them, and as root gives the target to the
owner of the database. Before a process of root opens a file there, it therefore becomes the owner of the directory,
and stays it. It keeps one capability, to read: systemd lets no user but root reach the directory, and commands still
need credentials that only root can read.
"""

import os
import pwd
import stat
from contextlib import suppress

from shipper.core.errors import ConfigError, os_errors

_SUFFIXES = ("", "-wal", "-shm", "-journal", ".lock")
"""Names of the files, after that of the state."""
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# linux/prctl.h, linux/capability.h
_PR_SET_KEEPCAPS = 8
_CAPABILITY_VERSION = 0x20080522
_CAP_DAC_READ_SEARCH = 1 << 2


def enter(path: str) -> None:
    """Become the owner of the state's directory if this is root, and reject what is no file of a state.

    Raises:
        ConfigError: root would not be safe there, or one of the files is something else.
    """
    try:
        folder = os.stat(os.path.dirname(path) or ".")  # noqa: PTH116, PTH120 - a path is a text here
    except OSError:
        return  # to open the file fails in the same way, with its own message
    if os.geteuid() == 0 and folder.st_uid != 0:
        _become(folder.st_uid, folder.st_gid, path)
        _check_reach(folder.st_uid, path)
    elif os.geteuid() == 0 and folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"open state {path}: its directory belongs to root, and other users may write there",
            hint="chown the directory to the service's user, or forbid others to write there: chmod go-w "
            f"{os.path.dirname(path) or '.'}",  # noqa: PTH120 - as above
        )
    for suffix in _SUFFIXES:
        with suppress(OSError):
            kind = stat.S_IFMT(os.lstat(path + suffix).st_mode)
            if kind in _KINDS:
                raise ConfigError(
                    f"open state {path}: {path}{suffix} is {_KINDS[kind]}",
                    hint="Remove it, or set [state] path to a regular or new file.",
                )


def _become(user: int, group: int, path: str) -> None:
    """Become another user, who may also read what only root can read."""
    try:
        account = pwd.getpwuid(user)
        group, groups = account.pw_gid, os.getgrouplist(account.pw_name, account.pw_gid)
    except KeyError:  # a dynamic user of systemd, whose service does not run
        groups = [group]
    import ctypes  # noqa: PLC0415 - only root needs it

    libc = ctypes.CDLL(None, use_errno=True)
    step = f"open state {path}: its directory belongs to user {user}, and this process cannot become that user"
    with os_errors(step, "Run the command as that user."):
        # the change of the user leaves root's capabilities, which do not act then
        _checked(libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0))
        os.setgroups(groups)
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
        # one of them acts again, and all others are gone; in a container it may be missing
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
        # effective, permitted, inheritable: of the first 32 capabilities, and the others
        sets = (ctypes.c_uint32 * 6)()
        _checked(libc.capget(header, sets))
        kept = sets[1] & _CAP_DAC_READ_SEARCH
        sets[:] = [kept, kept, 0, 0, 0, 0]
        _checked(libc.capset(header, sets))


def _check_reach(user: int, path: str) -> None:
    """Check that the capability that is kept was there: many containers start root without it."""
    try:
        os.stat(f"{os.path.dirname(path) or '.'}/.")  # noqa: PTH116, PTH120 - the dot needs the right to enter it
    except PermissionError as error:
        raise ConfigError(
            f"open state {path}: its directory belongs to user {user}, who cannot reach it",
            hint="This process lacks the capability CAP_DAC_READ_SEARCH: start its container with it, or run the "
            "command outside of the container.",
        ) from error


def _checked(result: int) -> None:
    import ctypes  # noqa: PLC0415 - as above

    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
