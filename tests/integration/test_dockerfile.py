"""The Dockerfile, checked without a container engine.

Its instructions are carried out in a debootstrapped root (Debian 12 with its own Python stands in
for the base image) under an overlay, so that the unpacked root serves many runs.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import platformdirs
import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
#: What the base image brings along and a bare Debian doesn't.
PACKAGES = "ca-certificates,python3,python3-venv"
#: Settings of this machine that let apt and pip work here; none of them belongs in the image.
PASSED = re.compile(r"(PIP_.+|.+_proxy|SSL_CERT_FILE|REQUESTS_CA_BUNDLE)\Z", re.IGNORECASE)


def instructions(text: str) -> list[tuple[str, str]]:
    """Split a Dockerfile into (instruction, rest); comments and continuations resolved."""
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    joined = "\n".join(lines).replace("\\\n", " ")
    pairs = (line.strip().split(None, 1) for line in joined.splitlines())
    return [(name.upper(), rest.strip()) for name, rest in pairs]


@dataclass
class Image:
    """What the instructions so far left behind: files in a namespace, and settings."""

    merged: Path
    """Where the image's files are mounted, seen from within the namespace."""
    namespace: int
    """Process that holds the mounts; they end with it."""
    passed: dict[str, str]
    env: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    )
    directory: str = "/"
    user: str = "root"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def carry_out(self, name: str, rest: str) -> None:
        """Do what one instruction says.

        Raises:
            ValueError: An instruction, or a form of it, that this stand-in doesn't know.
        """
        match name:
            case "ARG" | "FROM" | "VOLUME":
                return
            case "ENV":
                pairs = [word.split("=", 1) for word in shlex.split(rest)]
                self.env |= {key: self._expand(value) for key, value in pairs}
            case "WORKDIR":
                self.directory = rest
                self.run(f"mkdir -p {shlex.quote(rest)}", directory="/", user="root")
            case "COPY":
                self._copy(rest.split())
            case "RUN":
                self.run(re.sub(r"--mount=type=cache,\S+\s+", "", rest))
            case "USER":
                self.user = rest
            case "ENTRYPOINT":
                self.entrypoint = tuple(json.loads(rest))
            case "CMD":
                self.command = tuple(json.loads(rest))
            case _:
                raise ValueError(f"this test doesn't know the instruction {name}")

    def run(
        self, line: str, *, directory: str | None = None, user: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell line inside; a failure fails the test with what was printed."""
        wanted = user or self.user
        home = "/root" if wanted == "root" else f"/home/{wanted}"
        variables = {"HOME": home, **self.passed, **self.env}
        inside = f"cd {shlex.quote(directory or self.directory)} && {line}"
        words = ["chroot", f"--userspec={wanted}:{wanted}", str(self.merged), "/usr/bin/env", "-i"]
        words += [f"{key}={value}" for key, value in variables.items()] + ["/bin/sh", "-c", inside]
        return self._outside("exec " + shlex.join(words))

    def _copy(self, words: list[str]) -> None:
        *sources, target = words
        destination = os.path.join(self.directory, target)
        several = target.endswith("/")
        for name in sources:
            source = ROOT / name
            into = os.path.join(destination, source.name) if several else destination
            content = f"{source}/." if source.is_dir() else str(source)
            place = shlex.quote(f"{self.merged}{into}")
            parent = place if source.is_dir() else f"$(dirname {place})"
            self._outside(f"mkdir -p {parent}; cp -r {shlex.quote(content)} {place}")

    def _expand(self, value: str) -> str:
        return re.sub(r"\$\{?(\w+)\}?", lambda found: self.env.get(found[1], ""), value)

    def _outside(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line in the namespace but not in the image; its children end with it."""
        enter = ["nsenter", f"--mount=/proc/{self.namespace}/ns/mnt"]
        done = subprocess.run(
            [*enter, "unshare", "--pid", "--fork", "--kill-child", "sh", "-c", line],
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done


def mount_script(root: Path, work: Path, *, in_memory: bool) -> str:
    """Lines that lay a writable layer over a root, with what this machine lends it."""
    lines = ["set -e"]
    if in_memory:
        lines.append(f"mount -t tmpfs -o size=10g tmpfs {work}")
    lines += [
        f"cd {work}; mkdir upper work merged",
        f"mount -t overlay overlay merged -o lowerdir={root},upperdir=upper,workdir=work",
        "mount -t proc proc merged/proc",
        "mount --rbind /dev merged/dev",
    ]
    for source, inside in machine_binds():
        place = f"merged{inside}"
        if source.is_dir():
            lines.append(f"mkdir -p {place}")
        else:
            lines.append(f"mkdir -p $(dirname {place}); [ -e {place} ] || : > {place}")
        lines.append(f"mount --bind {source} {place}")
    # Longer than any test: what is left of a killed test run goes away by itself.
    return "\n".join([*lines, "echo mounted; exec sleep 1800"])


def test_only_what_exists_and_is_not_ignored_is_copied() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    copies = [rest.split() for name, rest in written() if name == "COPY"]
    sources = [source for *names, _target in copies for source in names]
    assert set(sources) == kept
    assert all((ROOT / source).exists() for source in sources)


def test_the_image_is_parametrised_and_not_root() -> None:
    steps = written()
    assert steps[0][0] == "ARG"
    assert steps[0][1].startswith("BASE=")
    assert ("FROM", "${BASE}") in steps
    users = [rest for name, rest in steps if name == "USER"]
    assert users == ["farm"]
    assert ("ENTRYPOINT", '["farm"]') in steps


@pytest.mark.lab
@pytest.mark.timeout(900)
def test_the_image_builds_and_works(image: Image) -> None:
    for name, rest in written():
        image.carry_out(name, rest)

    # What is checked now has to work without this machine's settings.
    image.passed.clear()
    start = shlex.join([*image.entrypoint, *image.command])
    assert "farm" in image.run(start).stdout
    assert image.run("id -un").stdout.strip() == "farm"
    found = image.run(f"python -c {shlex.quote(DOCTOR)}").stdout
    checks = {check["name"]: check for check in json.loads(found)}
    for name in ("python", "packages", "compiler", "store"):
        assert checks[name]["status"] == "ok", checks[name]
    assert checks["FARM_HOME"]["status"] != "error", checks["FARM_HOME"]
    assert "/var/lib/farm" in checks["FARM_HOME"]["detail"]
    assert image.run("ls /opt/farm/runners/native").stdout.split()


DOCTOR = """
import json
from farm import codec
from farm.commands.doctor import checks
from farm.paths import farm_home
print(json.dumps([codec.to_data(check) for check in checks(farm_home(), deadline_s=60)]))
"""


def written() -> list[tuple[str, str]]:
    return instructions((ROOT / "Dockerfile").read_text())


@pytest.fixture(scope="module")
def base_root() -> Path:
    """A bare Debian with Python, unpacked once and kept in the user's cache folder."""
    if os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("the Dockerfile's test needs root, and CI=true allows no skip")
        pytest.skip("needs root: it unpacks a Debian root and mounts an overlay")
    cache = Path(platformdirs.user_cache_dir("farm-tests"))
    root = cache / f"{SUITE}-{PACKAGES.replace(',', '-')}"
    if not root.exists():
        cache.mkdir(parents=True, exist_ok=True)
        unpack(cache / f".{root.name}.{os.getpid()}", root)
    return root


@pytest.fixture
def image(base_root: Path, tmp_path: Path) -> Iterator[Image]:
    """An image that is still the bare base."""
    # 2 GB in many files: in memory they are written and removed in no time.
    in_memory = psutil.virtual_memory().available > 12 << 30
    script = mount_script(base_root, tmp_path, in_memory=in_memory)
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "mounted\n"
            yield Image(tmp_path / "merged", holder.pid, machine_settings())
        finally:
            holder.kill()
    shutil.rmtree(tmp_path, ignore_errors=True)


def unpack(temporary: Path, root: Path) -> None:
    if shutil.which("debootstrap") is None:
        subprocess.run(["apt-get", "update", "-qq"], check=True, timeout=300)
        subprocess.run(["apt-get", "install", "-y", "-qq", "debootstrap"], check=True, timeout=300)
    words = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(temporary)]
    try:
        done = subprocess.run(
            [*words, mirror()], capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        # As in container images: dpkg needn't sync files that are thrown away.
        (temporary / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n")
        temporary.rename(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def mirror() -> str:
    """The mirror that this machine's own apt uses."""
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    found = subprocess.run(
        [*words, "Component: main", f"Codename: {SUITE}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return found.stdout.splitlines()[0]


def machine_settings() -> dict[str, str]:
    """Pip's settings of this machine, whether from files or variables, as variables."""
    listed = subprocess.run(
        ["python3", "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    found = dict(re.findall(r"^(?:global|install)\.([\w-]+)='(.*)'$", listed, re.MULTILINE))
    settings = {f"PIP_{key.upper().replace('-', '_')}": value for key, value in found.items()}
    settings |= {key: value for key, value in os.environ.items() if PASSED.match(key)}
    # Byte code would take a third of the time and is nothing this test looks at.
    return {**settings, "PIP_CACHE_DIR": "/var/cache/pip", "PIP_NO_COMPILE": "1"}


def machine_binds() -> tuple[tuple[Path, str], ...]:
    """What name resolution and pip's settings refer to, to be mounted where it is here."""
    words = " ".join(machine_settings().values()).replace("file://", "").split()
    paths = {Path(word) for word in words if word.startswith("/")} | {Path("/etc/resolv.conf")}
    # A local index refers to the files beside it.
    paths |= {path.parent for path in paths if path.name == "simple"}
    cache = subprocess.run(
        ["python3", "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=False
    ).stdout.strip()
    binds = [(path, str(path)) for path in sorted(paths) if path.exists()]
    if cache:
        Path(cache).mkdir(parents=True, exist_ok=True)
        binds.append((Path(cache), "/var/cache/pip"))
    return tuple(binds)
