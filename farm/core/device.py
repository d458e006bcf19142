"""Devices: what the inventory says of them and what probing found."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class ThermalLimits:
    """When a device is too warm to measure, and how long to wait for it."""

    battery_max_c: float | None = None
    wait_max_s: float = 600.0


@dataclass(frozen=True, slots=True)
class DeviceEntry:
    """One line of the inventory."""

    name: str
    transport: str
    #: Host that the device hangs on; empty is the host that runs farm.
    site: str = ""
    #: adb: serial number as `adb devices` prints it.
    serial: str | None = None
    #: adb: `host:port` of the adb server; None is the default server.
    adb_server: str | None = None
    #: ssh: host, user, port, identity file, extra known_hosts file. None: as ~/.ssh/config says.
    host: str | None = None
    user: str | None = None
    port: int | None = None
    identity: str | None = None
    known_hosts: str | None = None
    #: Folder of farm on the device; None is the transport's usual one.
    root: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    #: Facts that must hold, for example ("os", "15").
    expect: tuple[tuple[str, str], ...] = ()
    thermal: ThermalLimits = field(default_factory=ThermalLimits)
    #: Recovery steps in order: `reconnect`, `reboot`, or a host command.
    recover: tuple[str, ...] = ()
    #: Where this entry stands, `file: key`, for errors; empty when discovered.
    origin: str = ""
    #: sim only: scripted behaviour as key and value.
    sim: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class CoreCluster:
    """Cores of one kind."""

    cores: tuple[int, ...]
    #: cpuinfo_max_freq; None where the kernel doesn't tell.
    max_khz: int | None
    #: Relative capacity, 1024 is the fastest; None where the kernel doesn't tell.
    capacity: int | None
    #: CPU part or model name.
    name: str = ""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What probing found. None means: could not be read, never zero."""

    #: ro.serialno, machine-id, or the transport's own name where neither can be read.
    identity: str
    #: Android's name; see `farm.core.abi`.
    abi: str
    model: str | None = None
    soc: str | None = None
    #: For example `Android 15` or `Debian GNU/Linux 12`.
    os: str | None = None
    #: Build fingerprint or kernel build: what must be equal for numbers to be comparable.
    os_build: str | None = None
    sdk: int | None = None
    kernel: str | None = None
    clusters: tuple[CoreCluster, ...] = ()
    #: Online cores.
    cores: int | None = None
    ram_bytes: int | None = None
    ram_available_bytes: int | None = None
    storage_free_bytes: int | None = None
    #: `glibc`, `bionic`, `musl` or None.
    libc: str | None = None
    #: True when the loader that a glibc program asks for exists at its usual place.
    system_loader: bool | None = None
    #: True when a C++ runtime (libstdc++) exists at a usual place beside that loader.
    cxx_runtime: bool | None = None
    #: CPU feature flags that kernels choose by (avx2, fma, dotprod, i8mm...).
    features: tuple[str, ...] = ()
    #: Another instruction set is emulated (qemu-user, TCG): speed is meaningless.
    emulated: bool = False
    #: A virtual machine on its own hardware's instruction set.
    virtualised: bool | None = None
    governor: str | None = None
    battery_c: float | None = None
    battery_level: int | None = None
    thermal_status: int | None = None
    boot_id: str | None = None
    #: Facts that could not be read, with the reason, for people.
    unread: tuple[str, ...] = ()


#: States in which a device can be planned with: it answers, and its holder gives it back.
USABLE_STATES = ("ready", "leased", "held")


@dataclass(frozen=True, slots=True)
class Holder:
    """A lease or hold as `farm devices --json` shows it; a hold has the run id `hold`."""

    owner: str
    run_id: str
    #: Why, in the person's words; empty for a run.
    reason: str
    #: Seconds until it expires, of the device's uptime.
    left_s: float


@dataclass(frozen=True, slots=True)
class InQueue:
    """Somebody who waits for a device."""

    #: Of the run; `hold` for a person.
    run_id: str
    #: Who asked the device itself; None: a job in the queue of the site's agent.
    owner: str | None
    #: That job; None for others.
    job_id: str | None
    #: Priority of its run; None for others, who have none.
    priority: int | None
    waits_s: float


@dataclass(frozen=True, slots=True)
class Device:
    """A device as a site sees it now."""

    entry: DeviceEntry
    #: None when the device could not be probed.
    facts: DeviceFacts | None
    #: `ready`, `leased`, `held`; `unfit`, `quarantined`, `untrusted`, `elsewhere`; `recovering`;
    #: or what adb calls it when it can't be used: `offline`, `unauthorized`, `no permissions`,
    #: `recovery`, `absent`...
    state: str = "ready"
    #: Why it is not ready; empty when it is. May end in the remedy.
    reason: str = ""
    #: Owner of the lease or hold; None when free.
    owner: str | None = None
    #: Lease or hold; None when free or not known.
    holder: Holder | None = None
    #: What a person does next; empty when there is nothing to do.
    remedy: str = ""
    #: Warmest sensor now, by name, degrees Celsius; None when it tells none.
    hottest: tuple[str, float] | None = None
    #: Who waits for it: those who asked the device first, as it lets them go first; then the jobs
    #: at its agent in their order.
    queue: tuple[InQueue, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether work may be planned on it; a leased or held one is waited for."""
        return self.facts is not None and self.state in USABLE_STATES

    @property
    def problem(self) -> str:
        """The reason without the device's name in front and the remedy at its end."""
        text = self.reason.removeprefix(f"{self.entry.name}: ")
        if self.remedy and text.endswith(self.remedy):
            text = text.removesuffix(self.remedy).rstrip(" :;.,")
        return text

    def marked(self, state: str, reason: str, remedy: str = "") -> Device:
        """Return the device in another state; who holds it stays."""
        return replace(self, state=state, reason=reason, remedy=remedy)

    @property
    def unmet(self) -> tuple[str, ...]:
        """Expectations of the inventory that don't hold: `os is Android 14, expected 15`.

        A version alone (`15`) is met by a name that ends in it (`Android 15`).
        """
        return () if self.facts is None else unmet_expectations(self.entry, self.facts)

    @property
    def name(self) -> str:
        """Name in the inventory."""
        return self.entry.name

    @property
    def attributes(self) -> dict[str, str | int]:
        """What selectors can ask for: labels first, then facts, then the entry."""
        values: dict[str, str | int] = dict(self.entry.labels)
        facts = self.facts
        if facts is not None:
            for key in ("identity", "abi", "model", "soc", "os", "sdk", "kernel", "libc"):
                value = getattr(facts, key)
                if value is not None:
                    values.setdefault(key, value)
            if facts.ram_bytes is not None:
                values.setdefault("ram", facts.ram_bytes)
            if facts.cores is not None:
                values.setdefault("cores", facts.cores)
            values.setdefault("emulated", "true" if facts.emulated else "false")
        values["name"] = self.entry.name
        values["transport"] = self.entry.transport
        values["site"] = self.entry.site
        if self.entry.serial is not None:
            values.setdefault("serial", self.entry.serial)
        return values


def unmet_expectations(entry: DeviceEntry, facts: DeviceFacts) -> tuple[str, ...]:
    """Expectations of the inventory that don't hold: `os is Android 14, expected 15`.

    A version alone (`15`) is met by a name that ends in it (`Android 15`).
    """
    found = []
    for key, wanted in entry.expect:
        value = getattr(facts, key, None)
        text = "unknown" if value is None else str(value)
        if text != wanted and text.rpartition(" ")[2] != wanted:
            found.append(f"{key} is {text}, expected {wanted}")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Inventory:
    """All devices that a run may use."""

    entries: tuple[DeviceEntry, ...]
    #: Every adb device attached is part of the inventory too.
    adb_auto: bool = True
    #: This machine is part of the inventory too, as `local`.
    local: bool = True
    #: File it was read from; empty for the default.
    source: str = ""


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that had to be done about a device during the run."""

    device: str
    at: str
    #: `recovery`, `quarantine`.
    kind: str
    detail: str
