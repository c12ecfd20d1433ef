# SPDX-License-Identifier: MIT
# Completion of sluice(8) for bash. Networks are asked of the running gateway, where there is one.

_sluice_networks() { # PROGRAM
	timeout 1 "$1" stats --json 2>/dev/null | sed -n 's/^ *"network": "\([^"]\{1,\}\)".*/\1/p'
}

# The long options of a command, and what its other words are: files, networks, or nothing.
_sluice_words() { # COMMAND
	case $1 in
	run) echo "files --config --help" ;;
	check) echo "files --json --help" ;;
	explain) echo "networks --config --last --network --app --json --help" ;;
	init) echo "nothing --help" ;;
	lint) echo "files --gateway --uplink --network --config --json --help" ;;
	doctor) echo "nothing --config --json --help" ;;
	idle) echo "nothing --help" ;;
	log) echo "nothing --follow --lines --denied --audit --allowed --network --app --name --json --help" ;;
	stats) echo "nothing --watch --network --app --sort --limit --json --help" ;;
	suggest) echo "networks --denied --wildcards --json --help" ;;
	reload | health) echo "nothing --json --help" ;;
	*) echo "nothing" ;;
	esac
}

_sluice_reply() { # WORDS
	mapfile -t COMPREPLY < <(compgen -W "$1" -- "$current")
}

# The value of an option. Return: 1 when the word before is none that has a value.
_sluice_value() { # PROGRAM COMMAND OPTION
	case $2:$3 in
	log:-n | log:--lines | log:-s | log:--name | stats:-l | stats:--limit) ;;
	log:-A | stats:-A | explain:-A | *:--app | lint:--gateway | lint:--uplink | lint:--network) ;;
	log:-N | stats:-N | explain:-N | *:--network) _sluice_reply "$(_sluice_networks "$1")" ;;
	stats:-s | stats:--sort) _sluice_reply "denied bytes last allowed" ;;
	run:-c | explain:-c | lint:-c | doctor:-c | *:--config) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
	*) return 1 ;;
	esac
}

_sluice() {
	local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]} kind words
	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		_sluice_reply "run check explain init lint doctor idle log stats suggest reload health --help --version"
		return
	fi
	# --sort=by is three words for bash.
	if [[ $current == = ]]; then
		current=
	elif [[ $before == = ]]; then
		before=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	_sluice_value "${COMP_WORDS[0]}" "$command" "$before" && return
	read -r kind words < <(_sluice_words "$command")
	if [[ $current == -* ]]; then
		_sluice_reply "$words"
	elif [[ $kind == files ]]; then
		mapfile -t COMPREPLY < <(compgen -f -- "$current")
	elif [[ $kind == networks ]] && ((COMP_CWORD == 2)); then
		_sluice_reply "$(_sluice_networks "${COMP_WORDS[0]}")"
	fi
}

complete -o filenames -F _sluice sluice
