# SPDX-License-Identifier: MIT
# The image of Sluice: one program, the libraries it is linked with and their licences, and the certificates of public authorities. No shell.
#
#   docker build -t sluice .
#
# Works with the legacy builder of old engines and with BuildKit. Where no registry can be reached, import a Debian 13 tree and name it:
# --build-arg BASE=my-debian. Proxies: --build-arg http_proxy=http://... (docs/docker.md).

ARG BASE=debian:trixie-slim
FROM ${BASE} AS build

# Another mirror of the Debian archive than the base image names, such as http://mirror.example/debian
ARG APT_MIRROR=
RUN set -e; \
    if [ -n "$APT_MIRROR" ]; then \
        rm -f /etc/apt/sources.list.d/*; \
        printf 'deb %s trixie main\n' "$APT_MIRROR" >/etc/apt/sources.list; \
    fi; \
    apt-get update -qq; \
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends \
        ca-certificates gcc libc6-dev libcap2-bin meson ninja-build pkg-config uthash-dev \
        libcap-ng-dev libcmocka-dev libcurl4-openssl-dev libhttp-parser-dev libidn2-dev libinih-dev libjansson-dev libldns-dev libmicrohttpd-dev libmnl-dev libnetfilter-conntrack-dev \
        libnetfilter-queue-dev libnftnl-dev libpsl-dev libseccomp-dev libsodium-dev libssl-dev libuv1-dev; \
    rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY LICENSE meson.build meson.options ./
COPY common common
COPY resolver resolver
COPY gateway gateway
COPY docs/lint.md docs/sluice.8 docs/
COPY tests/unit tests/unit
COPY tests/attack tests/attack
COPY tests/faults tests/faults
COPY tests/bench tests/bench

# CHECK=1 runs the unit tests inside the build.
ARG CHECK=0
RUN set -e; \
    if [ "$CHECK" = 1 ]; then tests=true; else tests=false; fi; \
    meson setup /build . --prefix=/usr -Dbuildtype=release -Dwerror=false -Dtests=$tests; \
    ninja -C /build; \
    if [ "$CHECK" = 1 ]; then meson test -C /build --suite unit --print-errorlogs; fi

# What the image holds. The packages that the libraries come from are noted where scanners of vulnerabilities and makers of SBOMs look for
# them, with their licences.
#
# Old engines give a tmpfs the mode of the directory below it, whatever its options say, and root's ownership: hence mode 1777 for /run/sluice.
# A new volume takes owner and mode of the directory that it covers, /var/lib/sluice; it is open to `user: "0"` without capabilities as well.
#
# For DNS over TLS, libssl looks for certificates of authorities at its own place. The variable that names another one, SSL_CERT_FILE, would
# not do: it is not looked at in a program that has a file capability.
#
# The capability is permitted, not effective: the program raises it where it needs it, and commands that do not
# (`sluice check`, `sluice idle`) also start in containers that were given no capability at all.
RUN set -e; umask 022; \
    install -D -s /build/gateway/sluice /image/usr/bin/sluice; \
    ldd /build/gateway/sluice | grep -o '/[^ ]*' | xargs cp -L --parents --target-directory=/image; \
    install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt; \
    ssl=$(openssl version -d | cut -d'"' -f2); \
    install -d "/image$ssl"; \
    ln -s /etc/ssl/certs/ca-certificates.crt "/image$ssl/cert.pem"; \
    printf 'root:x:0:0:root:/:/sbin/nologin\nsluice:x:65532:65532:Sluice:/:/sbin/nologin\n' >/image/etc/passwd; \
    printf 'root:x:0:\nsluice:x:65532:\n' >/image/etc/group; \
    install -d /image/etc/sluice; \
    for file in $(ldd /build/gateway/sluice | grep -o '/[^ ]*') /usr/sbin/update-ca-certificates; do \
        dpkg-query --search "$(realpath "$file")" | cut -d: -f1; \
    done | sort -u >/packages; \
    install -d /image/var/lib/dpkg/status.d; \
    while read -r package; do \
        dpkg-query --status "$package" >"/image/var/lib/dpkg/status.d/$package"; \
        install -D -m 644 "/usr/share/doc/$package/copyright" "/image/usr/share/doc/$package/copyright"; \
    done </packages; \
    install -D -m 644 LICENSE /image/usr/share/doc/sluice/copyright; \
    install -d -o 65532 -g 65532 -m 1777 /image/run/sluice /image/var/lib/sluice; \
    setcap cap_net_admin=p /image/usr/bin/sluice; \
    getcap /image/usr/bin/sluice | grep -q cap_net_admin=p


FROM scratch
COPY --from=build /image /

ARG VERSION=0.1.0
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="Sluice" \
      org.opencontainers.image.description="Drop-in egress gateway for Docker Compose: allow names, refuse and log everything else" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE"

USER 65532:65532
ENTRYPOINT ["/usr/bin/sluice"]
CMD ["run"]
# --start-interval is not used here: engines before 25 refuse it. An interval of 5 s makes `depends_on: condition: service_healthy` wait 5 s.
# Released images have it (.github/workflows/release.yml).
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["/usr/bin/sluice", "health"]
