#!/bin/sh
# Includes point one way: common <- resolver <- gateway; and each library has its own file. Usage: check_layers.sh SOURCE_ROOT
cd "$1" || exit 1
bad=0
refuse() { # refuse WHAT FILE... : print includes that may not be there
	what=$1
	shift
	if grep -nE "#include [<\"]($what)" "$@"; then bad=1; fi
}
only_in() { # only_in WHAT PATTERN FILE... : refuse it in all files whose name does not match the pattern
	library=$1
	allowed=$2
	shift 2
	# shellcheck disable=SC2046 # no name here has a space
	refuse "$library" $(printf '%s\n' "$@" | grep -vE "$allowed")
}
set -- gateway/*.[ch] gateway/*/*.[ch]
refuse 'resolver/|gateway/|ldns|openssl|curl/|uv\.h|libmnl|libnftnl|libnetfilter|ini\.h' common/*.[ch]
refuse 'gateway/|curl/|libmnl|libnftnl|libnetfilter|linux/netfilter' resolver/*.[ch]
only_in 'ldns' '^resolver/message\.c$' resolver/*.[ch] "$@"
only_in 'openssl/' '^(resolver/upstream_tls|gateway/verify/(hello|quic))\.c$' resolver/*.[ch] "$@"
only_in 'seccomp\.h' '^gateway/confine_calls\.c$' "$@"
only_in 'ini\.h' '^gateway/config\.c$' "$@"
only_in 'libnetfilter_queue' '^gateway/nfqueue\.c$' "$@"
only_in 'libnetfilter_conntrack' '^gateway/flows(_watch)?\.c$' "$@"
only_in 'libnftnl' '^gateway/nft(_batch|_read)?\.[ch]$' "$@"
only_in 'microhttpd' '^gateway/report/http[a-z_]*\.[ch]$' "$@"
only_in 'curl/' '^gateway/report/notify_(url|sender)\.c$' "$@"
exit $bad
