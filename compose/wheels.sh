#!/usr/bin/env bash
# Makes the wheels from which the image is built where its build may reach no package registry: the
# locked versions, for the Python that the base image has, in compose/wheels.
#
#   compose/wheels.sh [BASE_IMAGE]       default: python:3.12-slim-bookworm
#   EXTRAS=docker,http compose/wheels.sh … for an image with fewer components
#   PYTHON=python3.12 compose/wheels.sh …  an interpreter of the same minor version as the image's
#
# Needs uv, as a command or in that interpreter, and a Docker engine that has the base image.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly base=${1:-python:3.12-slim-bookworm}
readonly extras=${EXTRAS:-chromadb,docker,flower,http,notify,openwebui,system}
readonly wheels=${WHEELS:-compose/wheels}

say() { printf 'wheels: %s\n' "$*" >&2; }

version=$(docker run --rm --network none --entrypoint python3 "$base" \
  -c 'import platform; print(platform.python_version())')
python=${PYTHON:-python${version%.*}}
command -v "$python" >/dev/null || { say "$base has Python $version: set PYTHON to a ${version%.*}"; exit 1; }

uv() { if type -P uv >/dev/null; then command uv "$@"; else "$python" -m uv "$@"; fi; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mapfile -t wanted < <(printf '%s\n' "${extras//,/$'\n'}" | sed 's/^/--extra=/')
# The lock holds for every Python and platform; this is what it says for one.
uv pip compile pyproject.toml --quiet --no-annotate --no-header --no-emit-index-url \
  --python-version "$version" --python-platform linux --constraint requirements.lock \
  "${wanted[@]}" --output-file "$work/requirements.txt"

rm -rf "$wheels"/*.whl
mkdir -p "$wheels"
"$python" -m pip --disable-pip-version-check wheel --quiet --no-deps \
  --wheel-dir "$wheels" --requirement "$work/requirements.txt"
"$python" -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir "$wheels" .
say "$(find "$wheels" -name '*.whl' | wc -l) wheels for Python $version in $wheels"
