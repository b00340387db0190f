"""Whether the Hugging Face hub has what a run asks for, found within seconds and before anything starts."""

from __future__ import annotations

from typing import Literal

TIMEOUT_S = 5.0


def hub_problem(name: str, kind: Literal["model", "dataset"]) -> str | None:
    """Why a hub id cannot be had: neither in the cache, nor does the hub answer and know it. None: it can."""
    import httpx
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if kind == "model" and isinstance(try_to_load_from_cache(name, "config.json"), str):
        return None
    api = HfApi()
    try:
        (api.model_info if kind == "model" else api.dataset_info)(name, timeout=TIMEOUT_S)
    except OfflineModeIsEnabled:
        return f"not in the cache, and HF_HUB_OFFLINE keeps the hub away; pass a folder, or download the {kind} first"
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403, 404):
            return f"the hub has no such {kind}, or not for you; mend the name, or log in (hf auth login)"
        return f"the hub answers with status {status}; try again, or pass a folder"
    except (httpx.HTTPError, OSError) as error:
        return f"no such folder, and the hub does not answer ({type(error).__name__}); mend the path, or the connection"
    return None
