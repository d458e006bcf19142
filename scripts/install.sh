#!/usr/bin/env bash
# Sets up farm's virtual environment: `scripts/install.sh run` (what farm needs) or
# `scripts/install.sh dev` (that, and what the tests need). Called by the Makefile.
#
# May be interrupted and repeated: a stamp is written last, and an environment that was left
# half-way is built anew from pip's download cache. Environment: PYTHON, VENV, CXX.
set -euo pipefail
cd "$(dirname "$0")/.."

extras=${1:?usage: scripts/install.sh run|dev}
venv=${VENV:-.venv}
case $extras in run) target="." ;; dev) target=".[dev]" ;; *) echo "unknown: $extras" >&2; exit 2 ;; esac

say() { printf '==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$1" >&2; shift; [ $# = 0 ] || printf '  %s\n' "$@" >&2; exit 1; }

new_enough() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null
}

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    new_enough "$PYTHON" || die "PYTHON=$PYTHON is not a Python 3.11 to 3.14." \
      "It is: $("$PYTHON" --version 2>&1 || true)" "Set PYTHON to a newer one, for example PYTHON=python3.12 make run"
    printf '%s' "$PYTHON"
    return
  fi
  for candidate in python3 python3.11 python3.12 python3.13 python3.14; do
    if new_enough "$candidate"; then printf '%s' "$candidate"; return; fi
  done
  die "farm needs Python 3.11 to 3.14; found: $(python3 --version 2>&1 || true)" \
    "Debian 12, Ubuntu 24.04 and later:  sudo apt-get install python3 python3-venv" \
    "Fedora, RHEL:                       sudo dnf install python3.12" \
    "macOS:                              brew install python@3.12" \
    "or set PYTHON to the one to use:    PYTHON=/path/to/python3.12 make run"
}

need_venv_module() {
  "$1" -c 'import ensurepip, venv' 2>/dev/null || die "$1 has no venv module." \
    "Debian, Ubuntu:  sudo apt-get install python3-venv" \
    "elsewhere:       use a complete Python, PYTHON=/path/to/python3 make run"
}

# farm builds its native runner on first use; better to hear of it before the download.
need_compiler() {
  local scratch compiler=${CXX:-g++}
  scratch=$(mktemp -d)
  # shellcheck disable=SC2064  # the path of now
  trap "rm -rf '$scratch'" EXIT
  printf '#include <optional>\nint main() { if constexpr (true) return *std::optional<int>(0); }\n' >"$scratch/probe.cpp"
  # shellcheck disable=SC2086  # CXX may hold words, as in "ccache g++"
  if $compiler -std=c++17 "$scratch/probe.cpp" -o "$scratch/probe" >/dev/null 2>&1; then return; fi
  die "no working C++17 compiler (tried: $compiler). farm builds its native runner with it." \
    "Debian, Ubuntu:  sudo apt-get install g++" \
    "Fedora, RHEL:    sudo dnf install gcc-c++" \
    "macOS:           xcode-select --install" \
    "or set CXX to the one to use. Then repeat the same command; nothing was installed so far."
}

make_venv() {
  if [ -e "$venv" ] && [ ! -f "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv")" ]; then
    die "VENV=$venv exists and is not a virtual environment; name another folder."
  fi
  say "creating the virtual environment $venv with $("$1" --version)"
  "$1" -m venv --clear "$venv"
}

install() {
  local pip=("$venv/bin/python" -m pip --disable-pip-version-check install -c constraints.txt)
  say "installing farm and its pinned packages: about 0.5 GB to download (once: pip keeps them), 2 GB on disk"
  if [ "$(uname -s)" = Linux ]; then
    echo "    Where pip's index has only torch with CUDA this is some GB more; to spare them set"
    echo "    PIP_EXTRA_INDEX_URL to PyTorch's index of CPU builds. This may be interrupted and repeated."
  fi
  # Build tools first and without isolation, so that they are the pinned ones too.
  "${pip[@]}" --upgrade pip setuptools
  "${pip[@]}" --no-build-isolation --editable "$target"
}

stamp="$(cat pyproject.toml constraints.txt Makefile scripts/install.sh | cksum) $PWD"
stamped() { [ "$(cat "$venv/.farm-$1" 2>/dev/null)" = "$stamp" ]; }
if stamped dev || stamped "$extras"; then exit 0; fi

need_compiler
python=$(find_python)
need_venv_module "$python"
# Two terminals may ask at once; macOS has no flock and goes without.
if command -v flock >/dev/null; then
  exec 9<.
  flock 9
  if stamped dev || stamped "$extras"; then exit 0; fi
fi
if [ -e "$venv/.farm-unfinished" ] || ! new_enough "$venv/bin/python"; then make_venv "$python"; fi
touch "$venv/.farm-unfinished"
install
printf '%s' "$stamp" >"$venv/.farm-$extras"
rm "$venv/.farm-unfinished"
say "farm is installed in $venv"
