# SPDX-License-Identifier: GPL-2.0-or-later
# bash completion for ethercordctl(1). Every word comes from the program itself.

_ethercordctl_words() {
	mapfile -t COMPREPLY < <(compgen -W "$1" -- "$2")
}

# KEY=VALUE: keys first (of a tunnel, listener or peer), then the words that this key allows.
# Readline has already taken what stands before the '=' for a word of its own.
_ethercordctl_setting() {
	local cur=$1 value done=""

	if [[ $cur != *=* ]]; then
		mapfile -t COMPREPLY < <(compgen -S = \
			-W "$(ethercordctl complete keys "${2:-tunnel}")" -- "$cur")
		compopt -o nospace
		return
	fi
	value=${cur#*=}
	[[ $value == *,* ]] && done=${value%,*},
	mapfile -t COMPREPLY < <(compgen -P "$done" \
		-W "$(ethercordctl complete values "${cur%%=*}")" -- "${value##*,}")
}

# Whether `set` is about a tunnel or a listener.
_ethercordctl_sort() {
	local word

	for word in "$@"; do
		if ethercordctl complete names listener 2>/dev/null | grep -qxF -- "$word"; then
			echo listener
			return
		fi
	done
	echo tunnel
}

_ethercordctl() {
	local line=${COMP_LINE:0:COMP_POINT} cur="" verb="" word n=0
	local -a words

	COMPREPLY=()
	read -ra words <<<"$line"
	if [[ $line != *[[:space:]] ]]; then
		cur=${words[-1]}
		unset 'words[-1]'
	fi
	for word in "${words[@]:1}"; do
		[[ $word == -* ]] && continue
		if [[ -z $verb ]]; then
			verb=$word
		else
			n=$((n + 1))
		fi
	done

	case $cur in
	--as=*)
		_ethercordctl_words "ip nmcli networkd keyfile" "${cur#*=}"
		return
		;;
	--json=*)
		_ethercordctl_words "short pretty off" "${cur#*=}"
		return
		;;
	-*)
		_ethercordctl_words "$(ethercordctl complete options ${verb:+"$verb"})" "$cur"
		[[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace
		return
		;;
	esac
	case $verb in
	"")
		_ethercordctl_words "$(ethercordctl complete verbs)" "$cur"
		;;
	up | down | remove)
		_ethercordctl_words "$(ethercordctl complete names 2>/dev/null)" "$cur"
		;;
	status | setkey | export | doctor)
		((n == 0)) && _ethercordctl_words "$(ethercordctl complete names 2>/dev/null)" "$cur"
		;;
	set)
		if ((n == 0)); then
			_ethercordctl_words "$(ethercordctl complete names 2>/dev/null)" "$cur"
		else
			_ethercordctl_setting "$cur" "$(_ethercordctl_sort "${words[@]:1}")"
		fi
		;;
	add)
		((n > 0)) && _ethercordctl_setting "$cur"
		;;
	listen)
		((n > 0)) && _ethercordctl_setting "$cur" listener
		;;
	peer)
		if ((n == 0)); then
			_ethercordctl_words "$(ethercordctl complete names listener 2>/dev/null)" "$cur"
		elif ((n > 1)); then
			_ethercordctl_setting "$cur" peer
		fi
		;;
	esac
}

complete -F _ethercordctl ethercordctl
