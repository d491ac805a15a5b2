# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# What tests/run and the examples share: being root, having the packages, having a build.
# Sourced, from a script that has set -euo pipefail.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD_DIR=${BUILD_DIR:-$root/build}

# Colours only where somebody sees them.
# shellcheck disable=SC2034
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$'\e[1m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else
	bold='' green='' red='' plain=''
fi

# be_root SCRIPT [ARGUMENT...]: runs the script anew under sudo unless this is root already.
be_root() {
	[ "$(id -u)" -ne 0 ] || return 0
	if ! command -v sudo >/dev/null; then
		echo "${0##*/}: network namespaces need root, and there is no sudo here; run it as root" >&2
		exit 1
	fi
	echo "${0##*/}: network namespaces need root: asking sudo"
	exec sudo --preserve-env=BUILD_DIR,NO_COLOR,CI -- "$@"
}

# installed PACKAGE
installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# install_packages WHAT...: those of the packages for build, try or test that are missing.
install_packages() {
	local what package missing=()

	if ! command -v dpkg-query >/dev/null; then
		echo "this is no Debian: the packages that are needed are listed in tests/lib/packages"
		return 0
	fi
	while read -r what package; do
		[[ " $* " != *" $what "* ]] || installed "$package" || missing+=("$package")
	done < <(grep -v '^#' "$root/tests/lib/packages")
	[ ${#missing[@]} -gt 0 ] || return 0
	echo "${bold}installing${plain} ${missing[*]}"
	apt_get update || echo "the package lists could not be renewed; going on with those at hand"
	apt_get install "${missing[@]}"
}

apt_get() {
	DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
		-o Dpkg::Use-Pty=0 "$1" --no-install-recommends "${@:2}" |
		sed -u -n 's/^\(Get:\|Setting up \|E: \|W: \)/  \1/p'
}

# The build belongs to whoever asked for it, though sudo made it.
give_back() {
	[ -z "${SUDO_UID:-}" ] || chown -R "$SUDO_UID:${SUDO_GID:-0}" "$1"
}

# build DIRECTORY [MESON-OPTION...]: configures once, and again where packages were installed since
# (what is optional is built where its libraries are); builds what changed.
build() {
	local dir=$1 log again=()
	shift
	log=$(mktemp)
	echo "${bold}building${plain} ${dir#"$root/"} with ${CC:-cc}${*:+ $*}"
	[ ! -e "$dir/build.ninja" ] || again=(--reconfigure)
	if ! { { [ "$dir/build.ninja" -nt /var/lib/dpkg/status ] ||
		meson setup "${again[@]}" "$dir" "$root" "$@"; } &&
		ninja -C "$dir"; } >"$log" 2>&1; then
		cat "$log" >&2
		rm -f "$log"
		echo "${red}the build failed${plain}" >&2
		return 1
	fi
	give_back "$dir"
	rm -f "$log"
}
