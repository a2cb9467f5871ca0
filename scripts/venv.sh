# Sourced by ./build and ./test: makes and keeps .venv beside this project, with the project installed in it.
# Usage: ensure_venv EXTRAS, where EXTRAS is a comma-separated list of pyproject.toml's extras, or nothing.

say() { printf '%s\n' "$*" >&2; }

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    say "error: Python 3.11 or newer is needed, and none was found${PYTHON:+ as PYTHON=$PYTHON}."
    say "  fix: install one, or name it: PYTHON=/path/to/python3 $0"
    exit 1
}

ensure_venv() {
    extras=$1
    # What is installed depends on the pins and on where this folder lies; the stamp says for which it was done.
    wanted="$(cksum < pyproject.toml) $extras $PWD"
    stamp=".venv/.installed-${extras:-core}"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then return; fi
    if [ ! -x .venv/bin/python ]; then
        python=$(find_python)
        say "Making .venv with $("$python" --version) ..."
        "$python" -m venv .venv || {
            rm -rf .venv
            say "error: $python could not make a virtual environment."
            say "  fix: on Debian and Ubuntu, apt-get install python3-venv; then run this again"
            exit 1
        }
    fi
    : > .venv/.made-by-cogsmith
    say "Installing the pinned packages${extras:+ of $extras} into .venv (once; this can take minutes) ..."
    .venv/bin/python -m pip install --disable-pip-version-check -e ".${extras:+[$extras]}" >&2 || {
        say "error: pip could not install the packages; its message is above."
        exit 1
    }
    printf '%s' "$wanted" > "$stamp"
}
