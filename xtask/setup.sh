#!/usr/bin/env bash
# Installs what the tests need and the machine does not have: Debian's packages when this is Debian and we are root,
# else it says what is missing. Node and Python packages are installed by the suites that use them.
set -u
missing=()
want() { # command, package
  command -v "$1" >/dev/null || missing+=("$2")
}
want node nodejs
want npm npm
want python3 python3
want cc build-essential
want pkg-config pkg-config
want chromium chromium
want redis-server redis-server
want epmd rabbitmq-server
want rabbitmq-server rabbitmq-server
# Programs of the system, which are not in everybody's path.
PATH=$PATH:/usr/sbin:/sbin
want nginx nginx
want haproxy haproxy
want caddy caddy
want systemd-analyze systemd
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
pkg-config --exists openssl 2>/dev/null || missing+=(libssl-dev)
if [ ${#missing[@]} -eq 0 ]; then
  echo "nothing is missing"
  exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  # Nodes are started by the tests, each with ports and folders of its own: none is to run as a service.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
    trap 'rm -f $policy' EXIT
  fi
  # Mirrors are far away: what fails is tried again, twice.
  for pause in 5 30 0; do
    if apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; then
      exit 0
    fi
    sleep $pause
  done
  exit 1
else
  echo "please install: ${missing[*]}" >&2
  exit 1
fi
