"""Addresses, ports and interfaces of this machine."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import MutableMapping

import psutil

from openrlhf.errors import UserError

LOOPBACK = "127.0.0.1"


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def interface_of(address: str) -> str:
    """The network interface that has `address`. Raises UserError where none has it."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return name
    if is_loopback(address):  # all of 127.0.0.0/8 is the loopback interface's
        return interface_of(LOOPBACK)
    raise UserError(f"no network interface of this machine has the address {address}")


def check_port_is_free(address: str, port: int, *, name: str) -> None:
    """Raises UserError, saying `name`, where nothing can listen on that port."""
    try:
        socket.create_server((address, port)).close()
    except OSError as error:
        raise UserError(
            f"{name} {port}: nothing can listen on {address}:{port} ({error.strerror}); "
            f"choose another port, or leave {name} unset to get a free one"
        ) from error


def free_port(address: str) -> int:
    """A port that nobody listens on now. Where the listener itself can pick one (port 0), let it."""
    with socket.create_server((address, 0)) as listener:
        return listener.getsockname()[1]


def answers(address: str, port: int, *, timeout_s: float = 3.0) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((address, port), timeout=timeout_s).close()
    except OSError:
        return False
    return True


def bypass_proxies(environment: MutableMapping[str, str], *addresses: str) -> None:
    """Adds addresses to `no_proxy`, in both spellings: what runs on this machine is not asked for through a proxy."""
    for name in ("no_proxy", "NO_PROXY"):
        known = [part for part in environment.get(name, "").split(",") if part]
        if known != ["*"]:
            environment[name] = ",".join(dict.fromkeys([*known, *addresses]))


def use_interface_of(address: str, environment: MutableMapping[str, str] = os.environ) -> None:
    """Gloo and NCCL listen on the interface of `address` alone, unless the environment names another one.

    Without this gloo listens on the address that the host's name resolves to.
    """
    interface = interface_of(address)
    environment.setdefault("GLOO_SOCKET_IFNAME", interface)
    environment.setdefault("NCCL_SOCKET_IFNAME", f"={interface}")
