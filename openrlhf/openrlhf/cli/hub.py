"""Whether the Hugging Face hub has what a run asks for, found within seconds and before anything starts."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from typing import Literal

TIMEOUT_S = 5.0


def hub_problem(name: str, kind: Literal["model", "dataset"]) -> str | None:
    """Why a hub id cannot be had: it is not in the cache, and the hub does not answer or know it. None: it can.

    The hub's own library would try again for close to a minute, so one question is asked here, by plain HTTP.
    """
    from huggingface_hub import constants

    if os.path.isdir(os.path.join(constants.HF_HUB_CACHE, f"{kind}s--{name.replace('/', '--')}", "snapshots")):
        return None
    if constants.HF_HUB_OFFLINE:
        return f"not in the cache, and HF_HUB_OFFLINE keeps the hub away; pass a folder, or download the {kind} first"
    try:
        _ask(f"{constants.ENDPOINT}/api/{kind}s/{name}")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):
            return f"the hub has no such {kind}, or not for you; mend the name, or log in (hf auth login)"
        return f"the hub answers with status {error.code}; try again, or pass a folder"
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        return f"no such folder, and the hub does not answer ({reason}); mend the name, or the connection"
    return None


def _ask(url: str) -> None:
    """Raises HTTPError where the answer is an error, OSError or HTTPException where there is none."""
    from huggingface_hub import get_token

    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S):
        pass
