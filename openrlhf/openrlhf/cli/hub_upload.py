"""A folder to the Hugging Face hub, through the hub's own client: private unless asked otherwise, and resumable.

What the hub has already is not sent again: a repeated command goes on where an interrupted one was. The token is the
client's affair (`HF_TOKEN`, or `hf auth login`); it is never printed, and errors are told in words of our own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openrlhf.errors import UserError
from openrlhf.utils.logging import init_logger

if TYPE_CHECKING:
    from huggingface_hub import HfApi

logger = init_logger(__name__)

LOGIN = "log in with a token that may write (hf auth login, or HF_TOKEN)"
AGAIN = "repeat the command: it goes on where it was"
STATUS = {401: f"it does not know your token; {LOGIN}", 403: f"your token may not write there; {LOGIN}"}


def check_access(name: str) -> None:
    """One question to the hub, to be asked before the work whose result is to be uploaded.

    Raises:
        UserError: no token, one that the hub does not know, a name that cannot be, or no connection.
    """
    from huggingface_hub.utils import validate_repo_id

    with _client(name) as api:
        validate_repo_id(name)
        api.whoami()


def upload(folder: Path, name: str, *, public: bool) -> str:
    """Uploads a folder's files to the repository YOU/NAME, or OWNER/NAME; returns its address.

    Raises:
        UserError: no token, one that may not, a repository of the other visibility, or a connection that failed.
    """
    with _client(name) as api:
        repository = _create(api, name, public=public)
        logger.info("uploading %s to %s (%s)", folder, repository, "public" if public else "private")
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload the exported checkpoint")
        url = f"{api.endpoint}/{repository}"
    logger.info("uploaded to %s", url)
    return url


@contextmanager
def _client(name: str) -> Iterator[HfApi]:
    """The hub's client with the user's token; what it raises is told as a UserError, in words of our own."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    # those of the client's own HTTP library (httpx or httpx2), OSError, and what the storage raises after its retries
    broke_off: tuple[Any, ...] = (*HfHubHTTPError.__bases__, RuntimeError)
    token = get_token()
    if token is None:
        raise UserError(f"--push_to_hub {name}: there is no token; {LOGIN}")
    api = HfApi(token=token)
    try:
        yield api
    except HfHubHTTPError as error:
        status = error.response.status_code
        cause = STATUS.get(status, f"it answers with status {status}; {AGAIN}")
        raise UserError(f"--push_to_hub {name}: {api.endpoint}: {cause}") from None
    except HFValidationError as error:
        raise UserError(f"--push_to_hub {name}: {without(token, str(error))}") from None
    except OfflineModeIsEnabled:
        raise UserError(f"--push_to_hub {name}: HF_HUB_OFFLINE keeps the hub away; unset it") from None
    except broke_off as error:
        cause = without(token, f"{type(error).__name__}: {error}".splitlines()[0])
        raise UserError(f"--push_to_hub {name}: {api.endpoint}: the connection broke off ({cause}); {AGAIN}") from None


def without(token: str, text: str) -> str:
    """The text with the token, and whatever looks like one, blotted out."""
    return re.sub(r"hf_\w+|(?i:bearer) \S+", "(token)", text.replace(token, "(token)"))


def _create(api: HfApi, name: str, *, public: bool) -> str:
    """The repository's full name; it is made where it is not there.

    Raises:
        UserError: it is there, and everybody could see what was asked to be private.
    """
    repository = api.create_repo(name, private=not public, exist_ok=True).repo_id
    if not public and not api.model_info(repository).private:
        raise UserError(f"--push_to_hub {name}: {repository} is there and is public; pass --public, or another name")
    return repository
