#!/usr/bin/env bash
# A browser for the tests of the live page (tests/it/page.rs). Called by the Makefile.
#
# Without one those tests are skipped and say so; with CI=true it is installed here, from Debian's packages: 124 MB, about
# a minute, once a machine. A developer's machine is not changed unasked.
set -euo pipefail

die() { echo "browser.sh: $*" >&2; exit 1; }

for name in chromium chromium-browser google-chrome google-chrome-stable; do
  command -v "$name" > /dev/null && exit 0
done
if [ "${CI:-}" != true ]; then
  echo "services: no chromium, so the live page will not be tested in a browser" >&2
  exit 0
fi
command -v apt-get > /dev/null && [ "$(id -u)" = 0 ] || die "no chromium, and only root on Debian can install it here; install it"
for try in 1 2 3; do
  if apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium > /dev/null; then
    exit 0
  fi
  sleep $((try * 5))
done
die "chromium could not be installed"
