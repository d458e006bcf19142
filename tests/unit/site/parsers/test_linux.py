from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.core.device import CoreCluster
from farm.site.parsers import cpu, emulation, system


def arm_block(index: int, part: str, *, implementer: str = "0x41", variant: str = "0x1") -> str:
    return (
        f"processor\t: {index}\nBogoMIPS\t: 38.40\n"
        "Features\t: fp asimd aes crc32 atomics asimdhp asimddp i8mm\n"
        f"CPU implementer\t: {implementer}\nCPU architecture: 8\nCPU variant\t: {variant}\n"
        f"CPU part\t: {part}\nCPU revision\t: 0\n"
    )


PI = (
    "\n".join(arm_block(i, "0xd0b") for i in range(4))
    + "\nHardware\t: BCM2835\nSerial\t\t: 10000000aaaaaaaa\nModel\t\t: Raspberry Pi 5 Model B\n"
)
X86 = (
    "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\n"
    "model name\t: Some Server CPU @ 2.00GHz\nflags\t\t: fpu sse4_2 avx avx2 fma f16c{extra}\n\n"
    "processor\t: 1\nvendor_id\t: GenuineIntel\ncpu family\t: 6\n"
    "model name\t: Some Server CPU @ 2.00GHz\nflags\t\t: fpu sse4_2 avx avx2 fma f16c{extra}\n"
)


def test_cpuinfo_of_a_board_with_a_footer() -> None:
    info = cpu.parse_cpuinfo(PI)
    assert len(info.cores) == 4
    assert (info.hardware, info.board) == ("BCM2835", "Raspberry Pi 5 Model B")
    assert info.family == "arm"
    assert info.cores[3].name == "Cortex-A76"
    assert cpu.features(info) == ("dotprod", "fp16", "i8mm", "neon")


def test_footer_glued_to_the_last_block() -> None:
    info = cpu.parse_cpuinfo(arm_block(0, "0xd04") + "Hardware\t: mt0000\n")
    assert len(info.cores) == 1
    assert info.hardware == "mt0000"


def test_old_kernel_with_processor_twice_counts_once() -> None:
    text = arm_block(0, "0xd04").replace("BogoMIPS", "Processor\t: AArch64 rev 1\nBogoMIPS")
    assert len(cpu.parse_cpuinfo(text).cores) == 1


def test_kernels_that_say_once_what_the_cores_are() -> None:
    """Which of a big.LITTLE chip's cores was asked isn't said: no core gets that one's name."""
    said = arm_block(0, "0xd07").partition("Features")[2]
    many = "Processor\t: AArch64 rev 1\n" + "".join(f"processor\t: {i}\n" for i in range(6))
    single = cpu.parse_cpuinfo(f"{many}Features{said}\nHardware\t: MSM8992\n")
    apart = "".join(f"processor\t: {i}\nBogoMIPS\t: 38.40\n\n" for i in range(6))
    for info in (single, cpu.parse_cpuinfo(f"{apart}Features{said}\nHardware\t: MSM8992\n")):
        assert [core.index for core in info.cores] == [0, 1, 2, 3, 4, 5]
        assert {core.name for core in info.cores} == {""}
        assert cpu.features(info) == ("dotprod", "fp16", "i8mm", "neon")
        assert (info.family, info.hardware) == ("arm", "MSM8992")
        assert len(cpu.clusters(range(6), info, {}, {})) == 1


def test_cpuinfo_of_a_server() -> None:
    info = cpu.parse_cpuinfo(X86.format(extra=""))
    assert info.family == "x86"
    assert info.cores[1].name == "Some Server CPU @ 2.00GHz"
    assert cpu.features(info) == ("avx", "avx2", "f16c", "fma", "sse4.2")


def test_same_part_of_another_maker_is_another_core() -> None:
    info = cpu.parse_cpuinfo(
        arm_block(0, "0xd42") + "\n" + arm_block(1, "0xd42", implementer="0x48")
    )
    assert [core.name for core in info.cores] == ["Cortex-A78AE", "HiSilicon 0xd42"]


@pytest.mark.parametrize(
    ("implementer", "part", "name"),
    [
        ("0x53", "0x003", "Exynos-M4"),
        ("0x53", "0x001", "Samsung 0x001"),
        ("0x48", "0xd02", "TaiShan-v120"),
        ("0x41", "0xd04", "Cortex-A35"),
        ("0x99", "0x123", "0x99/0x123"),
    ],
)
def test_names_of_cores(implementer: str, part: str, name: str) -> None:
    (core,) = cpu.parse_cpuinfo(arm_block(0, part, implementer=implementer)).cores
    assert core.name == name


@pytest.mark.parametrize(
    ("name", "temperature", "processor"),
    [
        ("PMIC-Die", True, False),
        ("CPU-therm", True, True),
        ("BCPU-therm", True, True),
        ("thermal-fan-est", True, False),
        ("soc0-thermal", True, True),
        ("tj-thermal", True, True),
        ("bcm2835_thermal", True, True),
        ("x86_pkg_temp", True, True),
        ("bigcore1-thermal", True, True),
        ("Tboard_tegra", True, False),
        ("gpu-thermal", True, False),
        # On some phones it is the battery's charge.
        ("soc", True, False),
        ("USB2-MINUS-USB", False, False),
        ("cpu-MINUS-soc-thermal", False, False),
        ("pm0000-bcl-lvl0", False, False),
    ],
)
def test_sensors_by_name(name: str, temperature: bool, processor: bool) -> None:
    assert system.is_temperature(name) is temperature
    assert system.is_processor(name) is processor


def test_the_warmest_of_the_processor_goes_before_a_constant() -> None:
    constant = ("PMIC-Die", 100.0)
    assert system.warmest([constant, ("CPU-therm", 41.0), ("tj-thermal", 43.5)]) == (
        "tj-thermal",
        43.5,
    )
    assert system.warmest([constant]) == constant
    assert system.warmest([]) is None


def test_cooling_devices_of_the_processor() -> None:
    device = "/sys/class/thermal/cooling_device{}/{}"
    texts: dict[str, str | None] = {}
    for index, (kind, state) in enumerate(
        [("thermal-cpufreq-6", "11"), ("cpufreq-cpu0", "0"), ("Processor", "2"), ("pwm-fan", "3"),
         ("thermal-gpufreq-0", "4"), ("cpu-isolate1", "x"), ("gpu", "1")]
    ):  # fmt: skip
        texts[device.format(index, "type")] = f"{kind}\n"
        texts[device.format(index, "cur_state")] = f"{state}\n"
    texts[device.format(9, "cur_state")] = None
    assert system.cooling_steps(texts) == (("Processor", 2), ("thermal-cpufreq-6", 11))


def test_clusters_by_clock_where_parts_are_alike() -> None:
    text = "\n".join(
        arm_block(i, "0x001", implementer="0x51", variant="0x4" if i < 6 else "0x3")
        for i in range(8)
    )
    khz = {i: 3_500_000 if i < 6 else 4_300_000 for i in range(8)}
    found = cpu.clusters(range(8), cpu.parse_cpuinfo(text), khz, {})
    assert found == (
        CoreCluster((0, 1, 2, 3, 4, 5), 3_500_000, None, "Oryon"),
        CoreCluster((6, 7), 4_300_000, None, "Oryon"),
    )
    without = cpu.clusters(range(8), cpu.parse_cpuinfo(text), {}, {})
    assert [c.cores for c in without] == [(0, 1, 2, 3, 4, 5), (6, 7)]


def test_clusters_by_part_where_clocks_are_alike_and_slowest_first() -> None:
    text = "\n".join(arm_block(i, p) for i, p in enumerate(["0xd82", "0xd80", "0xd81"]))
    found = cpu.clusters((0, 1, 2), cpu.parse_cpuinfo(text), {}, {0: 1024, 1: 300, 2: 800})
    assert [(c.name, c.capacity) for c in found] == [
        ("Cortex-A520", 300),
        ("Cortex-A720", 800),
        ("Cortex-X4", 1024),
    ]


def test_core_that_cpuinfo_leaves_out_still_counts() -> None:
    found = cpu.clusters((0, 1), cpu.parse_cpuinfo(""), {0: 1000, 1: 1000}, {})
    assert found == (CoreCluster((0, 1), 1000, None, ""),)


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("0-3\n", (0, 1, 2, 3)),
        ("0,2-3,8", (0, 2, 3, 8)),
        ("\n", ()),
        ("", ()),
        ("all", None),
        ("0-", None),
    ],
)
def test_cpu_list(text: str, cores: tuple[int, ...] | None) -> None:
    assert cpu.parse_cpu_list(text) == cores


def test_emulated_by_the_hosts_cpuinfo() -> None:
    host = cpu.parse_cpuinfo(X86.format(extra=" hypervisor"))
    assert emulation.emulated("arm64-v8a", host)
    assert not emulation.emulated("x86_64", host)
    assert emulation.virtualised(host, {}, {})


def test_emulated_by_tcg() -> None:
    tcg = cpu.parse_cpuinfo(X86.format(extra="").replace("Some Server CPU", "QEMU TCG CPU"))
    assert emulation.emulated("x86_64", tcg)
    maximum = cpu.parse_cpuinfo(arm_block(0, "0x051", implementer="0x00"))
    assert emulation.emulated("arm64-v8a", maximum)


def test_a_machine_of_which_nothing_is_known_counts_as_real() -> None:
    assert not emulation.emulated("arm64-v8a", cpu.parse_cpuinfo(""))


def test_real_hardware_is_neither() -> None:
    board = cpu.parse_cpuinfo(PI)
    assert not emulation.emulated("arm64-v8a", board)
    assert not emulation.virtualised(board, {"model": "Raspberry Pi 5 Model B"}, {})


def test_virtual_by_hardware_names_and_properties() -> None:
    board = cpu.parse_cpuinfo(arm_block(0, "0xd0c"))
    assert emulation.virtualised(board, {"vendor": "QEMU"}, {})
    assert emulation.virtualised(board, {}, {"ro.boot.qemu": "1"})


def test_meminfo() -> None:
    text = "MemTotal:       11000000 kB\nMemFree:  1 kB\nMemAvailable:    6000000 kB\nRbin: 3\n"
    assert system.parse_meminfo(text) == (11_264_000_000, 6_144_000_000)
    assert system.parse_meminfo("MemTotal:       1100") == (None, None)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('PRETTY_NAME="Debian GNU/Linux 12 (x)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\n',
         "Debian GNU/Linux 12"),
        ("NAME=Alpine\n", "Alpine"),
        ('PRETTY_NAME="Some System"\nVERSION_ID="1', "Some System"),
        ("garbage\n", None),
        ("", None),
    ],
)  # fmt: skip
def test_os_release(text: str, name: str | None) -> None:
    assert system.parse_os_release(text) == name


def test_tegra_release() -> None:
    assert system.parse_tegra_release("# R36 (release), REVISION: 4.7, GCID: 1") == "L4T 36.4.7"
    assert system.parse_tegra_release("# R36 (rel") is None


@pytest.mark.parametrize(
    ("text", "celsius"),
    [
        ("45250\n", 45.25),
        ("0", None),
        ("-127000", None),
        ("", None),
        ("N/A", None),
        ("-5000", -5),
        ("45", None),
        ("452", None),
        ("-2147483648", None),
        ("٤٥٢٥٠", None),
    ],
)
def test_millidegrees(text: str, celsius: float | None) -> None:
    assert system.parse_millidegrees(text) == celsius


def test_name_from_a_device_is_cleaned() -> None:
    assert system.clean_name("NVIDIA Board\0second\0") == "NVIDIA Board"
    assert system.clean_name("a\x1b[31mred") == "a[31mred"
    assert system.clean_name("\0\n ") is None


@given(st.text(alphabet="processor:CPU implementer0x14def \n\t=\"'", max_size=300))
def test_no_text_makes_a_parser_fail(text: str) -> None:
    info = cpu.parse_cpuinfo(text)
    cpu.features(info)
    cpu.clusters((0,), info, {}, {})
    cpu.parse_cpu_list(text)
    emulation.emulated("x86_64", info)
    system.parse_meminfo(text)
    system.parse_os_release(text)
    system.parse_millidegrees(text)
    system.clean_name(text)
