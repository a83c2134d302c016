# Sourced by deploy/demo, deploy/install and tests/run, at the top of the checkout: makes what they need.

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

# need COMMAND:PACKAGE ...: install each of Debian's packages whose command is not there.
need() {
    local pair missing=()
    for pair in "$@"; do
        PATH="$PATH:/usr/sbin:$(echo /usr/lib/postgresql/*/bin | tr ' ' ':')" command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    [ ${#missing[@]} = 0 ] || install_packages "${missing[@]}"
}

install_packages() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "This machine lacks $*. As root:" "    apt-get update && apt-get install $*"
    fi
    echo "installing $*"
    [ -n "${is_updated:-}" ] || apt-get update -qq
    is_updated=yes
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

# Choose the Python of the environment: 3.11 where there is one, because carbon's PyPI package stops there.
choose_python() {
    local candidate
    for candidate in python3.11 python3 python3.14 python3.13 python3.12; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            python=$candidate
            return
        fi
    done
    need python3:python3
    python=python3
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "shipper needs Python 3.11 or newer."
}

# Plain Debian has no python3-venv: ensurepip tells, before a directory stands there half made.
see_to_venv() {
    "$python" -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
}

# environment DIRECTORY LOCK: a virtual environment with what the lock holds and this checkout, made anew when
# either has changed.
environment() {
    local directory=$1 lock=$2 stamp
    choose_python
    stamp=$("$python" --version; cat "$lock" pyproject.toml | sha256sum)
    [ "$(cat "$directory/stamp" 2>/dev/null)" != "$stamp" ] || return 0
    see_to_venv
    echo "making the environment $directory"
    rm -rf "$directory"
    "$python" -m venv "$directory"
    local pip=("$directory/bin/python" -m pip --quiet --disable-pip-version-check install --use-pep517)
    "${pip[@]}" --require-hashes -r "$lock"
    "${pip[@]}" --no-deps --editable .
    printf '%s\n' "$stamp" >"$directory/stamp"
}

# carbon DIRECTORY: see to a carbon-cache, from the environment or else from Debian.
carbon() {
    [ -x "$1/bin/carbon-cache.py" ] || need carbon-cache:graphite-carbon
}
