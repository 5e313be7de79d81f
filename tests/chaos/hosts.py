"""A number in, so many hosts of a network out: network namespaces, or one machine for all of them.

Namespaces need root and Debian's `iproute2`. They are joined by a bridge that lies in the first
one's, so that nothing of the machine's own network changes, and several networks do not meet.
"""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

NEEDS = "needs root, `ip` (Debian's iproute2) and the right to make network namespaces"


@dataclass(frozen=True, kw_only=True)
class Host:
    """A place where processes run, with an address that the other hosts reach."""

    address: str
    """IPv4 address."""
    namespace: str | None = None
    """Network namespace; None on this machine's own loopback."""
    link: tuple[str, str] | None = None
    """(namespace, device) of the far end of its cable; None where there is none to cut."""

    def words(self, command: Sequence[str]) -> list[str]:
        """Return a command as it has to be started to run on this host."""
        if self.namespace is None:
            return list(command)
        return ["ip", "netns", "exec", self.namespace, *command]

    def cut(self) -> None:
        """Pull the cable: nothing arrives, nobody is told."""
        self._set_link("down")

    def mend(self) -> None:
        """Put the cable back."""
        self._set_link("up")

    def _set_link(self, state: str) -> None:
        if self.link is None:
            raise ValueError(f"host {self.address} has no cable to cut")
        namespace, device = self.link
        _ip("-n", namespace, "link", "set", device, state)


def can_make_networks() -> bool:
    """Say whether this machine lets us make network namespaces."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"canopycube-{secrets.token_hex(3)}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return False
    try:
        device = ["ip", "-n", name, "link", "add", "hub", "type", "bridge"]
        return subprocess.run(device, capture_output=True, check=False).returncode == 0
    finally:
        _ip("netns", "delete", name)


@contextmanager
def hosts(count: int) -> Iterator[tuple[Host, ...]]:
    """Yield `count` hosts: of a network of their own where that can be made, else this machine."""
    if not can_make_networks():
        yield (Host(address="127.0.0.1"),) * count
        return
    with ExitStack() as stack:
        yield tuple(_network(stack, count))


def _network(stack: ExitStack, count: int) -> Iterator[Host]:
    name = f"canopycube-{os.getpid()}-{secrets.token_hex(2)}"
    hub = _namespace(stack, f"{name}-0")
    _ip("-n", hub, "link", "add", "hub", "type", "bridge")
    _address(hub, "hub", 0)
    yield Host(address=_ADDRESS.format(1), namespace=hub)
    for number in range(1, count):
        own, cable = _namespace(stack, f"{name}-{number}"), f"cable{number}"
        ends = ("type", "veth", "peer", "name", "eth0", "netns", own)
        _ip("-n", hub, "link", "add", cable, *ends)
        _ip("-n", hub, "link", "set", cable, "master", "hub", "up")
        _address(own, "eth0", number)
        yield Host(address=_ADDRESS.format(number + 1), namespace=own, link=(hub, cable))


_ADDRESS = "10.77.0.{}"


def _namespace(stack: ExitStack, name: str) -> str:
    _ip("netns", "add", name)
    stack.callback(_ip, "netns", "delete", name)
    _ip("-n", name, "link", "set", "lo", "up")
    return name


def _address(namespace: str, device: str, number: int) -> None:
    _ip("-n", namespace, "addr", "add", f"{_ADDRESS.format(number + 1)}/24", "dev", device)
    _ip("-n", namespace, "link", "set", device, "up")


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
