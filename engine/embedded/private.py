"""Files and folders that only their owner may read: passwords, addresses that contain them, data."""

import os
import secrets
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Replace the file in one step; a reader sees the old text or the new one."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def kept_password(path: Path) -> str:
    """The password in the file, made at the first call; hexadecimal, so that it needs no quoting anywhere."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        password = secrets.token_hex(24)
        write_private(path, password + "\n")
        return password


def private_folder(path: Path, *, entered_by_others: bool = False) -> Path:
    """Create the folder, or set the mode of ours; nobody else may list it, and only on request enter it."""
    path.mkdir(exist_ok=True)
    path.chmod(0o711 if entered_by_others else 0o700)
    return path
