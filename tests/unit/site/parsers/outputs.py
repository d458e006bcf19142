"""What devices print, one text for each kind that was seen in public: same shapes, made values."""

from __future__ import annotations

BATTERY_PLAIN = """\
Current Battery Service state:
AC powered: false
USB powered: false
Wireless powered: false
Max charging current: 1400000
Charge counter: 2101000
status: 3
health: 2
present: true
level: 62
scale: 100
voltage: 3901
temperature: 263
technology: Li-ion
"""
BATTERY_HISTORY = """\
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Capacity level: 3
 Time when the latest updated value of the voltage was sent via battery changed broadcast: 77
  Charge counter: 907642
  status: 4
  present: true
  level: 81
  scale: 100
  voltage: 4085
  temperature: 341
  technology: Li-ion
  current now: -3
  charge counter: 907642
 [battery history]
 1: status: 2 level: 12 temperature: 455
  level: 9
  temperature: 471
  status: 2
"""
THERMAL_QUALCOMM = """\
IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 3
\tkilled: false
Thermal Status: 1
Cached temperatures:
\tTemperature{mValue=66.2, mType=3, mName=skin, mStatus=3}
HAL Ready: true
HAL connection:
\tThermalHAL 2.0 connected: yes
Current temperatures from HAL:
\tTemperature{mValue=37.6, mType=2, mName=battery, mStatus=0}
\tTemperature{mValue=41.137, mType=3, mName=skin, mStatus=1}
\tTemperature{mValue=52.1, mType=0, mName=CPU7, mStatus=0}
\tTemperature{mValue=3.9, mType=6, mName=vbat, mStatus=0}
\tTemperature{mValue=18.0, mType=8, mName=socd, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=9, mType=2, mName=thermal-cpufreq-6}
\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}
\tCoolingDevice{mValue=5, mType=3, mName=thermal-devfreq-0}
Temperature static thresholds from HAL:
\t{.type = SKIN, .name = skin, .hotThrottlingThresholds = [NaN, 39.0, 45.0]}
"""
THERMAL_TENSOR = """\
IsStatusOverride: false
Thermal Status: 0
HAL Ready: true
HAL connection:
\tThermalHAL AIDL 1  connected: yes
Current temperatures from HAL:
\tTemperature{mValue=27.4, mType=0, mName=BIG, mStatus=0}
\tTemperature{mValue=-0.21, mType=-1, mName=USB2-MINUS-USB, mStatus=0}
\tTemperature{mValue=12700.0, mType=7, mName=batoilo, mStatus=0}
\tTemperature{mValue=1250.0, mType=6, mName=vdroop1, mStatus=0}
\tTemperature{mValue=26.3, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-2}
"""
THERMAL_NAMED = """\
IsStatusOverride: false
Thermal Status: 0
Cached temperatures:
 Temperature{mValue=-99.9, mType=6, mName=TYPE_POWER_AMPLIFIER, mStatus=0}
HAL Ready: true
HAL connection:
\tSdhms connected: yes
Current temperatures from HAL:
\tTemperature{mValue=31.0, mType=1, mName=TYPE_CPU, mStatus=0}
\tTemperature{mValue=29.4, mType=3, mName=TYPE_BATTERY, mStatus=0}
\tTemperature{mValue=30.2, mType=4, mName=TYPE_SKIN, mStatus=0}
\tTemperature{mValue=-99.9, mType=6, mName=TYPE_POWER_AMPLIFIER, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=2, mName=TYPE_CPU}
\tCoolingDevice{mValue=1, mType=4, mName=TYPE_MODEM}
"""
GETPROP_NEW = """\
[init.svc.history]: [reboot,1800000101
shutdown,1800000099]
[ro.board.platform]: []
[ro.build.fingerprint]: [maker/one/one:16/AB3.1/77:user/release-keys]
[ro.build.version.release]: [16]
[ro.build.version.sdk]: [36]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.model]: [Phone One 5G]
[ro.serialno]: [Z9X8Y7]
[ro.soc.model]: [SM9990]
"""
GETPROP_OLD = """\
[ro.board.platform]: [mt6700]
[ro.build.version.release]: [8.1.0]
[ro.build.version.sdk]: [27]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.model]: [PACX00]
"""
MEMINFO = """\
MemTotal:       15912804 kB
MemFree:          731120 kB
MemAvailable:    5123500 kB
Rbin:             204800 kB
Committed_AS:   98765432 kB
"""
OS_DEBIAN = """\
PRETTY_NAME="Debian GNU/Linux 13 (trixie)"
NAME="Debian GNU/Linux"
VERSION_ID="13"
ID=debian
"""
OS_32_BIT = """\
PRETTY_NAME="Raspbian GNU/Linux 11 (bullseye)"
NAME="Raspbian GNU/Linux"
VERSION_ID="11"
ID=raspbian
ID_LIKE=debian
"""
TEGRA = """\
# R35 (release), REVISION: 6.1, GCID: 40000001, BOARD: generic, EABI: aarch64, DATE: Thu
# KERNEL_VARIANT: oot
"""
NVPMODEL = """\
--- available modes ---
< POWER_MODEL ID=0 NAME=10W >
< POWER_MODEL ID=1 NAME=MAXN_SUPER >
"""
ADB_LIST = """\
* daemon not running; starting now at tcp:5037
* daemon started successfully
List of devices attached
7A8B9C0D               device usb:1-2 product:one model:One_5G device:one transport_id:3
adb-7A8B-k3Xq9z (2)._adb-tls-connect._tcp device product:one model:One_5G transport_id:4
emulator-5554          offline product:sdk model:sdk_phone device:emu transport_id:5
00112233445566         unauthorized usb:336675328X transport_id:6
99887766554433         no permissions (missing udev rules?); see [http://x.y/z.html] usb:5-4
200ABC                 device 231-1 product:panther model:Pixel_7 device:panther transport_id:8
"""


def cores(*parts: tuple[str, str, str], end: str = "") -> str:
    """A /proc/cpuinfo of Arm cores: implementer, part and variant of each."""
    blocks = [
        f"processor\t: {index}\nBogoMIPS\t: 38.40\n"
        "Features\t: fp asimd evtstrm aes atomics fphp asimdhp asimddp\n"
        f"CPU implementer\t: {implementer}\nCPU architecture: 8\nCPU variant\t: {variant}\n"
        f"CPU part\t: {part}\nCPU revision\t: 1\n"
        for index, (implementer, part, variant) in enumerate(parts)
    ]
    return "\n".join(blocks) + end


CPU_EXYNOS = cores(
    *[("0x41", "0xd05", "0x1")] * 4,
    *[("0x41", "0xd0a", "0x1")] * 2,
    *[("0x53", "0x003", "0x1")] * 2,
)
CPU_KIRIN = cores(
    *[("0x41", "0xd46", "0x1")] * 4, *[("0x48", "0xd42", "0x2")] * 3, ("0x48", "0xd02", "0x2")
)
CPU_ELITE = cores(*[("0x51", "0x001", "0x4")] * 6, *[("0x51", "0x001", "0x3")] * 2)
CPU_OLD = cores(
    *[("0x41", "0xd04", "0x0")] * 4,
    *[("0x41", "0xd03", "0x0")] * 4,
    *[("0x41", "0xd09", "0x0")] * 2,
    end="\nHardware\t: mt6700\n",
).replace("BogoMIPS", "Processor\t: AArch64 rev 1 (aarch64)\nmodel name\t: AArch64 rev 1\nBogoMIPS")
CPU_PI = cores(
    *[("0x41", "0xd0b", "0x4")] * 4,
    end="\nHardware\t: BCM2835\nRevision\t: d04171\nSerial\t\t: 00\nModel\t\t: Raspberry Pi 5\n",
)
