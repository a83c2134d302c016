"""Network namespaces: machines of their own on this one, whose link can be taken down. Only for root."""

import os
import subprocess

import pytest
from servers import program


class Namespace:
    """A namespace with a link to this machine."""

    def __init__(self, number: int) -> None:
        """Make it; skip the test where the kernel or the user may not."""
        self._name = f"shipper{os.getpid() % 10_000}n{number}"
        network = f"10.{200 + number}.{os.getpid() % 250}"
        self.host, inner = f"{network}.1", f"{network}.2"
        """Address of this machine in it."""
        if os.getuid():
            pytest.skip("only root can make a network namespace")
        program("ip", "iproute2")
        if subprocess.run(["ip", "netns", "add", self._name], capture_output=True, check=False).returncode:
            pytest.skip("network namespaces are not available here")
        self.command = ("ip", "netns", "exec", self._name)
        """Beginning of a command that runs within it."""
        self._run("link", "add", self._name, "type", "veth", "peer", "name", "inner", "netns", self._name)
        self._run("address", "add", f"{self.host}/24", "dev", self._name)
        self._run("link", "set", self._name, "up")
        self._run("-n", self._name, "address", "add", f"{inner}/24", "dev", "inner")
        self._run("-n", self._name, "link", "set", "inner", "up")
        self._run("-n", self._name, "link", "set", "lo", "up")

    def set_link(self, state: str) -> None:
        """Take the link up or down."""
        self._run("link", "set", self._name, state)

    def close(self) -> None:
        """Remove it."""
        self._run("link", "delete", self._name)
        self._run("netns", "delete", self._name)

    def _run(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)
