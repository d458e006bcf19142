"""Root file systems for lab devices: Debian packages unpacked, never installed.

Each is made once and kept in the lab's folder. Packages come from wherever this machine's apt
gets its own.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.lab.host import LabError, find, lab_dir, locked, sh

#: Raise when the making of a root changes, so that kept ones are made anew.
_VERSION = "8"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_ADB_PACKAGES = ("adbd", "toybox", "mksh")
_SSH_PACKAGES = ("openssh-server", "busybox-static")
ADBD = "/usr/sbin/adbd"
_HIDDEN = "system/apex/lab"
_PT_GNU_PROPERTY = 0x6474E553
_COMPILERS = {"amd64": "g++", "arm64": "aarch64-linux-gnu-g++"}
_EXCLUDED = ("./usr/share/doc", "./usr/share/man", "./usr/share/locale", "./usr/lib/systemd")

#: adbd asks libbase for properties; a phone's come from init, ours from a file.
_PROPERTIES = r"""
#include <cstdio>
#include <cstring>
#include <string>
namespace android { namespace base {
__attribute__((visibility("default")))
std::string GetProperty(const std::string& key, const std::string& fallback) {
  FILE* file = fopen("/system/build.prop", "re");
  if (!file) return fallback;
  std::string value = fallback;
  char line[512];
  while (fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = 0;
    if (!strncmp(line, key.c_str(), key.size()) && line[key.size()] == '=') {
      value = line + key.size() + 1;
      break;
    }
  }
  fclose(file);
  return value;
}
}}
"""

_GETPROP = r"""#!/system/bin/sh
files="/data/local.prop /system/build.prop"
if [ $# = 0 ]; then
  cat $files 2>/dev/null | sed -n 's/^\([^#=][^=]*\)=\(.*\)$/[\1]: [\2]/p' | sort -u
else
  found=$(cat $files 2>/dev/null | grep -m1 "^$1=") && echo "${found#*=}" || echo "${2:-}"
fi
"""

_DUMPSYS = """#!/system/bin/sh
case "$1" in
battery | thermalservice) cat "/data/sim/$1" ;;
*) echo "Can't find service: $1" ;;
esac
"""

_SETTINGS = """#!/system/bin/sh
mkdir -p /data/sim/settings
case "$1" in
get) cat "/data/sim/settings/$2.$3" 2>/dev/null || echo null ;;
put) echo "$4" > "/data/sim/settings/$2.$3" ;;
esac
"""


def adb_root(arch: str = "amd64") -> Path:
    """Root with adbd and an Android-like userland (mksh, toybox, getprop, dumpsys)."""
    return _made(f"adb-{arch}", lambda root: _make_adb(root, arch))


def adbd_command(arch: str) -> str:
    """Command line of adbd, which reads properties from a file.

    Its own loader preloads what does that: a variable would reach every program it starts.
    """
    if arch == "arm64":
        loader, libraries = f"/{_HIDDEN}/ld-linux-aarch64.so.1", f"/{_HIDDEN}"
        loader += f" --library-path {libraries}"
    else:
        loader, libraries = "/lib64/ld-linux-x86-64.so.2", "/usr/lib"
    return f"{loader} --preload {libraries}/libproperties.so {ADBD}"


def ssh_root(arch: str) -> Path:
    """Root of another architecture with sshd and busybox."""
    return _made(f"ssh-{arch}", lambda root: _make_ssh(root, arch))


def libcxx_root() -> Path:
    """Headers and libraries of libc++ for arm64, to cross-compile with, in usr/lib/llvm-19."""

    def make(root: Path) -> None:
        _skeleton(root)
        _unpack(root, "arm64", "bookworm", ("libc++-19-dev", "libc++abi-19-dev"))

    return _made("libcxx-arm64", make)


def package_root(suite: str, package: str) -> Path:
    """Root that holds one package of a Debian suite, with what it depends on."""

    def make(root: Path) -> None:
        _skeleton(root)
        _unpack(root, "amd64", suite, (package,))

    return _made(f"{package}-{suite}", make)


def _made(name: str, make: Callable[[Path], None]) -> Path:
    """Return a kept root, making it first where it isn't there or is of an older version."""
    folder = lab_dir() / "roots" / name
    stamp = folder / "version"
    with locked(lab_dir() / "roots" / f"{name}.lock"):
        if not (stamp.is_file() and stamp.read_text() == _VERSION):
            shutil.rmtree(folder, ignore_errors=True)
            root = folder / "root"
            root.mkdir(parents=True)
            make(root)
            stamp.write_text(_VERSION)
    return folder / "root"


def _make_adb(root: Path, arch: str) -> None:
    _skeleton(root)
    _unpack(root, arch, "trixie", _ADB_PACKAGES)
    for name in ("system/bin", "data", "sdcard"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shell = "/system/bin/sh"
    (root / "etc/passwd").write_text(
        f"root:x:0:0:root:/:{shell}\nshell:x:2000:2000:shell:/:{shell}\n"
    )
    (root / "etc/group").write_text("root:x:0:\nshell:x:2000:\n")
    mksh = next(path for path in ("usr/bin/mksh", "bin/mksh") if (root / path).exists())
    for link in ("system/bin/sh", "usr/bin/sh"):
        (root / link).unlink(missing_ok=True)
        (root / link).symlink_to(f"/{mksh}")
    for applet in _toybox_applets():
        target = root / "system/bin" / applet
        if not target.exists() and not target.is_symlink():
            target.symlink_to("/usr/bin/toybox")
    for name, text in (("getprop", _GETPROP), ("dumpsys", _DUMPSYS), ("settings", _SETTINGS)):
        target = root / "system/bin" / name
        target.unlink(missing_ok=True)
        target.write_text(text)
        target.chmod(0o755)
    _compile_properties(root / "usr/lib/libproperties.so", arch)
    if arch == "arm64":
        _hide_glibc(root)


def _toybox_applets() -> list[str]:
    """Names that toybox answers to; asked of this machine's own root, as its binary runs here."""
    amd64 = lab_dir() / "roots" / "toybox"
    program = amd64 / "usr/bin/toybox"
    if not program.exists():
        shutil.rmtree(amd64, ignore_errors=True)
        amd64.mkdir(parents=True)
        _skeleton(amd64)
        _unpack(amd64, "amd64", "trixie", ("toybox",))
    return sh("chroot", amd64, "/usr/bin/toybox").split()


def _make_ssh(root: Path, arch: str) -> None:
    _skeleton(root)
    _unpack(root, arch, "bookworm", _SSH_PACKAGES)
    (root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\n"
        "sshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    )
    (root / "etc/group").write_text("root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")
    (root / "etc/os-release").write_text(
        'NAME="Farm board"\nPRETTY_NAME="Farm board 12"\nID=board\n'
    )
    for applet in _BUSYBOX.split():
        target = root / "usr/bin" / applet
        if not target.exists() and not target.is_symlink():
            target.symlink_to("/bin/busybox")


#: Names that busybox is asked under: its own list could only be read by running it.
_BUSYBOX = (
    "sh ls cat chmod mkdir rm rmdir mv cp ln stat df du ps kill sleep head tail wc dd env id uname "
    "hostname nproc free sha256sum sort grep sed awk tr cut find test true false echo printf date "
    "touch readlink dirname basename sync mkfifo setsid nohup timeout od hexdump seq mount umount"
)


def _skeleton(root: Path) -> None:
    for name in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc", "tmp", "run", "root"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("proc", "sys", "dev", "var/empty", "run/sshd", "root/.ssh"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "tmp").chmod(0o1777)


def _unpack(root: Path, arch: str, suite: str, packages: tuple[str, ...]) -> None:
    """Download packages with all they depend on into a private apt, and unpack them."""
    with tempfile.TemporaryDirectory(prefix="farm-lab-apt-") as name:
        apt = Path(name)
        apt.chmod(0o755)
        for folder in ("state/lists/partial", "cache/archives/partial", "apt.conf.d"):
            (apt / folder).mkdir(parents=True)
        for folder in ("preferences.d", "trusted.gpg.d"):
            (apt / folder).mkdir()
        (apt / "status").touch()
        source = f"deb [signed-by={_KEYRING}] {_mirror()} {suite} main\n"
        (apt / "sources.list").write_text(source)
        options = (
            f"Dir::Etc={apt}",
            f"Dir::Etc::sourcelist={apt}/sources.list",
            "Dir::Etc::sourceparts=-",
            f"Dir::State={apt}/state",
            f"Dir::State::status={apt}/status",
            f"Dir::Cache={apt}/cache",
            f"APT::Architecture={arch}",
            f"APT::Architectures={arch}",
            "APT::Install-Recommends=false",
            "APT::Sandbox::User=root",
        )
        command = ["apt-get", *(word for option in options for word in ("-o", option))]
        sh(*command, "update", "-qq", timeout_s=300)
        sh(*command, "install", "-y", "-qq", "--download-only", *packages, timeout_s=300)
        for package in sorted((apt / "cache/archives").glob("*.deb")):
            _unpack_one(package, root)


def _unpack_one(package: Path, root: Path) -> None:
    tar = ["tar", "-x", "-C", str(root), "--keep-directory-symlink"]
    tar += [f"--exclude={path}" for path in (*_EXCLUDED, "gconv")]
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
    ) as unpacker:
        done = subprocess.run(
            tar, stdin=unpacker.stdout, capture_output=True, text=True, check=False
        )
    if done.returncode != 0 or unpacker.returncode != 0:
        raise LabError(f"unpacking {package.name}: {done.stderr}")


def _mirror() -> str:
    """Where this machine's apt gets its packages of section main."""
    query = ("indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Component: main")
    if not sh("apt-get", *query).strip():
        sh("apt-get", "update", "-qq", timeout_s=300)
    uris = [line for line in sh("apt-get", *query).splitlines() if "security" not in line]
    if not uris:
        raise LabError("apt knows no package source for section main")
    return uris[0]


def _compile_properties(library: Path, arch: str) -> None:
    compiler = find(_COMPILERS[arch])
    if compiler is None:
        raise LabError(f"{_COMPILERS[arch]} isn't installed: run tests/lab/install.sh")
    sh(compiler, "-O1", "-shared", "-fPIC", "-x", "c++", "-", "-o", library, stdin=_PROPERTIES)


def _hide_glibc(root: Path) -> None:
    """Move loader and libraries to where no other program looks, as a phone has none of them."""
    hidden = root / _HIDDEN
    hidden.mkdir(parents=True)
    multiarch = root / "usr/lib/aarch64-linux-gnu"
    for folder in (multiarch, multiarch / "android", root / "usr/lib"):
        for path in sorted(folder.glob("*.so*")):
            if path.is_symlink() and path.name.startswith("ld-linux"):
                path.unlink()
            else:
                path.replace(hidden / path.name)
    shutil.rmtree(multiarch)
    shutil.rmtree(root / "usr/lib64")
    (root / "lib64").unlink()
    for name in ("usr/bin/toybox", "usr/bin/mksh"):
        _drop_property_note(root / name)
        sh(
            "patchelf", "--set-interpreter", f"/{_HIDDEN}/ld-linux-aarch64.so.1",
            "--force-rpath", "--set-rpath", f"/{_HIDDEN}", root / name,
        )  # fmt: skip


def _drop_property_note(program: Path) -> None:
    """Void a program header whose note patchelf moves away: the emulator checks it."""
    data = bytearray(program.read_bytes())
    (start,) = struct.unpack_from("<Q", data, 0x20)
    size, number = struct.unpack_from("<HH", data, 0x36)
    for at in range(start, start + size * number, size):
        if struct.unpack_from("<I", data, at)[0] == _PT_GNU_PROPERTY:
            struct.pack_into("<I", data, at, 0)
    program.write_bytes(data)
