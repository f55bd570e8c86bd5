#!/usr/bin/env bash
# Installs the servers that the tests talk to (nginx, nghttpd, caddy, openssl), where that may be done.
# Never fails: a test whose server is missing is skipped, and says so.
set -u

missing=()
command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing+=(nginx-light)
command -v nghttpd >/dev/null || missing+=(nghttp2-server)
command -v caddy >/dev/null || missing+=(caddy)
command -v openssl >/dev/null || missing+=(openssl)
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "Missing: ${missing[*]} (Debian's names). They are installed here only as root and with apt-get:" \
        "tests that need them are skipped." >&2
    exit 0
fi

export DEBIAN_FRONTEND=noninteractive
# A server of ours runs from a test, never as a service of the machine.
mask=/usr/sbin/policy-rc.d
if [ ! -e "$mask" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$mask" && chmod +x "$mask"
    trap 'rm -f "$mask"' EXIT
fi
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends "${missing[@]}"; }; then
    echo "Could not install ${missing[*]}: tests that need them are skipped." >&2
fi
