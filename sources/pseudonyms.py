"""Names for patients that mean nothing without a key, the same every time with it."""

import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

from pipeline.errors import UserError

PATIENT = re.compile(r"P_\d+")
UID = re.compile(r"\d+(?:\.\d+){5,}")
KEY_BYTES = 32


class OpenNames:
    """Leaves every name as it is: what a dataset shows without pseudonyms."""

    def __call__(self, text: str) -> str:
        """Return the text."""
        return text

    def whole(self, name: str) -> str:
        """Return a name of an image or a patient, of a collection with ids of any form."""
        return name

    def file(self, name: str) -> str:
        """Return the name of a file of the download."""
        return name


class Pseudonyms(OpenNames):
    """Replaces patient ids and DICOM UIDs in any text by keyed hashes (HMAC-SHA256, RFC 2104).

    UIDs go too: the collection's tables are public, and tell the patient of every series.
    """

    def __init__(self, key: bytes) -> None:
        """Take the secret that the names depend on."""
        self._key = key

    def __call__(self, text: str) -> str:
        """Return a text with every patient id and UID in it replaced."""
        text = PATIENT.sub(lambda match: f"X_{self._hash(match[0])[:10]}", text)
        # Under 2.25 anybody may number things by a 128-bit number (DICOM PS3.5, B.2).
        return UID.sub(lambda match: f"2.25.{int(self._hash(match[0])[:32], 16)}", text)

    def whole(self, name: str) -> str:
        """Return what stands for a name of an image or a patient, whatever it looks like."""
        return f"X_{self._hash(name)[:16]}"

    def file(self, name: str) -> str:
        """Return what stands for a file of the download: its folders tell date and series."""
        return f"file {self._hash(name)[:10]}"

    def _hash(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


def read_key(path: Path) -> bytes:
    """Read the secret, or make it the first time, readable for its owner alone.

    Raises:
        UserError: It cannot be read or written, or is no such key.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(opened, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(KEY_BYTES))
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the key cannot be read ({error})") from None
    if len(key) != KEY_BYTES:
        raise UserError(f"{path}: is not a key of {KEY_BYTES} bytes", "remove it to make a new one")
    return key
