#!/bin/sh
# Includes point one way: common <- resolver <- gateway; and each library has its own file. Usage: check_layers.sh SOURCE_ROOT
cd "$1" || exit 1
bad=0
refuse() { # refuse WHAT FILES... : prints includes that may not be there
	what=$1; shift
	if grep -nE "#include [<\"]($what)" "$@"; then bad=1; fi
}
refuse 'resolver/|gateway/|ldns|uv\.h|libmnl|libnftnl|libnetfilter|ini\.h' common/*.[ch]
refuse 'gateway/|libmnl|libnftnl|libnetfilter|linux/netfilter' resolver/*.[ch]
refuse 'ldns' $(ls resolver/*.[ch] gateway/*.[ch] | grep -v '^resolver/message\.c$')
refuse 'ini\.h' $(ls gateway/*.[ch] | grep -v '^gateway/config\.c$')
refuse 'libnetfilter_queue' $(ls gateway/*.[ch] | grep -v '^gateway/nfqueue\.c$')
refuse 'libnetfilter_conntrack' $(ls gateway/*.[ch] | grep -v '^gateway/flows\.c$')
refuse 'libnftnl' $(ls gateway/*.[ch] | grep -vE '^gateway/(nft|grants|counters)\.[ch]$')
exit $bad
