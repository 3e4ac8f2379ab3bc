#!/usr/bin/env bash
# Builds the image under the compose file and the container tests from Debian packages alone, so
# that no image has to be pulled. Needs root, mmdebstrap and a running Docker engine.
#
#   compose/base-image.sh [IMAGE [MORE]]   default: recovery-base:bookworm; builds only if missing;
#                                          MORE packages, comma separated, for the tests of systemd
#   REBUILD=1 compose/base-image.sh        builds it again
set -euo pipefail

readonly suite=bookworm
readonly image=${1:-recovery-base:$suite}
readonly packages=ca-certificates,python3,python3-venv,redis-server${2:+,$2}

say() { printf 'base-image: %s\n' "$*" >&2; }

# On a machine of the same release, the image comes from where the machine's own packages come
# from; elsewhere mmdebstrap's default for the release is right.
host_sources() {
  local release file
  release=$(. /etc/os-release && printf '%s-%s' "${ID:-}" "${VERSION_CODENAME:-}")
  [ "$release" = "debian-$suite" ] || return 0
  for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    if [ -s "$file" ]; then
      printf '%s\n' "$file"
      return 0
    fi
  done
}

if [ -z "${REBUILD:-}" ] && docker image inspect "$image" >/dev/null 2>&1; then
  say "$image is there already"
  exit 0
fi
for tool in docker mmdebstrap; do
  command -v "$tool" >/dev/null || { say "$tool is not installed"; exit 1; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mapfile -t sources < <(host_sources)

say "bootstrapping $suite with $packages"
# A package's maintainer scripts must start no daemon here; documentation has no reader in an image.
mmdebstrap --quiet --variant=minbase --include="$packages" \
  --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  "$suite" "$work/rootfs.tar" "${sources[@]}"

docker import \
  --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
  --change 'ENV LANG=C.UTF-8' \
  --change 'CMD ["bash"]' \
  "$work/rootfs.tar" "$image" >/dev/null
say "built $image ($(docker image inspect --format '{{.Size}}' "$image" | numfmt --to=iec))"
