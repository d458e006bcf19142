"""What devices print when a program can't be started, and the remedy of each."""

from __future__ import annotations

import pytest

from farm.core.runner import RunnerBuild
from farm.site.job.preflight import unfit
from farm.site.parsers.start import diagnose

TEXTS = [
    (
        "./farm-runner: /lib/aarch64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found"
        " (required by ./farm-runner)",
        "libc_too_old",
        True,
    ),
    (
        "./farm-runner: /usr/lib/libstdc++.so.6: version `GLIBCXX_3.4.30' not found (required by"
        " ./lib/libexecutorch.so)",
        "libc_too_old",
        True,
    ),
    (
        'CANNOT LINK EXECUTABLE "./farm-runner": library "libc++_shared.so" not found: needed by'
        " main executable",
        "library_missing",
        True,
    ),
    (
        'CANNOT LINK EXECUTABLE "./farm-runner":\ncannot locate symbol "_ZNSt6__ndk14coutE"',
        "symbol_missing",
        True,
    ),
    (
        'CANNOT LINK EXECUTABLE "./farm-runner": cannot locate symbol "x" referenced by'
        ' ".../lib/liba.so"...',
        "symbol_missing",
        True,
    ),
    (
        'dlopen failed: "/data/local/tmp/farm/lib/liba.so"\nprogram alignment (4096) cannot be'
        " smaller than system page size (16384)",
        "page_size",
        True,
    ),
    (
        '/lib/liba.so" has text relocations (https://android.googlesource.com/platform/bionic)',
        "text_relocations",
        True,
    ),
    (
        "./farm-runner: error while loading shared libraries: libstdc++.so.6: cannot open shared"
        " object file: No such file or directory",
        "library_missing",
        True,
    ),
    ("phone: cannot start ./farm-runner: Permission denied", "no_execute", False),
    ("board: cannot start ./farm-runner: Exec format error", "wrong_format", True),
    ("./farm-runner: not executable: 64-bit ELF file", "wrong_format", True),
    ("board: cannot start ./farm-runner: No such file or directory", "loader_missing", True),
    ("/system/bin/sh: ./farm-runner: inaccessible or not found", "loader_missing", True),
    ("FATAL: kernel too old", "kernel_too_old", False),
    ('"./vendor-llm" has unexpected e_machine: 62 (EM_X86_64)', "wrong_format", True),
    ('dlopen failed: "liba.so" is 32-bit instead of 64-bit', "wrong_format", True),
    (
        'error: "./vendor-llm": executable\'s TLS segment is underaligned: alignment is 8, needs'
        " to be at least 64 for ARM64 Bionic",
        "tls_alignment",
        True,
    ),
    # glibc says the same of all that is wrong with a library, then what.
    (
        "./x: error while loading shared libraries: liba.so: ELF load command alignment not"
        " page-aligned",
        "page_size",
        True,
    ),
    (
        "./x: error while loading shared libraries: liba.so: wrong ELF class: ELFCLASS32",
        "wrong_format",
        True,
    ),
    ("./x: error while loading shared libraries: liba.so: file too short", "damaged", False),
    ("./x: error while loading shared libraries: ./liba.so: invalid ELF header", "damaged", False),
    (
        "./x: error while loading shared libraries: ./liba.so: failed to map segment from shared"
        " object: Operation not permitted",
        "no_execute",
        False,
    ),
    (
        "./x: error while loading shared libraries: liba.so: cannot enable executable stack as"
        " shared object requires: Invalid argument",
        "executable_stack",
        False,
    ),
    ("./x: symbol lookup error: ./liba.so: undefined symbol: omp_get_num", "symbol_missing", True),
    ("./x: /lib/libgomp.so.1: version `GOMP_5.0' not found (required", "symbol_missing", True),
    ("./x: CPU ISA level is lower than required", "instruction_missing", False),
    ("Error loading shared library liba.so: No such file or direc", "library_missing", True),
    ("Error loading shared library liba.so: Exec format error (needed", "wrong_format", True),
    ("Error relocating ./x: __fprintf_chk: symbol not found", "symbol_missing", True),
    (
        'CANNOT LINK EXECUTABLE "./x": library "/vendor/lib64/libOpenCL.so" needed or dlopened by'
        ' "./x" is not accessible for the namespace "(default)"',
        "library_forbidden",
        False,
    ),
    ("error: only position independent executables (PIE) are supported.", "not_relocatable", True),
    ("bash: line 1: ./x: cannot execute: required file not found", "loader_missing", True),
    ("zsh: exec format error: ./x", "wrong_format", True),
    (
        "farm-helper on board failed at 'version' with exit code 126: sh: 1: exec:"
        " /mnt/farm/farm-helper-00: Permission denied",
        "no_execute",
        False,
    ),
]


@pytest.mark.parametrize(("text", "kind", "bundle"), TEXTS, ids=lambda value: str(value)[-30:])
def test_known_texts_have_a_remedy(text: str, kind: str, bundle: bool) -> None:
    trouble = diagnose(f"WARNING: something else\n{text}\n")
    assert trouble is not None
    assert (trouble.kind, trouble.bundle_helps) == (kind, bundle)
    assert trouble.output in text
    assert trouble.remedy


@pytest.mark.parametrize(
    ("signal", "kind"), [(4, "instruction_missing"), (31, "system_call_forbidden")]
)
def test_signals_say_more_than_texts(signal: int, kind: str) -> None:
    trouble = diagnose("Permission denied", signal)
    assert trouble is not None
    assert trouble.kind == kind


def test_an_unknown_failure_is_no_diagnosis() -> None:
    assert diagnose("Segmentation fault", 11) is None
    assert diagnose("") is None


def test_the_error_names_device_libc_and_remedy() -> None:
    trouble = diagnose("cannot start ./farm-runner: Permission denied")
    assert trouble is not None
    build = RunnerBuild("executorch", "1", "arm64-v8a", "00", (), ("./x",), libc="glibc-bundle")
    error = unfit(trouble, build, "pixel")
    assert "pixel" in error.message
    assert "glibc-bundle" in error.message
    assert "noexec" in error.message
    assert error.context["trouble"] == "no_execute"


@pytest.mark.parametrize(
    "text",
    [
        "E 00:00:01.2 main.cpp:40] tokenizer.bin: No such file or directory",
        "cannot open model.pte: Permission denied",
        "backend not found",
        "run.sh: weights: not found",
    ],
)
def test_what_a_program_says_of_its_own_files_is_no_missing_loader(text: str) -> None:
    assert diagnose(f"farm-runner 3\n{text}\n") is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("sh: 1: ./farm-runner: not found", "loader_missing"),
        ("bash: line 1: ./farm-runner: No such file or directory", "loader_missing"),
        ("/system/bin/sh: /sdcard/farm-runner: can't execute: Permission denied", "no_execute"),
        ("qemu-aarch64: Could not open '/lib/ld-linux-aarch64.so.1': No such file or directory",
         "loader_missing"),
    ],
)  # fmt: skip
def test_what_a_shell_says_of_the_program_counts(text: str, kind: str) -> None:
    trouble = diagnose(f"{text}\n")
    assert trouble is not None
    assert trouble.kind == kind


def test_a_bare_refusal_on_a_file_system_that_allows_programs_is_of_the_file() -> None:
    text = "phone: cannot start ./vendor-llm: Permission denied"
    for no_exec, kind in ((True, "no_execute"), (None, "no_execute"), (False, "wrong_format")):
        trouble = diagnose(text, no_exec=no_exec)
        assert trouble is not None
        assert trouble.kind == kind


def test_operators_and_backends_that_a_runner_lacks_are_named() -> None:
    trouble = diagnose(
        "E executorch:method.cpp:819] Missing operator: [7]  quantized::embedding_byte.out\n"
        "E executorch:method.cpp:819] Missing operator: [11] llama::custom_sdpa.out\n"
        "Missing operator: [11] llama::custom_sdpa.out\nE 91 instructions\n"
    )
    assert trouble is not None
    assert trouble.kind == "operator_missing"
    assert "llama::custom_sdpa.out, quantized::embedding_byte.out into the runner" in trouble.remedy
    trouble = diagnose(
        "E 00:00:00.36 executorch:method.cpp:74] Backend VulkanBackend is not registered."
    )
    assert trouble is not None
    assert (trouble.kind, "VulkanBackend" in trouble.remedy) == ("backend_missing", True)
