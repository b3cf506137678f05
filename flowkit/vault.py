"""Where the values of secrets are: asked by the worker, or by the author's own process where there is no worker.

A name is looked for in the environment, in a folder of files, in the keyring, and with what other packages have
registered as ``flowkit.secrets``: the first that has it answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from flowkit import config
from flowkit.errors import SecretError
from flowkit.redaction import SHORTEST

Find = Callable[[str], str | None]

#: Bytes of a value. A longer one is no secret but a file.
LONGEST = 32_768

#: In the keyring its entries belong to this service.
SERVICE = "flowkit"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def check_name(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SecretError("a secret's name is letters, digits, '.', '-' and '_', as in 'crm'; give the name, no value")
    return name


def reveal(name: str) -> str:
    """The value of a secret. Raises SecretError, which never tells it."""
    check_name(name)
    value = _find(name)
    if value is None:
        raise SecretError(
            f"there is no secret {name!r} where it is looked for; set {config.secret_variable(name)}, or put a file "
            f"{name!r} into the folder that FLOWKIT_SECRETS names, for the worker (without one, for this process)"
        )
    if len(value) < SHORTEST:
        raise SecretError(
            f"the secret {name!r} has {len(value)} characters, which cannot be kept out of outputs; "
            f"it must have {SHORTEST} at least"
        )
    if len(value.encode("utf-8", "surrogatepass")) > LONGEST:
        raise SecretError(f"the secret {name!r} is longer than {LONGEST:,} bytes; let the notebook read it from a file")
    return value


def _find(name: str) -> str | None:
    for find in (config.secret_in_environment, _in_folder, _in_keyring, *_registered()):
        value = find(name)
        if value is not None:
            return value
    return None


def _in_folder(name: str) -> str | None:
    folder = config.secrets_folder()
    if folder is None:
        return None
    try:
        text = (folder / name).read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        return None
    except UnicodeDecodeError:
        raise SecretError(f"the secret {name!r} in {folder} is not UTF-8 text; put base64 of it there") from None
    except OSError as error:
        raise SecretError(f"the secret {name!r} in {folder} cannot be read: {error.strerror}") from None
    return text.removesuffix("\n").removesuffix("\r")  # which `echo` and editors put behind it


def _in_keyring(name: str) -> str | None:
    try:
        import keyring
        import keyring.errors
    except ImportError:
        return None
    try:
        return keyring.get_password(SERVICE, name)
    except keyring.errors.NoKeyringError:  # a machine that has none, as servers do
        return None
    except Exception as error:  # whatever desktops make of it
        raise SecretError(f"the keyring does not answer for {name!r}: {type(error).__name__}; unlock it") from None


def _registered() -> list[Find]:
    from importlib.metadata import entry_points  # late: it takes longer than all else here

    return [_guarded(point) for point in sorted(entry_points(group="flowkit.secrets"), key=lambda point: point.name)]


def _guarded(point: Any) -> Find:
    def find(name: str) -> str | None:
        try:
            value = point.load()(name)
        except Exception as error:  # another's code, whose message may hold anything
            fault = type(error).__name__
            raise SecretError(f"the provider {point.name!r} failed at the secret {name!r}: {fault}") from None
        if value is not None and not isinstance(value, str):
            raise SecretError(f"the provider {point.name!r} gave a {type(value).__name__} for {name!r}; it must be str")
        return value

    return find
